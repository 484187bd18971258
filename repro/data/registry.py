"""Which image sets there are, and what each declares of itself. No torch here."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from repro.config import Dataset
from repro.config.errors import ReproError

Arrays = dict[str, np.ndarray]  # by images.NAMES; images uint8 (N, H, W, C), labels int64 (N,)


@dataclass(frozen=True)
class ImageSet:
    """An image set: its size, and where it comes from when there is no tree of image folders."""

    train: int  # images
    test: int
    classes: int
    size: int  # pixels a side
    channels: int
    read: Callable[[Path], Arrays]  # from its own files under ``dataset.root``; may download, raises ReproError
    folder: str | None = None  # its own files there; None: they come with a package, and no root is looked at


@lru_cache(maxsize=1)
def data_sets() -> Mapping[str, ImageSet]:
    """Every image set of the modules of this package, by name."""
    found: dict[str, ImageSet] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in ("batches", "registry"):  # the first needs torch
            found |= getattr(importlib.import_module(f"repro.data.{module.name}"), "DATA_SETS", {})
    return found


def get(dataset: Dataset) -> ImageSet:
    """The image set that the configuration names. Raises ReproError for a name that there is not."""
    if dataset.name in data_sets():
        return data_sets()[dataset.name]
    module, colon, name = dataset.name.partition(":")
    if not colon:
        names = ", ".join(data_sets())
        raise ReproError(f"dataset.name={dataset.name}: there are {names}, or package.module:object")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ReproError(f"dataset.name={dataset.name}: {error}") from None
    if not isinstance(found, ImageSet):
        raise ReproError(f"dataset.name={dataset.name}: it is no repro.data.registry.ImageSet")
    return found
