"""How fast this machine trains, beside the loops that people use, and how near that is to its limits.

What may enter: what measures speed or the error of fast settings. No test asserts a speed.

Public: ``python -m repro.bench``.
"""
