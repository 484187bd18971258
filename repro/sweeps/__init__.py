"""A sweep becomes jobs: compose, plan, launch and follow them.

What may enter: what happens around several runs. The process that launches imports no torch.

Public: ``sweeper.Sweeper`` and ``launcher.Launcher`` (found by Hydra through ``hydra_plugins``),
``sweeper.show``, ``cost.estimate``, ``machine.plan``, ``states.describe_run``.
"""
