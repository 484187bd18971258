"""CIFAR-10, CIFAR-100 and MNIST, from torchvision's files. Imports torch only to read them."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from repro.config.errors import ReproError, first_line
from repro.data.registry import Arrays, ImageSet

TORCHVISION = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "mnist": ("MNIST", "MNIST/raw"),
}


def read(root: Path, name: str) -> Arrays:
    """The image set ``name`` as torchvision reads it under ``root``; downloads it if it is missing.

    Raises ReproError for an incomplete or broken set and for a failed download; PermissionError.
    """
    from torchvision import datasets

    class_name, folder = TORCHVISION[name]
    present = any((root / folder).glob("*"))  # a failed download leaves MNIST an empty folder
    made = next((path for path in [*reversed(root.parents), root] if not path.exists()), None)
    arrays: Arrays = {}
    for split in ("train", "test"):
        try:
            source = getattr(datasets, class_name)(root, train=split == "train", download=not present)
        except PermissionError:
            raise
        except Exception as error:  # whatever unpacking a broken archive or file raises
            problem = "is incomplete" if present else "could not be downloaded"
            if made is not None:  # by torchvision, before it failed
                _remove_empty(made)
            raise ReproError(
                f"dataset.root={root}: {name} {problem} ({first_line(error)}); searched there for "
                f"{folder}/, train/<class>/*.png and {name}/train/<class>/*.png. Provide one of them, or "
                "set another root"
            ) from None
        images = np.asarray(source.data)
        arrays[f"{split}_images"] = images.reshape(*images.shape[:3], -1)  # grey images have no channels there
        arrays[f"{split}_labels"] = np.asarray(source.targets, dtype=np.int64)
    return arrays


def _remove_empty(folder: Path) -> None:
    """Delete a folder and those in it, as far as they are empty."""
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in [*sorted(folders, reverse=True), folder]:
        with suppress(OSError):
            path.rmdir()


def _image_set(name: str, train: int, classes: int, size: int, channels: int) -> ImageSet:
    return ImageSet(train, 10_000, classes, size, channels, partial(read, name=name), folder=TORCHVISION[name][1])


DATA_SETS = {
    "cifar10": _image_set("cifar10", 50_000, 10, 32, 3),
    "cifar100": _image_set("cifar100", 50_000, 100, 32, 3),
    "mnist": _image_set("mnist", 60_000, 10, 28, 1),
}
