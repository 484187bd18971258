"""How a run is trained: update rules, plain and fast steps, the loop, checkpoints, one run from start to end.

What belongs here: code that computes an iteration, and code that executes and resumes one run. No sweep, no
figure. Importing this package does not import torch; nor do ``lifecycle``, ``interrupts``, ``checkpoints``,
``devices`` and ``memory``, which sweeps use.

Public: ``lifecycle.run``, ``loop.train`` and ``loop.test``, ``steps.build``, ``sgd.SGD``, ``state.State``.
"""
