"""A disciplined approach to neural network hyper-parameters (arXiv 1803.09820), reproduced."""
