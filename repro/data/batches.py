"""Data sets as uint8 tensors on the device, and training batches built there by whole-batch operations."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from repro.config import Dataset
from repro.data import images, registry


@dataclass(frozen=True)
class Data:
    """A data set on one device. Images are uint8 (N, H, W, C), labels int64 (N,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: Tensor  # the subtracted image, float32 (H, W, C): the mean of the training images, or zeros
    classes: int
    levels: float = 1.0  # the divisor of the pixels after the subtraction
    digest: str | None = None  # of the whole image set

    def network_input(self, images: Tensor) -> Tensor:
        """uint8 (n, H, W, C) to float32 (n, C, H, W): the mean image subtracted, then divided by ``levels``."""
        pixels = images.float() - self.mean
        return (pixels if self.levels == 1 else pixels / self.levels).permute(0, 3, 1, 2)


def load(dataset: Dataset, device: str | torch.device = "cpu") -> Data:
    """The configured data set on ``device``; a subset does not depend on the run's seed.

    Raises ReproError for missing, incomplete or broken data, and for a subset larger than the set.
    """
    arrays, digest = images.load(dataset)
    registry.refuse_larger_subset(dataset, train=len(arrays["train_labels"]), test=len(arrays["test_labels"]))
    tensors: dict[str, Tensor] = {}
    for split, count in (("train", dataset.train_images), ("test", dataset.test_images)):
        pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if count is not None:
            subset = np.random.default_rng(0).permutation(len(labels))[:count]
            pixels, labels = pixels[subset], labels[subset]
        tensor = torch.from_numpy(np.ascontiguousarray(pixels))
        height, width = tensor.shape[1:3]
        resolution = max(dataset.resolution or min(height, width), dataset.min_resolution or 0)
        if dataset.resolution is not None or resolution > min(height, width):
            if height != width and split == "train":
                sizes = f"{width}x{height} pixels are squashed, not cropped, to {resolution}x{resolution}"
                print(f"note: {dataset.name}: the images of {sizes}")
            tensor = _resize(tensor, resolution)
        tensors[f"{split}_images"] = tensor.to(device)
        tensors[f"{split}_labels"] = torch.from_numpy(labels.astype(np.int64)).to(device)
    pixel_sums = sum(chunk.sum(0, dtype=torch.int64) for chunk in tensors["train_images"].split(5000))
    mean = (pixel_sums / len(tensors["train_images"])).float() * dataset.mean_image
    image_set = registry.get(dataset)
    levels = image_set.levels if dataset.unit_pixels else 1.0
    return Data(**tensors, mean=mean, classes=image_set.classes, levels=levels, digest=digest)


class Batches:
    """Training batches as a function of seed and iteration alone.

    Each epoch draws a new permutation of the training set (without ``reshuffle``, all use the first epoch's) and
    new random mirroring. Epochs are concatenated without partial batches: a batch may span the end of an epoch.
    """

    def __init__(self, data: Data, batch_size: int, *, mirror: bool, reshuffle: bool = True, seed: int):
        self.data, self.batch_size, self.mirror, self.reshuffle = data, batch_size, mirror, reshuffle
        self.seed = seed
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Float32 images (batch_size, C, H, W) and int64 labels (batch_size,) of an iteration, counted from 0."""
        data, n = self.data, len(self.data.train_labels)
        start, stop = iteration * self.batch_size, (iteration + 1) * self.batch_size
        orders, flips = [], []
        for epoch in range(start // n, (stop - 1) // n + 1):
            order, flip = self._epoch(epoch)
            in_batch = slice(max(start - epoch * n, 0), stop - epoch * n)
            orders.append(order[in_batch])
            flips.append(flip[in_batch])
        order = torch.cat(orders) if len(orders) > 1 else orders[0]
        images = data.train_images[order]
        if self.mirror:
            flip = torch.cat(flips) if len(flips) > 1 else flips[0]
            images = torch.where(flip[:, None, None, None], images.flip(2), images)
        return data.network_input(images), data.train_labels[order]

    def _draw_epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The order of an epoch's images, and whether each is mirrored."""
        rng, n = np.random.default_rng((self.seed, epoch)), len(self.data.train_labels)
        drawn = rng.permutation(n)
        if not self.reshuffle and epoch:
            drawn = np.random.default_rng((self.seed, 0)).permutation(n)
        order, flip = torch.from_numpy(drawn), torch.from_numpy(rng.random(n) < 0.5)
        device = self.data.train_labels.device
        return order.to(device, non_blocking=True), flip.to(device, non_blocking=True)


def _resize(images: Tensor, size: int) -> Tensor:
    """uint8 (N, H, W, C) to (N, size, size, C) by area averaging."""
    resized = [
        torch.nn.functional.interpolate(chunk.permute(0, 3, 1, 2).float(), size=(size, size), mode="area")
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        for chunk in images.split(5000)
    ]
    return torch.cat(resized).contiguous()
