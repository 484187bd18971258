"""The author's networks, with the rules that his Caffe files attach to them.

Facts: the network definitions published with arXiv 1708.07120 and 1803.09820. Images come in as float32
(N, C, H, W); logits go out as (N, classes).
"""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.config import Model
from repro.errors import ReproError


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


class SuperconvBlock(nn.Module):
    """Two 3x3 convolutions and a sum, then ReLU. At stride 2 the shortcut is average-pooled and, after the
    ReLU, zeros double the channels: the convolutions keep the width that came in.
    """

    def __init__(self, channels: int, stride: int, norm: dict[str, Any]):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=1)
        self.bn1 = BatchNorm(channels, **norm)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = BatchNorm(channels, **norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, or at stride 2 to (N, 2C, ceil(H/2), ceil(W/2))."""
        y = normalised(F.relu_(normalised(x, self.conv1, self.bn1)), self.conv2, self.bn2)
        if self.stride == 1:
            return F.relu_(y.add_(x))
        # Caffe rounds the pooled size up; a window that is cut averages over what is there. With
        # count_include_pad, though nothing is padded, inductor gets the gradient wrong: pytorch/pytorch#198119.
        y = F.relu_(y.add_(F.avg_pool2d(x, 3, stride=2, ceil_mode=True, count_include_pad=False)))
        return F.pad(y, (0, 0, 0, 0, 0, y.shape[1]))


class HyperparamBlock(nn.Module):
    """Two 3x3 convolutions and a sum, with nothing after it: no ReLU on the residual stream. A block that widens
    has its first convolution at stride 2, and a 2x2 convolution at stride 2 with normalisation as shortcut.
    """

    def __init__(self, channels: int, width: int, norm: dict[str, Any]):
        super().__init__()
        stride = 1 if width == channels else 2
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1)
        self.bn1 = BatchNorm(width, **norm)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = BatchNorm(width, **norm)
        self.shortcut: Any = None
        if width != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 2, stride=2), BatchNorm(width, **norm))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, or when widening to (N, width, H/2, W/2)."""
        y = normalised(F.relu_(normalised(x, self.conv1, self.bn1)), self.conv2, self.bn2)
        return y.add_(x if self.shortcut is None else normalised(x, *self.shortcut))


class ResNet(nn.Module):
    """A stem of one 3x3 convolution, residual blocks, global average pooling and a linear classifier."""

    def __init__(self, blocks: list[nn.Module], classes: int, channels: int, width: int, norm: dict[str, Any]):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.bn = BatchNorm(width, **norm)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = self.blocks(F.relu_(normalised(x, self.stem, self.bn)))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def superconv_blocks(blocks: int, width: int, norm: dict[str, Any]) -> list[nn.Module]:
    """Figure 5's (arXiv 1708.07120): three groups of ``blocks``; group two and three open by halving the image."""
    layers: list[nn.Module] = []
    for group in range(3):
        for block in range(blocks):
            down = group > 0 and block == 0
            layers.append(SuperconvBlock(width << (group - down), 2 if down else 1, norm))
    return layers


def hyperparam_blocks(blocks: int, width: int, norm: dict[str, Any]) -> list[nn.Module]:
    """Those of Figures 6, 8, 11 and 15 (arXiv 1803.09820): ``blocks`` a group, in the first one less (but one).

    The first block of groups two and three doubles the width.
    """
    widths = [width] * max(1, blocks - 1) + [2 * width] * blocks + [4 * width] * blocks
    return [HyperparamBlock(a, b, norm) for a, b in itertools.pairwise([width, *widths])]


NETWORKS = {"resnet56_superconv": superconv_blocks, "resnet56_hyperparam": hyperparam_blocks}


def build(
    name: str,
    num_classes: int,
    *,
    channels: int = 3,
    blocks: int = 9,
    width: int = 16,
    init: str = "msra",
    bn_groups: int = 1,
    bn_fraction: float = 0.95,
    bn_eps: float = 1e-5,
    seed: int = 0,
) -> nn.Module:
    """The network ``name``, initialised from ``seed``; depth is 6 ``blocks`` + 2.

    ``channels`` are those of the images. Raises ValueError for an unknown name.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are {', '.join(NETWORKS)}")
    norm = {"groups": bn_groups, "fraction": bn_fraction, "eps": bn_eps}
    network = ResNet(NETWORKS[name](blocks, width, norm), num_classes, channels, width, norm)
    initialise(network, init, torch.Generator().manual_seed(seed))
    return network


@torch.no_grad()
def initialise(network: nn.Module, init: str, generator: torch.Generator) -> None:
    """Caffe's fillers by fan-in: ``init`` for convolutions, xavier for the classifier, zero for every bias.

    msra is normal with variance 2 / fan-in, xavier uniform with variance 1 / fan-in.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if isinstance(module, nn.Conv2d) and init == "msra":
                module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            else:
                bound = math.sqrt(3 / fan_in)
                module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.zero_()


def parameter_groups(
    network: nn.Module,
    *,
    conv_bias_lr: float = 1.0,
    conv_bias_decay: float = 1.0,
    classifier_bias_lr: float = 2.0,
    classifier_bias_decay: float = 0.0,
) -> dict[tuple[float, float], list[nn.Parameter]]:
    """Parameters by their (multiple of the LR, multiple of the weight decay).

    Weights, and the scale and shift of normalisation, have (1, 1); biases what the arguments say.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            rule = (1.0, 1.0)
            if name == "bias" and isinstance(module, nn.Conv2d):
                rule = (conv_bias_lr, conv_bias_decay)
            elif name == "bias" and isinstance(module, nn.Linear):
                rule = (classifier_bias_lr, classifier_bias_decay)
            groups.setdefault(rule, []).append(parameter)
    return groups


def from_config(model: Model, num_classes: int, channels: int, seed: int) -> nn.Module:
    """The configured network, channels last in memory (the order that images are kept in)."""
    if model.name not in NETWORKS:
        raise ReproError(f"model.name={model.name}: there are {', '.join(NETWORKS)}")
    network = build(
        model.name,
        num_classes,
        channels=channels,
        blocks=model.blocks,
        width=model.width,
        init=model.init.value,
        bn_groups=model.bn_groups,
        bn_fraction=model.bn_fraction,
        bn_eps=model.bn_eps,
        seed=seed,
    )
    return network.to(memory_format=torch.channels_last)
