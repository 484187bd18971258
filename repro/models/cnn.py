"""Small convolutional networks without batch normalization, as in Caffe's examples.

Source: Caffe's examples and the network definitions published with arXiv 1803.09820. Images are float32
(N, C, H, W), logits (N, classes).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.layers import local_response_norm


class CNN3(nn.Module):
    """Three 5x5 convolutions, each pooled to half the size, and a linear classifier.

    Weights are initialised from a Gaussian, biases to zero. The classifier's weights have 250 times the weight
    decay of the others.
    """

    def __init__(self, classes: int, channels: int, resolution: int):
        super().__init__()
        if resolution < 8:
            raise ValueError("the 3-layer network needs images of at least 8 pixels a side")
        # Multiples of LR and weight decay, for rules.parameter_groups.
        self.multiples = {"conv3.bias": (1.0, 1.0), "classifier.weight": (1.0, 250.0)}
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.classifier = nn.Linear(64 * (resolution // 8) ** 2, classes)
        for name, parameter in self.named_parameters():
            is_bias, is_first = name.endswith("bias"), name == "conv1.weight"
            nn.init.normal_(parameter, std=0.0 if is_bias else 1e-4 if is_first else 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) of the network's resolution to logits (N, classes)."""
        x = local_response_norm(F.relu_(F.max_pool2d(self.conv1(x), 3, stride=2, ceil_mode=True)))
        x = local_response_norm(_average_pool(F.relu_(self.conv2(x))))
        logits: Tensor = self.classifier(_average_pool(F.relu_(self.conv3(x))).flatten(1))
        return logits


class LeNet(nn.Module):
    """Two 5x5 convolutions without padding, each max-pooled to half the size, and two linear layers."""

    def __init__(self, classes: int, channels: int, resolution: int):
        super().__init__()
        for _ in range(2):
            resolution = (resolution - 4 + 1) // 2
        if resolution < 1:
            raise ValueError("LeNet needs images of at least 13 pixels a side")
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.hidden = nn.Linear(50 * resolution**2, 500)
        self.classifier = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) of its resolution to logits (N, classes); one ReLU, after the hidden layer."""
        x = F.max_pool2d(self.conv1(x), 2, ceil_mode=True)
        x = F.max_pool2d(self.conv2(x), 2, ceil_mode=True)
        logits: Tensor = self.classifier(F.relu_(self.hidden(x.flatten(1))))
        return logits


def _average_pool(x: Tensor) -> Tensor:
    """3x3 at stride 2. Caffe rounds the size up; a window cut off at the edge averages its remaining pixels."""
    return F.avg_pool2d(x, 3, stride=2, ceil_mode=True, count_include_pad=False)


def cnn3(num_classes: int, channels: int, *, resolution: int) -> nn.Module:
    """The 3-layer network of arXiv 1803.09820 (``cifar3``): 89,578 parameters at ten classes, 32x32 pixels."""
    return CNN3(num_classes, channels, resolution)


def lenet(num_classes: int, channels: int, *, resolution: int) -> nn.Module:
    """LeNet as in Caffe's MNIST example: 431,080 parameters at ten classes and 28x28 grey pixels."""
    return LeNet(num_classes, channels, resolution)


NETWORKS = {"cnn3": cnn3, "lenet": lenet}
