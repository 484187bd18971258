"""How a run is trained: update rules, one step plain and fast, the loop, checkpoints, one run from start to end.

What may enter: what computes an iteration or keeps a run going. No sweep, no figure. Importing this package does
not import torch; nor do ``lifecycle``, ``interrupts``, ``checkpoints``, ``devices`` and ``memory``, which sweeps
use.

Public: ``lifecycle.run``, ``loop.train`` and ``loop.test``, ``steps.build``, ``sgd.SGD``, ``state.State``.
"""
