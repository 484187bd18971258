"""One's own folder of pictures, ``dataset=folder dataset.root=DIR``: a folder a class, of any size and format.

    DIR/<class>/*                   split by dataset.split_seed, dataset.test_fraction of each class to test
    DIR/train/<class>/*, test/...   as they are

What Pillow reads is taken: turned upright, of an animation the first frame, of 16 bits the upper eight, what is
transparent on white. Then it is cut to the middle square and averaged (or enlarged) to ``dataset.resolution``
pixels a side, in ``dataset.channels`` channels: 3 are RGB, 1 is grey. Hidden files and folders are left out. No
torch here.
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
UNEVEN = 5  # times as many pictures in the largest class as in the smallest are worth a word


@dataclass(frozen=True)
class Rule:
    """How a picture becomes pixels, and which are tested."""

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
    """The image set that the folder is. Raises ReproError for a folder that no network can be trained on."""
    if dataset.channels not in (None, 1, 3):
        raise ReproError(f"dataset.channels={dataset.channels}: pictures have 3 (RGB) or 1 (grey)")
    if dataset.resolution is None:
        raise ReproError("dataset.resolution=null: pictures of any size need one, as dataset.resolution=32")
    root = Path(dataset.root).expanduser()
    rule = Rule(dataset.resolution, dataset.channels or 3, dataset.test_fraction, dataset.split_seed)
    listing = _listing(root.resolve(), rule)
    # What else than the files decides about the decoded pixels: the cache keeps each apart.
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
    """Every picture, decoded. Raises ReproError that names those that Pillow does not read, and OSError."""
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
            more = f"; {len(broken) - 1} more pictures too" if len(broken) > 1 else ""
            raise ReproError(f"dataset.root: {broken[0]}{more}")
        arrays[f"{split}_images"] = pixels
        arrays[f"{split}_labels"] = np.repeat(np.arange(len(classes)), [len(pictures) for pictures in classes])
    return arrays


def _listing(root: Path, rule: Rule) -> Listing:
    """What lies in ``root``, split. Raises ReproError, and OSError."""
    if not root.is_dir():
        raise ReproError(f"dataset.root={root}: no such folder; name the one that holds a folder a class")
    folders = sorted(path for path in (root, *root.glob("*/"), *root.glob("*/*/")) if path.is_dir())
    times = tuple(path.stat().st_mtime_ns for path in folders)  # they change with what lies there
    return _listed(root, rule.test_fraction, rule.split_seed, times)


@lru_cache(maxsize=8)
def _listed(root: Path, test_fraction: float, split_seed: int, times: tuple[int, ...]) -> Listing:
    """``_listing``, once as long as no folder changes; prints a note where the classes are uneven."""
    present = [split for split in SPLITS if (root / split).is_dir()]
    if len(present) == 1:
        other = SPLITS[1 - SPLITS.index(present[0])]
        raise ReproError(f"dataset.root={root}: {present[0]}/ is there, {other}/ is not; have both or neither")
    if present:
        train, test = (_classes(root / split) for split in SPLITS)
        for here, there, split, other in ((train, test, "train", "test"), (test, train, "test", "train")):
            if alone := [label for label in here if label not in there]:
                raise ReproError(
                    f"dataset.root={root}: {some_of(alone)} is a class in {split}/ and not in {other}/; a class "
                    "has one name in both"
                )
    else:
        train, test = _split(_classes(root), test_fraction, split_seed)
    counts = {label: len(pictures) for label, pictures in train.items()}
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[most] >= UNEVEN * counts[least]:
        print(
            f"note: the classes of {root} are uneven: {counts[most]} pictures of {most} to train on, "
            f"{counts[least]} of {least}; the accuracy is over all test pictures alike"
        )
    return Listing(tuple(train), tuple(train.values()), tuple(test.values()))


def _classes(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Class -> its pictures, both sorted. Raises ReproError for fewer than two classes and for an empty one."""
    classes = {
        entry.name: tuple(Path(inside.path) for inside in visible(entry.path) if not inside.is_dir())
        for entry in visible(folder)
        if entry.is_dir()
    }
    if len(classes) < 2:
        found = f"the one class {next(iter(classes))}" if classes else "no folder"
        raise ReproError(
            f"dataset.root: {folder} holds {found}; it needs a folder for each of two or more classes"
        )
    if empty := [label for label, pictures in classes.items() if not pictures]:
        raise ReproError(f"dataset.root: no picture lies in {folder / empty[0]}; fill it or take it away")
    return classes


def _split(
    classes: dict[str, tuple[Path, ...]], fraction: float, seed: int
) -> tuple[dict[str, tuple[Path, ...]], dict[str, tuple[Path, ...]]]:
    """Of each class the given fraction to test on, one picture at least; the rest to train on."""
    train, test = {}, {}
    for number, (label, pictures) in enumerate(classes.items()):
        if len(pictures) < 2:
            raise ReproError(f"dataset.root: class {label} has one picture; it takes two, to train on and to test")
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
            upright = _plain(ImageOps.exif_transpose(opened))
            image = upright.convert("L" if rule.channels == 1 else "RGB")
            larger = min(image.size) > side
            method = Image.Resampling.BOX if larger else Image.Resampling.BILINEAR
            return np.asarray(ImageOps.fit(image, (side, side), method)).reshape(side, side, rule.channels)
    except PermissionError:
        raise
    except Exception as error:  # whatever Pillow stumbles upon: OSError, SyntaxError, ValueError, struct.error
        raise ReproError(
            f"{path} is no picture that can be read ({first_line(error)}); mend it or move it"
        ) from None


def _plain(image: "Image.Image") -> "Image.Image":
    """Without transparency and of eight bits: what Pillow's own conversion to RGB or grey does not do."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", None)):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image


DATA_SETS = {"folder": image_set}
