"""Layers as Caffe has them: normalisation in groups of a batch (ghost batch normalization), folded in testing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.Module):
    """Caffe's BatchNorm and Scale layers: normalisation per device group, normalised running averages.

    In training, the batch is cut into ``groups`` of consecutive images, and each group is normalised by its own
    statistics, as on GPUs that do not synchronise. The running averages follow the first group: each iteration
    multiplies the old sums by ``fraction`` and adds the new statistics (the variance unbiased); testing divides by
    the sum of their weights. Before the first iteration that is 0/0, and the output NaN.

    Three ways to the same numbers: one ``batch_norm`` where there is one group, ``norm_by_parts`` (the plain
    reference), and under torch.compile ``norm_by_view``, whose passes inductor fuses with their neighbours. A step
    may also show it one group after the other, as ``one_group`` says.
    """

    mean_sum: Tensor
    variance_sum: Tensor
    weight_sum: Tensor

    def __init__(self, channels: int, groups: int, fraction: float, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups, self.fraction, self.eps = groups, fraction, eps
        self.alone: int | None = None  # the number of the group that is all it sees of a batch, for one_group
        self.register_buffer("mean_sum", torch.zeros(channels))
        self.register_buffer("variance_sum", torch.zeros(channels))
        self.register_buffer("weight_sum", torch.zeros(()))

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to the same shape; N a multiple of ``groups`` in training.

        ``offset`` (C,) is what training leaves out of ``x``: only the running mean knows of it.
        """
        if not self.training:
            mean, variance = self.averages()
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        norm = norm_by_view if torch.compiler.is_compiling() else norm_by_parts
        groups = self.groups if self.alone is None else 1
        y, mean, variance = norm(x, self.weight, self.bias, groups, self.eps)
        if self.alone:  # not the first
            return y
        with torch.no_grad():
            self.mean_sum.mul_(self.fraction).add_(mean if offset is None else mean + offset)
            self.variance_sum.mul_(self.fraction).add_(variance)
            # As one element: in float64, torch 2.11's inductor leaves several 0-dim tensors as they were.
            self.weight_sum.view(1).mul_(self.fraction).add_(1)
        return y

    def averages(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance of each channel, NaN before the first iteration."""
        return self.mean_sum / self.weight_sum, self.variance_sum / self.weight_sum


@contextmanager
def one_group(network: nn.Module, number: int) -> Iterator[None]:
    """Group ``number`` (from 0) is all that the network sees of a batch; the running averages follow the first."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.alone = number
    try:
        yield
    finally:
        for norm in norms:
            norm.alone = None


Normed = tuple[Tensor, Tensor, Tensor]  # the output, and mean and unbiased variance of the first group


def norm_by_parts(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Normed:
    """Normalise groups of consecutive images one after the other; one group costs no copy."""
    mean, variance = (torch.zeros(x.shape[1], dtype=weight.dtype, device=x.device) for _ in range(2))
    parts = x.chunk(groups) if groups > 1 else [x]
    first = F.batch_norm(parts[0], mean, variance, weight, bias, training=True, momentum=1.0, eps=eps)
    if groups == 1:
        return first, mean, variance
    others = [F.batch_norm(part, None, None, weight, bias, training=True, eps=eps) for part in parts[1:]]
    return torch.cat([first, *others]), mean, variance


def norm_by_view(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Normed:
    """The same with the groups as a dimension of their own: no parts to cut out, none to put together."""
    parts = x.unflatten(0, (groups, -1)).to(weight.dtype)
    variance, mean = torch.var_mean(parts, (1, 3, 4), correction=0, keepdim=True)
    y = (parts - mean) * torch.rsqrt(variance + eps) * weight[:, None, None] + bias[:, None, None]
    n = parts[0].numel() // x.shape[1]
    unbiased = variance[0].flatten() * (n / (n - 1))
    return y.to(x.dtype).flatten(0, 1), mean[0].flatten().detach(), unbiased.detach()


def normalised(x: Tensor, convolution: nn.Conv2d, norm: BatchNorm) -> Tensor:
    """``norm(convolution(x))``; in testing as one convolution, the normalisation folded into its weights.

    In training the convolution's bias is left out, but for the running mean: normalisation takes off what the bias
    adds, so that its gradient is zero but for rounding, and the bias stays the zero that it begins with.
    """
    if norm.training:
        y: Tensor = norm(
            F.conv2d(x, convolution.weight, None, convolution.stride, convolution.padding), convolution.bias
        )
        return y
    mean, variance = norm.averages()
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    weight = convolution.weight * scale[:, None, None, None]
    bias = shift if convolution.bias is None else convolution.bias * scale + shift
    return F.conv2d(x, weight, bias, convolution.stride, convolution.padding)
