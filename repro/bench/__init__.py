"""How fast this machine trains, beside the loops that people use, and how near to what it could do at best.

What may enter: what measures. Speed is asserted nowhere else.

Public: ``python -m repro.bench``.
"""
