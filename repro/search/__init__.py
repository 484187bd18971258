"""The recipe: the paper's search methods over one's own network and data, ``python -m repro.search method=...``.

What may enter: which runs a method trains, and what it concludes from their records. A method composes
configurations and trains them as a sweep does (``runs.train``): the same loop, records, resume, launchers and W&B.
No torch here.

Public: ``app`` (the command), ``suggestion`` (the rule of a range test), a module a method with its function
``search``, ``settings`` (what a method can be told), ``found`` (what it concludes, and its files).
"""
