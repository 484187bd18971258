"""Weights & Biases: runs mirrored live, uploaded later, pulled again, saved views.

What may enter: what speaks to wandb, which is imported where it is used. The record on disk is the truth: a
failure here costs no training. What wandb does not document is used in ``_compat`` alone.

Public: ``mirror.Mirror``, ``upload.upload``, ``copies`` (what a server holds of records), ``pull.server``,
``pull.cached``, ``pull.offline``, ``environment.obey``, ``artifact.log_figure``, ``views.make``.
"""
