"""The user's folder of pictures, ``dataset=folder dataset.root=DIR``: one folder per class, any size and format.

    DIR/<class>/*                   split by dataset.split_seed, dataset.test_fraction of each class for testing
    DIR/train/<class>/*, test/...   split already

A picture may have any format that Pillow reads. It is rotated upright; an animation gives its first frame, 16-bit
values their upper eight bits, and transparency is composited on white. Then the central square is averaged down
(or enlarged) to ``dataset.resolution`` pixels a side, in ``dataset.channels`` channels: 3 for RGB, 1 for grey.
Hidden files and folders are skipped. Does not import torch.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repro.config import Dataset
from repro.config.errors import ReproError, first_line
from repro.data.folders import some_of, visible
from repro.data.registry import Arrays, ImageSet

if TYPE_CHECKING:
    from PIL import Image

SPLITS = ("train", "test")
UNEVEN = 5  # ratio of the largest class to the smallest from which a note is printed


@dataclass(frozen=True)
class Rule:
    """How pictures are decoded and split."""

    resolution: int
    channels: int
    test_fraction: float
    split_seed: int


@dataclass(frozen=True)
class Listing:
    """The classes, sorted, and the pictures of each split, class by class."""

    classes: tuple[str, ...]
    train: tuple[tuple[Path, ...], ...]
    test: tuple[tuple[Path, ...], ...]


def image_set(dataset: Dataset) -> ImageSet:
    """The image set of the folder ``dataset.root``. Raises ReproError if it cannot be trained on."""
    if dataset.channels not in (None, 1, 3):
        raise ReproError(f"dataset.channels={dataset.channels}: use 3 (RGB) or 1 (grey)")
    if dataset.resolution is None:
        raise ReproError("dataset.resolution=null: a folder of pictures needs one, such as dataset.resolution=32")
    root = Path(dataset.root).expanduser()
    rule = Rule(dataset.resolution, dataset.channels or 3, dataset.test_fraction, dataset.split_seed)
    listing = _listing(root.resolve(), rule)
    # The decoded arrays depend on the rule as well as on the files: each rule has its own cache entry.
    key = hashlib.sha256(repr(rule).encode()).hexdigest()[:8]
    return ImageSet(
        train=sum(map(len, listing.train)),
        test=sum(map(len, listing.test)),
        classes=len(listing.classes),
        size=rule.resolution,
        channels=rule.channels,
        read=partial(read, rule=rule),
        folder="",
        key=key,
    )


def read(root: Path, rule: Rule) -> Arrays:
    """Every picture, decoded. Raises ReproError that names an unreadable picture, and OSError."""
    from rich.progress import track

    listing = _listing(root, rule)
    arrays: Arrays = {}
    for split, classes in zip(SPLITS, (listing.train, listing.test), strict=True):
        paths = [path for pictures in classes for path in pictures]
        pixels = np.empty((len(paths), rule.resolution, rule.resolution, rule.channels), np.uint8)
        broken = []
        for index, path in enumerate(track(paths, f"decoding {root.name} {split}", transient=True)):
            try:
                pixels[index] = _decode(path, rule)
            except ReproError as error:
                broken.append(str(error))
        if broken:
            more = f"; {len(broken) - 1} more pictures cannot be read" if len(broken) > 1 else ""
            raise ReproError(f"dataset.root: {broken[0]}{more}")
        arrays[f"{split}_images"] = pixels
        arrays[f"{split}_labels"] = np.repeat(np.arange(len(classes)), [len(pictures) for pictures in classes])
    return arrays


def _listing(root: Path, rule: Rule) -> Listing:
    """The classes and pictures in ``root``, split. Raises ReproError and OSError."""
    if not root.is_dir():
        raise ReproError(f"dataset.root={root}: no such folder; give the folder that holds one folder per class")
    folders = sorted(path for path in (root, *root.glob("*/"), *root.glob("*/*/")) if path.is_dir())
    times = tuple(path.stat().st_mtime_ns for path in folders)  # a new or deleted file changes its folder's time
    return _cached_listing(root, rule.test_fraction, rule.split_seed, times)


@lru_cache(maxsize=8)
def _cached_listing(root: Path, test_fraction: float, split_seed: int, times: tuple[int, ...]) -> Listing:
    """``_listing``, cached until a folder's time changes; prints a note if the classes are uneven."""
    present = [split for split in SPLITS if (root / split).is_dir()]
    if len(present) == 1:
        absent = SPLITS[1 - SPLITS.index(present[0])]
        raise ReproError(
            f"dataset.root={root}: it has {present[0]}/ but no {absent}/; provide both, or one folder per class"
        )
    if present:
        train, test = (_classes(root / split) for split in SPLITS)
        for labels, other_labels, split, other in ((train, test, "train", "test"), (test, train, "test", "train")):
            if missing := [label for label in labels if label not in other_labels]:
                raise ReproError(
                    f"dataset.root={root}: {some_of(missing)} is a class in {split}/ and not in {other}/; a class "
                    "needs the same name in both"
                )
    else:
        train, test = _split(_classes(root), test_fraction, split_seed)
    counts = {label: len(pictures) for label, pictures in train.items()}
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[most] >= UNEVEN * counts[least]:
        print(
            f"note: the classes of {root} are uneven: {counts[most]} training pictures of {most}, "
            f"{counts[least]} of {least}; the accuracy weights every test picture equally"
        )
    return Listing(tuple(train), tuple(train.values()), tuple(test.values()))


def _classes(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Class -> its pictures, both sorted; prints which files and folders are ignored.

    Raises ReproError for fewer than two classes and for an empty one.
    """
    entries = list(visible(folder))
    inside = {entry.name: list(visible(entry.path)) for entry in entries if entry.is_dir()}
    classes = {
        label: tuple(Path(file.path) for file in found if not file.is_dir()) for label, found in inside.items()
    }
    if len(classes) < 2:
        found = f"only the class {next(iter(classes))}" if classes else "no folder"
        raise ReproError(
            f"dataset.root: {folder} holds {found}; it needs one folder for each of two or more classes"
        )
    if empty := [label for label, pictures in classes.items() if not pictures]:
        raise ReproError(f"dataset.root: {folder / empty[0]} holds no picture; add pictures or remove the folder")
    ignored = [entry.name for entry in entries if not entry.is_dir()]
    ignored += [f"{label}/{entry.name}" for label, found in inside.items() for entry in found if entry.is_dir()]
    if ignored:
        print(f"note: {folder}: ignored, as they are not <class>/<picture>: {some_of(ignored)}")
    return classes


def _split(
    classes: dict[str, tuple[Path, ...]], fraction: float, seed: int
) -> tuple[dict[str, tuple[Path, ...]], dict[str, tuple[Path, ...]]]:
    """Split each class: ``fraction`` of its pictures, at least one, for testing, the rest for training."""
    train, test = {}, {}
    for number, (label, pictures) in enumerate(classes.items()):
        if len(pictures) < 2:
            raise ReproError(
                f"dataset.root: class {label} has one picture; it needs at least two, to train on and to test"
            )
        count = min(max(1, round(fraction * len(pictures))), len(pictures) - 1)
        order = np.random.default_rng((seed, number)).permutation(len(pictures))
        tested = {int(index) for index in order[:count]}
        test[label] = tuple(p for i, p in enumerate(pictures) if i in tested)
        train[label] = tuple(p for i, p in enumerate(pictures) if i not in tested)
    return train, test


def _decode(path: Path, rule: Rule) -> np.ndarray:
    """uint8 (resolution, resolution, channels). Raises ReproError that names the file."""
    from PIL import Image, ImageOps

    side = rule.resolution
    try:
        with Image.open(path) as opened:
            if opened.mode == "F" or (opened.mode == "I" and opened.format != "PNG"):
                raise ReproError(f"{path} has values of 32 bits; save it as 8-bit")
            upright = _to_opaque_8bit(ImageOps.exif_transpose(opened))
            image = upright.convert("L" if rule.channels == 1 else "RGB")
            is_larger = min(image.size) > side
            method = Image.Resampling.BOX if is_larger else Image.Resampling.BILINEAR
            return np.asarray(ImageOps.fit(image, (side, side), method)).reshape(side, side, rule.channels)
    except (PermissionError, ReproError):
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error
        raise ReproError(f"{path} is not a readable picture ({first_line(error)}); repair or remove it") from None


def _to_opaque_8bit(image: "Image.Image") -> "Image.Image":
    """The image with 8-bit values and without transparency, which Pillow's conversion to RGB or grey ignores."""
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image


DATA_SETS = {"folder": image_set}
