"""Caffe's normalisation layers: ghost batch normalization, folded into convolutions for testing, and LRN."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.Module):
    """Caffe's BatchNorm and Scale layers: ghost batch normalization, with weighted running averages.

    In training, each of ``groups`` groups of consecutive images is normalised by its own statistics, as on GPUs
    that do not synchronise. The running averages follow the first group: each iteration multiplies the sums by
    ``fraction`` and adds the new statistics (the variance unbiased); testing divides by the sum of their weights.
    Before the first iteration that is 0/0, and the output is NaN.

    ``norm_by_parts`` is the plain reference; under torch.compile ``norm_by_view`` computes the same in passes that
    inductor fuses with their neighbours. Inside ``one_group`` a step passes one group at a time.
    """

    mean_sum: Tensor
    variance_sum: Tensor
    weight_sum: Tensor

    def __init__(self, channels: int, groups: int, fraction: float, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups, self.fraction, self.eps = groups, fraction, eps
        self.group_index: int | None = None  # the group that the input consists of, inside one_group
        self.register_buffer("mean_sum", torch.zeros(channels))
        self.register_buffer("variance_sum", torch.zeros(channels))
        self.register_buffer("weight_sum", torch.zeros(()))

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to the same shape; in training, N is a multiple of ``groups``.

        ``offset`` (C,) is a bias that is not part of ``x`` in training: it is added to the running mean only.
        """
        if not self.training:
            mean, variance = self.running_averages()
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        norm = norm_by_view if torch.compiler.is_compiling() else norm_by_parts
        groups = self.groups if self.group_index is None else 1
        y, mean, variance = norm(x, self.weight, self.bias, groups, self.eps)
        if self.group_index:  # neither None nor the first group
            return y
        with torch.no_grad():
            self.mean_sum.mul_(self.fraction).add_(mean if offset is None else mean + offset)
            self.variance_sum.mul_(self.fraction).add_(variance)
            # As a 1-element view: in float64, torch 2.11's inductor does not update several 0-dim tensors.
            self.weight_sum.view(1).mul_(self.fraction).add_(1)
        return y

    def running_averages(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, (C,) each; NaN before the first iteration."""
        return self.mean_sum / self.weight_sum, self.variance_sum / self.weight_sum


@contextmanager
def one_group(network: nn.Module, group_index: int) -> Iterator[None]:
    """The network's input is one whole group, not a batch; only group 0 updates the running averages."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.group_index = group_index
    try:
        yield
    finally:
        for norm in norms:
            norm.group_index = None


Normalised = tuple[Tensor, Tensor, Tensor]  # output; mean and unbiased variance of the first group


def norm_by_parts(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Normalised:
    """Normalise groups of consecutive images one after the other; a single group is not copied."""
    mean, variance = (torch.zeros(x.shape[1], dtype=weight.dtype, device=x.device) for _ in range(2))
    parts = x.chunk(groups) if groups > 1 else [x]
    first = F.batch_norm(parts[0], mean, variance, weight, bias, training=True, momentum=1.0, eps=eps)
    if groups == 1:
        return first, mean, variance
    rest = [F.batch_norm(part, None, None, weight, bias, training=True, eps=eps) for part in parts[1:]]
    return torch.cat([first, *rest]), mean, variance


def norm_by_view(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Normalised:
    """``norm_by_parts`` with the groups as a dimension of a view: nothing to split or concatenate."""
    parts = x.unflatten(0, (groups, -1)).to(weight.dtype)
    variance, mean = torch.var_mean(parts, (1, 3, 4), correction=0, keepdim=True)
    # With a scale and a shift per group, the backward pass reads its tensors only twice.
    scale = torch.rsqrt(variance + eps) * weight[:, None, None]
    y = (parts - mean) * scale + bias[:, None, None].expand_as(scale)
    n = parts[0].numel() // x.shape[1]
    unbiased = variance[0].flatten() * (n / (n - 1))
    return y.to(x.dtype).flatten(0, 1), mean[0].flatten().detach(), unbiased.detach()


def convolve_and_normalise(x: Tensor, convolution: nn.Conv2d, norm: BatchNorm) -> Tensor:
    """``norm(convolution(x))``; in testing a single convolution, with the normalisation folded into its weights.

    In training the convolution's bias enters only the running mean: normalisation subtracts it again, so that its
    gradient would be zero up to rounding. Without a gradient the bias stays at its initial zero.
    """
    if norm.training:
        y: Tensor = norm(
            F.conv2d(x, convolution.weight, None, convolution.stride, convolution.padding), convolution.bias
        )
        return y
    mean, variance = norm.running_averages()
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    weight = convolution.weight * scale[:, None, None, None]
    bias = shift if convolution.bias is None else convolution.bias * scale + shift
    return F.conv2d(x, weight, bias, convolution.stride, convolution.padding)


def local_response_norm(x: Tensor) -> Tensor:
    """Caffe's LRN within channel: x (1 + alpha m)^-beta, with m the mean of the squares in the window around x.

    The window is 3x3, alpha 5e-5 and beta 0.75, the author's values; pixels of the window outside the image count
    as zeros. (torch's ``local_response_norm`` normalises across channels.) (N, C, H, W) to the same shape.

    ``lrn_by_pooling`` is the plain reference, which inductor fuses; outside torch.compile, explicit gradients take
    half its time.
    """
    y: Tensor = lrn_by_pooling(x) if torch.compiler.is_compiling() else _LRN.apply(x)
    return y


LRN_ALPHA, LRN_BETA = 5e-5, 0.75


def lrn_by_pooling(x: Tensor) -> Tensor:
    """``local_response_norm``, written as its definition."""
    return x * (1 + LRN_ALPHA * F.avg_pool2d(x * x, 3, stride=1, padding=1)) ** -LRN_BETA


class _LRN(torch.autograd.Function):
    """``local_response_norm`` with an explicit gradient, and s^-0.75 by two square roots."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        base = F.avg_pool2d(x * x, 3, stride=1, padding=1).mul_(LRN_ALPHA).add_(1)
        factor = (base * base.sqrt()).rsqrt_()
        ctx.save_for_backward(x, base, factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, base, factor = ctx.saved_tensors
        direct = gradient * factor
        around = F.avg_pool2d((direct * x).div_(base), 3, stride=1, padding=1)  # the pooling is its own transpose
        total: Tensor = direct.addcmul_(x, around, value=-2 * LRN_ALPHA * LRN_BETA)
        return total
