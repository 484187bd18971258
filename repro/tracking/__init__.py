"""Weights & Biases: runs mirrored live or uploaded later, runs pulled from it, saved views.

What belongs here: code that talks to wandb, which is imported where it is used. The record on disk is
authoritative: a failure here costs no training. Undocumented parts of wandb are used only in ``_compat``.

Public: ``mirror.Mirror``, ``upload.upload``, ``copies`` (a server's copies of records), ``pull.server``,
``pull.cached``, ``pull.offline``, ``environment.obey``, ``artifact.log_figure``, ``views.make``.
"""
