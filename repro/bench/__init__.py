"""Benchmarks: the training speed of this machine, compared with commonly used loops and with the machine's limits.

What belongs here: code that measures speed, or the errors of fast settings. No test asserts a speed.

Public: ``python -m repro.bench``.
"""
