"""The author's residual networks: two resnet-56 and a wide one.

Source: the network definitions published with arXiv 1708.07120 and 1803.09820. Images are float32 (N, C, H, W),
logits (N, classes).
"""

import itertools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.layers import BatchNorm, convolve_and_normalise


class SuperconvBlock(nn.Module):
    """Two 3x3 convolutions, the sum with the shortcut, then ReLU (arXiv 1708.07120).

    At stride 2 the shortcut is average-pooled and, after the ReLU, zeros double the channels: the convolutions
    keep the width of the input.
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
        y = convolve_and_normalise(F.relu_(convolve_and_normalise(x, self.conv1, self.bn1)), self.conv2, self.bn2)
        if self.stride == 1:
            return F.relu_(y.add_(x))
        # Caffe rounds the pooled size up; a window cut off at the edge averages its remaining pixels. With
        # count_include_pad, inductor computes a wrong gradient though nothing is padded: pytorch/pytorch#198119.
        y = F.relu_(y.add_(F.avg_pool2d(x, 3, stride=2, ceil_mode=True, count_include_pad=False)))
        return F.pad(y, (0, 0, 0, 0, 0, y.shape[1]))


class HyperparamBlock(nn.Module):
    """Two 3x3 convolutions and the sum with the shortcut, without a ReLU after it (arXiv 1803.09820).

    In a widening block the first convolution has stride 2, and the shortcut is a normalised 2x2 convolution at
    stride 2.
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
        """(N, C, H, W) to the same shape, or in a widening block to (N, width, H/2, W/2)."""
        y = convolve_and_normalise(F.relu_(convolve_and_normalise(x, self.conv1, self.bn1)), self.conv2, self.bn2)
        return y.add_(x if self.shortcut is None else convolve_and_normalise(x, *self.shortcut))


class ResNet(nn.Module):
    """A stem of one 3x3 convolution, residual blocks, global average pooling and a linear classifier.

    The stem has ``width`` channels, the classifier ``head``.
    """

    def __init__(
        self, blocks: list[nn.Module], classes: int, channels: int, width: int, head: int, norm: dict[str, Any]
    ):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.bn = BatchNorm(width, **norm)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes). Raises ValueError unless 4 divides H and W."""
        if x.shape[2] % 4 or x.shape[3] % 4:  # at 3 pixels a shortcut of 1 pixel would be broadcast
            raise ValueError("height and width must be multiples of 4: they are halved twice")
        x = self.blocks(F.relu_(convolve_and_normalise(x, self.stem, self.bn)))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


def superconv_blocks(blocks: int, width: int, norm: dict[str, Any]) -> list[nn.Module]:
    """The blocks of Figure 5's network (arXiv 1708.07120): three groups of ``blocks``.

    Groups two and three halve the image first.
    """
    layers: list[nn.Module] = []
    for group in range(3):
        for block in range(blocks):
            halves = group > 0 and block == 0
            layers.append(SuperconvBlock(width << (group - halves), 2 if halves else 1, norm))
    return layers


def hyperparam_blocks(blocks: int, width: int, norm: dict[str, Any]) -> list[nn.Module]:
    """The blocks of the network of Figures 6, 8, 11 and 15 (arXiv 1803.09820): three groups of ``blocks``.

    The first group has one block fewer, but at least one. Groups two and three begin by doubling the width.
    """
    return _widening_blocks([width] * max(1, blocks - 1) + [2 * width] * blocks + [4 * width] * blocks, norm)


def wide_blocks(blocks: int, width: int, norm: dict[str, Any]) -> list[nn.Module]:
    """The blocks of Table 2's wide network (arXiv 1803.09820): three groups of ``blocks``.

    Groups two and three begin by quadrupling the width.
    """
    return _widening_blocks([width] * blocks + [4 * width] * blocks + [16 * width] * blocks, norm)


def _widening_blocks(widths: list[int], norm: dict[str, Any]) -> list[nn.Module]:
    return [HyperparamBlock(before, after, norm) for before, after in itertools.pairwise([widths[0], *widths])]


def resnet56_superconv(
    num_classes: int,
    channels: int,
    *,
    blocks: int = 9,
    width: int = 16,
    bn_groups: int = 1,
    bn_fraction: float = 0.95,
    bn_eps: float = 1e-5,
) -> nn.Module:
    """Figure 5's network (arXiv 1708.07120): 808,682 parameters at ten classes. Depth is 6 ``blocks`` + 2."""
    norm = {"groups": bn_groups, "fraction": bn_fraction, "eps": bn_eps}
    return ResNet(superconv_blocks(blocks, width, norm), num_classes, channels, width, 4 * width, norm)


def resnet56_hyperparam(
    num_classes: int,
    channels: int,
    *,
    blocks: int = 9,
    width: int = 16,
    bn_groups: int = 1,
    bn_fraction: float = 0.9,
    bn_eps: float = 1e-5,
) -> nn.Module:
    """The network of Figures 6, 8, 11 and 15 (arXiv 1803.09820): 860,874 parameters at ten classes.

    Depth is 6 ``blocks`` + 2.
    """
    norm = {"groups": bn_groups, "fraction": bn_fraction, "eps": bn_eps}
    return ResNet(hyperparam_blocks(blocks, width, norm), num_classes, channels, width, 4 * width, norm)


def wide_resnet32(
    num_classes: int,
    channels: int,
    *,
    blocks: int = 5,
    width: int = 16,
    bn_groups: int = 1,
    bn_fraction: float = 0.9,
    bn_eps: float = 1e-5,
) -> nn.Module:
    """Table 2's wide network (``wide32cifar``, arXiv 1803.09820): 5,903,626 parameters at ten classes.

    Depth is 6 ``blocks`` + 2.
    """
    norm = {"groups": bn_groups, "fraction": bn_fraction, "eps": bn_eps}
    return ResNet(wide_blocks(blocks, width, norm), num_classes, channels, width, 16 * width, norm)


NETWORKS = {
    "resnet56_superconv": resnet56_superconv,
    "resnet56_hyperparam": resnet56_hyperparam,
    "wide_resnet32": wide_resnet32,
}
