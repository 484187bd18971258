"""Files of tests: a tree of pictures, and a disk that is full."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """While entered, no file of this process grows beyond so many bytes: the disk seems to be full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def image_tree(root: Path, train: int = 3, test: int = 2, classes: int = 10) -> Path:
    """An image-folder tree of random 32x32 PNGs, so many a class."""
    rng = np.random.default_rng(7)
    for split, count in (("train", train), ("test", test)):
        for label in range(classes):
            folder = root / split / f"class{label:02d}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:04d}.png")
    return root
