"""Weights & Biases: runs mirrored live, uploaded later, pulled again, saved views.

What may enter: what speaks to wandb, which is imported where it is used. The record on disk is the truth: a
failure here costs no training.

Public: ``mirror.Mirror``, ``upload.upload``, ``pull.server``, ``pull.cached``, ``pull.offline``, ``views.make``.
"""
