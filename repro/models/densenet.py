"""The densenet of Table 2 (arXiv 1803.09820), after the Caffe files of its own authors (arXiv 1608.06993).

Images are float32 (N, C, H, W), logits (N, classes).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.layers import BatchNorm


class Layer(nn.Module):
    """Normalisation, ReLU, a convolution without bias, dropout."""

    def __init__(self, channels: int, width: int, kernel: int, dropout: float, norm: dict[str, Any]):
        super().__init__()
        self.bn = BatchNorm(channels, **norm)
        self.conv = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, width, H, W)."""
        y: Tensor = self.dropout(self.conv(F.relu_(self.bn(x))))
        return y


class DenseLayer(Layer):
    """A 3x3 layer whose output joins its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + width, H, W)."""
        return torch.cat([x, super().forward(x)], 1)


class Transition(Layer):
    """A 1x1 layer, then 2x2 average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H/2, W/2)."""
        return F.avg_pool2d(super().forward(x), 2)


class DenseNet(nn.Module):
    """A 3x3 convolution, three blocks of dense layers with transitions between them, and a linear classifier."""

    def __init__(
        self,
        blocks: int,
        growth: int,
        dropout: float,
        classes: int,
        channels: int,
        width: int,
        norm: dict[str, Any],
    ):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        for block in range(3):
            if block > 0:
                layers.append(Transition(width, width, 1, dropout, norm))
            for _ in range(blocks):
                layers.append(DenseLayer(width, growth, 3, dropout, norm))
                width += growth
        self.layers = nn.Sequential(*layers)
        self.bn = BatchNorm(width, **norm)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), with H and W divisible by 4, to logits (N, classes)."""
        logits: Tensor = self.classifier(F.relu_(self.bn(self.layers(self.stem(x)))).mean((2, 3)))
        return logits


def densenet40(
    num_classes: int,
    channels: int,
    *,
    blocks: int = 12,
    width: int = 16,
    growth: int = 12,
    dropout: float = 0.2,
    bn_groups: int = 1,
    bn_fraction: float = 0.9,
    bn_eps: float = 1e-5,
) -> nn.Module:
    """Table 2's densenet (``genDensenet40``): 1,019,722 parameters at ten classes. Depth is 3 ``blocks`` + 4.

    ``blocks`` is the number of layers in each of the three dense blocks, ``width`` the channels before the first.
    """
    norm = {"groups": bn_groups, "fraction": bn_fraction, "eps": bn_eps}
    return DenseNet(blocks, growth, dropout, num_classes, channels, width, norm)


NETWORKS = {"densenet40": densenet40}
