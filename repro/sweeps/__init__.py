"""A sweep becomes jobs: compose, plan, launch and follow them.

What belongs here: code that handles several runs together. The launching process does not import torch.

Public: ``sweeper.Sweeper`` and ``launcher.Launcher`` (found by Hydra through ``hydra_plugins``),
``sweeper.show``, ``cost.estimate``, ``machine.plan``, ``states.describe_run``.
"""
