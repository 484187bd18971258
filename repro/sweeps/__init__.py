"""A sweep becomes jobs: composing, planning, launching, following them.

What may enter: what happens around several runs. No torch in the process that launches.

Public: ``sweeper.Sweeper`` and ``launcher.Launcher`` (what Hydra finds in ``hydra_plugins``), ``sweeper.show``,
``cost.estimate``, ``machine.plan``, ``states.look``.
"""
