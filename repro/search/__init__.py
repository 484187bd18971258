"""The recipe: the paper's search methods for the user's network and data, ``python -m repro.search method=...``.

What belongs here: which runs a method trains, and what it concludes from their records. A method composes
configurations and trains them as a sweep does (``runs.train``): the same loop, records, resume, launchers and W&B.
Does not import torch.

Public: ``app`` (the command), ``suggestion`` (the rule of a range test), one module per method with its function
``search``, ``settings`` (the settings of a method), ``found`` (its result, and its files).
"""
