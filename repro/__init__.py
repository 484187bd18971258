"""Reproduces the figures of L. N. Smith's report on disciplined hyper-parameters (arXiv 1803.09820)."""
