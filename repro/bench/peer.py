"""Commonly used loops, as in popular CIFAR repositories, for comparison with ours.

Each is an endless generator that trains one iteration per ``next``: the same network and batch as ours, in one
normalisation group, with torch's SGD and OneCycleLR.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SCHEDULE_STEPS = 1_000_000  # more than any measurement takes


class Images(Dataset[tuple[Tensor, int]]):
    """uint8 arrays as PIL images, cropped, mirrored and normalised one by one."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray):
        from torchvision import transforms

        size, channels = pixels.shape[1], pixels.shape[3]
        self.pixels, self.labels = pixels, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * channels, (0.25,) * channels),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index].squeeze())), int(self.labels[index])


def from_files(
    network: nn.Module, pixels: np.ndarray, labels: np.ndarray, batch_size: int, device: str, workers: int
) -> Iterator[None]:
    """Train on PIL images from a DataLoader with ``workers`` processes: float32, NCHW, ``.item()`` every step."""
    loader: Any = DataLoader(
        Images(pixels, labels),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device != "cpu",
        persistent_workers=workers > 0,
    )
    step = _make_step(network.to(device))
    while True:
        for images, targets in loader:
            step(images.to(device, non_blocking=True), targets.to(device, non_blocking=True))
            yield


def from_memory(
    network: nn.Module, images: Tensor, labels: Tensor, batch_size: int, test: tuple[Tensor, Tensor, int]
) -> Iterator[None]:
    """Train by a plain loop over float32 NCHW images on the device.

    ``test`` holds test images, their labels, and the number of iterations between tests, of 100 images at a time.
    """
    step = _make_step(network)
    test_images, test_labels, test_every = test
    iteration = 0
    while True:
        order = torch.randperm(len(labels), device=labels.device)
        for batch in order.split(batch_size):
            if len(batch) < batch_size:
                break
            step(images[batch], labels[batch])
            iteration += 1
            if iteration % test_every == 0:
                accuracy(network.eval(), test_images, test_labels)
                network.train()
            yield


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The accuracy (a fraction) of a network in evaluation mode, tested 100 images at a time."""
    correct = 0.0
    for batch, targets in zip(images.split(100), labels.split(100), strict=True):
        correct += (network(batch).argmax(1) == targets).sum().item()
    return correct / len(labels)


def _make_step(network: nn.Module) -> Any:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=SCHEDULE_STEPS)
    total_loss = 0.0

    def step(images: Tensor, labels: Tensor) -> None:
        nonlocal total_loss
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total_loss += loss.item()

    return step
