"""The registry of image sets and their declarations. Does not import torch."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from repro import user_code
from repro.config import Dataset
from repro.config.errors import ReproError

ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")
Arrays = dict[str, np.ndarray]  # keys ARRAY_NAMES; images uint8 (N, H, W, C), labels int64 (N,)


@dataclass(frozen=True)
class ImageSet:
    """An image set: its size, and its source if there is no tree of image folders."""

    train: int  # number of images
    test: int
    classes: int
    size: int  # pixels a side
    channels: int
    read: Callable[[Path], Arrays]  # reads its files under ``dataset.root``, may download; raises ReproError
    levels: int = 256  # number of pixel values; ``dataset.unit_pixels`` divides by it
    folder: str | None = None  # the folder of its files under the root, decoded once; None: read by every process
    key: str | None = None  # of settings that its arrays depend on; such a set is never a tree of image folders


Entry = ImageSet | Callable[[Dataset], ImageSet]  # a set, or a function from the configuration to one


@lru_cache(maxsize=1)
def data_sets() -> Mapping[str, Entry]:
    """Every image set of the modules of this package, by name."""
    registered: dict[str, Entry] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in ("batches", "registry"):  # batches imports torch
            registered |= getattr(importlib.import_module(f"repro.data.{module.name}"), "DATA_SETS", {})
    return registered


def get(dataset: Dataset) -> ImageSet:
    """The configured image set. Raises ReproError for an unknown name, and for a subset larger than the set."""
    image_set = _find(dataset)
    refuse_larger_subset(dataset, train=image_set.train, test=image_set.test)
    return image_set


def is_own(name: str) -> bool:
    """Whether a name is the import path of an image set outside this package."""
    return ":" in name


def refuse_larger_subset(dataset: Dataset, **sizes: int) -> None:
    """Raise ReproError if a subset is larger than its split; ``sizes`` has the number of images of each split."""
    for split, size in sizes.items():
        key, count = f"dataset.{split}_images", getattr(dataset, f"{split}_images")
        if count is not None and count > size:
            raise ReproError(f"{key}={count}: {dataset.name} has only {size}; {key}=null uses them all")


def _find(dataset: Dataset) -> ImageSet:
    entry: Any = data_sets().get(dataset.name)
    if entry is None:
        if not is_own(dataset.name):
            names = ", ".join(data_sets())
            raise ReproError(f"dataset.name={dataset.name}: choose from {names}, or package.module:object")
        try:
            entry = user_code.find(dataset.name)
        except ValueError as error:
            raise ReproError(f"dataset.name={dataset.name}: {error}") from error
        if not isinstance(entry, ImageSet):
            raise ReproError(f"dataset.name={dataset.name}: it is not a repro.data.registry.ImageSet")
        for key in ("train", "test", "classes", "size", "channels"):
            if not isinstance(value := getattr(entry, key), int) or value < 1:
                raise ReproError(f"dataset.name={dataset.name}: its {key}={value!r} is not a positive integer")
    found: ImageSet = entry if isinstance(entry, ImageSet) else entry(dataset)
    return found
