"""Data sets as uint8 tensors on the device, and training batches made there by whole-batch operations.

An image set comes from torchvision's files (downloaded at first use) or from a tree of image folders, is put
into an order that does not depend on where it came from, and is cached decoded: a run is the same from either.
"""

import os
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repro.config import Dataset, ReproError

SIZES = {  # train and test images, classes
    "digits": (300, 1497, 10),
    "cifar10": (50_000, 10_000, 10),
    "cifar100": (50_000, 10_000, 100),
}
TORCHVISION = {"cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python")}
Arrays = dict[str, np.ndarray]  # train_images, train_labels, test_images, test_labels; images (N, H, W, C)


@dataclass(frozen=True)
class Data:
    """A data set on one device. Images are uint8 (N, H, W, C), labels int64 (N,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: Tensor  # of the training images, float32 (H, W, C)
    classes: int

    def network_input(self, images: Tensor) -> Tensor:
        """uint8 (n, H, W, C) to float32 (n, C, H, W): the mean image subtracted, no division (as the author)."""
        return (images.float() - self.mean).permute(0, 3, 1, 2)


def load(dataset: Dataset, device: str | torch.device = "cpu") -> Data:
    """The data set that the configuration names, on ``device``.

    Subsets are taken from a fixed permutation, the same for every seed. Raises ReproError where the data is
    missing or incomplete.
    """
    if dataset.name not in SIZES:
        raise ReproError(f"dataset.name={dataset.name}: there are {', '.join(SIZES)}")
    arrays = _digits() if dataset.name == "digits" else _cifar(dataset)
    parts: dict[str, Tensor] = {}
    for split, count in (("train", dataset.train_images), ("test", dataset.test_images)):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if count is not None and count < len(labels):
            chosen = np.random.default_rng(0).permutation(len(labels))[:count]
            images, labels = images[chosen], labels[chosen]
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        if dataset.resolution is not None:
            tensor = _resized(tensor, dataset.resolution)
        parts[f"{split}_images"] = tensor.to(device)
        parts[f"{split}_labels"] = torch.from_numpy(labels.astype(np.int64)).to(device)
    total = sum(batch.sum(0, dtype=torch.int64) for batch in parts["train_images"].split(5000))
    mean = (total / len(parts["train_images"])).float()
    return Data(**parts, mean=mean, classes=SIZES[dataset.name][2])


class Batches:
    """Training batches as a function of seed and iteration alone.

    The stream is one permutation of the training set an epoch after the other, without partial batches: a batch
    may span the end of an epoch. Each epoch draws its own order and its own mirroring.
    """

    def __init__(self, data: Data, batch_size: int, *, mirror: bool, seed: int):
        self.data, self.batch_size, self.mirror, self.seed = data, batch_size, mirror, seed
        self._epoch = lru_cache(maxsize=2)(self._draw)

    def __call__(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Float32 images (batch_size, C, H, W) and int64 labels (batch_size,) of one iteration, from 0."""
        data, n = self.data, len(self.data.train_labels)
        start, stop = iteration * self.batch_size, (iteration + 1) * self.batch_size
        orders, flips = [], []
        for epoch in range(start // n, (stop - 1) // n + 1):
            order, flip = self._epoch(epoch)
            part = slice(max(start - epoch * n, 0), stop - epoch * n)
            orders.append(order[part])
            flips.append(flip[part])
        order = torch.cat(orders) if len(orders) > 1 else orders[0]
        images = data.train_images[order]
        if self.mirror:
            flip = torch.cat(flips) if len(flips) > 1 else flips[0]
            images = torch.where(flip[:, None, None, None], images.flip(2), images)
        return data.network_input(images), data.train_labels[order]

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        rng, n = np.random.default_rng((self.seed, epoch)), len(self.data.train_labels)
        order, flip = torch.from_numpy(rng.permutation(n)), torch.from_numpy(rng.random(n) < 0.5)
        device = self.data.train_labels.device
        return order.to(device, non_blocking=True), flip.to(device, non_blocking=True)


def _digits() -> Arrays:
    """scikit-learn's 1,797 handwritten digits, 8x8, values 0 to 16: a fixed 300 to train on, the rest to test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.images[order, :, :, None].astype(np.uint8), digits.target[order]
    train = SIZES["digits"][0]
    return {
        "train_images": images[:train],
        "train_labels": labels[:train],
        "test_images": images[train:],
        "test_labels": labels[train:],
    }


def _cifar(dataset: Dataset) -> Arrays:
    root = Path(dataset.root).expanduser().resolve()
    cache = Path(dataset.cache or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()
    try:
        tree = _image_tree(root, dataset.name)
        stamp = tree or root / TORCHVISION[dataset.name][1]
        entry = cache / "disciplined-repro" / f"{dataset.name}-{_key(stamp)}"
        if stamp.exists() and entry.exists():
            return {path.stem: np.load(path) for path in entry.glob("*.npy")}
        arrays = _decode_tree(tree, dataset.name) if tree else _torchvision(root, dataset.name)
    except PermissionError as error:
        raise ReproError(f"dataset.root={root}: {error.filename} cannot be read: {error.strerror}") from None
    arrays = {**_sorted(arrays, "train"), **_sorted(arrays, "test")}
    entry = cache / "disciplined-repro" / f"{dataset.name}-{_key(stamp)}"
    try:
        _store(entry, arrays)
    except OSError as error:
        print(f"note: the decoded images could not be cached in {entry} ({error}); they will be decoded again")
    return arrays


def _image_tree(root: Path, name: str) -> Path | None:
    return next((tree for tree in (root, root / name) if (tree / "train").is_dir()), None)


def _key(folder: Path) -> str:
    """Changes with the place and with any file added to or removed from its folders."""
    folders = sorted(p for p in [folder, *folder.glob("*"), *folder.glob("*/*")] if p.is_dir())
    text = "".join(f"{path}:{path.stat().st_mtime_ns};" for path in folders)
    return f"{zlib.crc32(text.encode()):08x}"


def _decode_tree(tree: Path, name: str) -> Arrays:
    from rich.progress import track

    arrays: Arrays = {}
    expected = dict(zip(("train", "test"), SIZES[name][:2], strict=True))
    for split, count in expected.items():
        classes = sorted(p.name for p in (tree / split).glob("*") if p.is_dir())
        if len(classes) != SIZES[name][2]:
            raise ReproError(
                f"dataset.root: {tree / split} holds {len(classes)} class folders, {name} has {SIZES[name][2]}"
            )
        files = [(p, label) for label, c in enumerate(classes) for p in sorted((tree / split / c).glob("*.png"))]
        if not files:
            raise ReproError(f"dataset.root: no <class>/*.png under {tree / split}")
        if len(files) != count:
            print(f"note: {tree / split} holds {len(files)} images; {name} has {count}")
        images = []
        for path, _ in track(files, f"decoding {name} {split}", transient=True):
            images.append(_decode(path))
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ReproError(f"dataset.root: the images under {tree / split} differ in size: {sorted(shapes)[:3]}")
        arrays[f"{split}_images"] = np.stack(images)
        arrays[f"{split}_labels"] = np.array([label for _, label in files], dtype=np.int64)
    return arrays


def _decode(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except PermissionError:
        raise
    except OSError as error:
        raise ReproError(f"dataset.root: {path} is not a readable image ({error}); restore it") from None


def _torchvision(root: Path, name: str) -> Arrays:
    from torchvision import datasets

    kind, folder = TORCHVISION[name]
    present = (root / folder).is_dir()
    arrays: Arrays = {}
    for split in ("train", "test"):
        try:
            source = getattr(datasets, kind)(root, train=split == "train", download=not present)
        except (OSError, RuntimeError) as error:
            if isinstance(error, PermissionError):
                raise
            what = "is incomplete" if present else "could not be downloaded"
            raise ReproError(
                f"dataset.root={root}: {name} {what} ({str(error).splitlines()[0]}); looked there for {folder}/, "
                f"train/<class>/*.png and {name}/train/<class>/*.png. Bring one of them, or name another root"
            ) from None
        arrays[f"{split}_images"] = np.asarray(source.data)
        arrays[f"{split}_labels"] = np.asarray(source.targets, dtype=np.int64)
    return arrays


def _sorted(arrays: Arrays, split: str) -> Arrays:
    """By label, then by pixels: the same order whatever order the source had."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    return {f"{split}_images": images[order], f"{split}_labels": labels[order]}


def _store(entry: Path, arrays: Arrays) -> None:
    """All of it or nothing: written beside its place, then renamed."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        if not entry.exists():
            partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _resized(images: Tensor, size: int) -> Tensor:
    """uint8 (N, H, W, C) to (N, size, size, C) by area averaging."""
    resized = [
        torch.nn.functional.interpolate(batch.permute(0, 3, 1, 2).float(), size=(size, size), mode="area")
        .round()
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        for batch in images.split(5000)
    ]
    return torch.cat(resized).contiguous()
