"""A tree of image folders, ``train/<class>/*.png`` and ``test/<class>/*.png``: inspected first, then decoded.

A class has the same name in both splits; its label is its index among the sorted names. Hidden files and folders
(``.name``) are skipped silently; anything else that is neither a class nor an image is reported. Decoding keeps
every pixel value, except that 16-bit values keep their upper eight bits; an image that it would change otherwise
(transparent, animated, rotated by EXIF, CMYK) is an error. Does not import torch.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from repro.config import Dataset
from repro.config.errors import ReproError, first_line
from repro.data.registry import Arrays, ImageSet, is_own

if TYPE_CHECKING:
    from PIL import Image

SPLITS = ("train", "test")
SUFFIX = ".png"  # in either case
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright


@dataclass(frozen=True)
class Split:
    """The files of one split."""

    folder: Path
    classes: dict[str, list[str]]  # class -> the names of its images; both sorted
    ignored: list[str]  # paths that are neither a class nor an image, relative to the folder

    def paths(self) -> list[str]:
        """The paths of its images, class by class."""
        return [os.path.join(self.folder, label, file) for label, files in self.classes.items() for file in files]


def find(root: Path, name: str) -> Path | None:
    """The tree in ``root`` or in ``root/name``; None if there is none."""
    return next((tree for tree in (root, root / name) if (tree / "train").is_dir()), None)


def tree_of(root: Path, dataset: Dataset, image_set: ImageSet) -> Path | None:
    """The tree of image folders that replaces the files of a set of this package; None if there is none."""
    is_read = image_set.key is not None or is_own(dataset.name)
    return None if is_read else find(root, dataset.name)


def stamp(*folders: Path, levels: int = 2) -> str:
    """A key of the contents of ``folders``, ``levels`` deep: path, size and time of every visible file.

    Raises OSError.
    """
    lines = [line for folder in folders if folder.is_dir() for line in _file_lines(str(folder), levels)]
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()[:16]


def _file_lines(folder: str, levels: int) -> list[str]:
    lines = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                lines += _file_lines(entry.path, levels - 1) if levels > 1 else [entry.path]
            elif entry.is_file():  # False for a dangling link
                status = entry.stat()
                lines.append(f"{entry.path} {status.st_size} {status.st_mtime_ns}")
    return lines


def decode(tree: Path, name: str, image_set: ImageSet) -> Arrays:
    """The images of a tree and their labels, decoded after the whole tree is inspected.

    Raises ReproError that names the faulty folder or file, and OSError.
    """
    from rich.progress import track

    if image_set.channels not in (1, 3):
        raise ReproError(f"dataset.name={name}: image folders have 1 or 3 channels, not {image_set.channels}")
    arrays: Arrays = {}
    size: tuple[int, ...] | None = None
    for split in inspect(tree, name, image_set):
        images, problems = [], []
        for path in track(split.paths(), f"decoding {name} {split.folder.name}", transient=True):
            try:
                image = _decode_file(path, image_set.channels)
            except ReproError as error:
                problems.append(str(error))
                continue
            size = size or image.shape[:2]
            if image.shape[:2] == size:
                images.append(image)
            else:
                problems.append(f"{path} is {_pixels(image.shape)}, the images before it are {_pixels(size)}")
        if problems:
            more = f"; {len(problems) - 1} more in {split.folder} cannot be used" if len(problems) > 1 else ""
            raise ReproError(f"dataset.root: {problems[0]}{more}")
        arrays[f"{split.folder.name}_images"] = np.stack(images)
        counts = [len(files) for files in split.classes.values()]
        arrays[f"{split.folder.name}_labels"] = np.repeat(np.arange(len(counts)), counts)
    if size and set(size) != {image_set.size}:
        print(f"note: the images under {tree} are {_pixels(size)}; {name} has {image_set.size}x{image_set.size}")
    return arrays


def inspect(tree: Path, name: str, image_set: ImageSet) -> list[Split]:
    """Both splits of a tree, listed without opening a file; prints which files are ignored.

    Raises ReproError for a class that is in one split only, empty or duplicated, and for a wrong class count.
    """
    if lacking := [folder for folder in SPLITS if not (tree / folder).is_dir()]:
        raise ReproError(f"dataset.root: {tree} has no folder {lacking[0]}/")
    train, test = splits = [_list_split(tree / folder) for folder in SPLITS]
    _require_same_classes(train, test)
    _require_same_classes(test, train)
    for split in splits:
        _require_images(split)
    if len(train.classes) != image_set.classes:
        raise ReproError(
            f"dataset.root: {train.folder} holds {len(train.classes)} class folders "
            f"({some_of([*train.classes])}), {name} has {image_set.classes}"
        )
    _require_distinct(train.folder, {label: label.lower() for label in train.classes})
    for split, expected in zip(splits, (image_set.train, image_set.test), strict=True):
        if split.ignored:
            print(f"note: {split.folder}: ignored, as they are not <class>/*.png: {some_of(split.ignored)}")
        if (count := len(split.paths())) != expected:
            print(f"note: {split.folder} holds {count} images; {name} has {expected}")
    return splits


def _require_same_classes(split: Split, other: Split) -> None:
    if missing := [label for label in split.classes if label not in other.classes]:
        surplus = [label for label in other.classes if label not in split.classes]
        has = f", which has {some_of(surplus)}" if surplus else ""
        raise ReproError(
            f"dataset.root: {some_of(missing)} of {split.folder} is not in {other.folder}{has}; a class needs the "
            "same name in both"
        )


def _require_images(split: Split) -> None:
    """Raise ReproError for a class without an image, and for one with two names of the same image."""
    for label, files in split.classes.items():
        if not files:
            ignored_here = [path for path in split.ignored if path.startswith(label + os.sep)]
            has = f", but {some_of(ignored_here)}" if ignored_here else ""
            raise ReproError(f"dataset.root: no .png in {split.folder / label}{has}; put the class's images there")
        _require_distinct(split.folder / label, {file: file[: -len(SUFFIX)] for file in files})


def _list_split(folder: Path) -> Split:
    classes: dict[str, list[str]] = {}
    ignored = []
    for entry in visible(folder):
        if not entry.is_dir():
            ignored.append(entry.name)
            continue
        images = classes[entry.name] = []
        for inside in visible(entry.path):
            if inside.name.lower().endswith(SUFFIX) and not inside.is_dir():
                images.append(inside.name)
            else:
                ignored.append(os.path.join(entry.name, inside.name))
    return Split(folder, classes, ignored)


def visible(folder: str | Path) -> "list[os.DirEntry[str]]":
    """The entries of a folder that are not hidden, by name. Raises OSError."""
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)


def _require_distinct(folder: Path, keys: Mapping[str, str]) -> None:
    """Raise ReproError for two names with the same key: one class or one image, counted twice."""
    seen: dict[str, str] = {}
    for name, key in keys.items():
        if (first := seen.setdefault(key, name)) != name:
            raise ReproError(f"dataset.root: {first} and {name} in {folder} differ only in case; keep one")


def _decode_file(path: str, channels: int) -> np.ndarray:
    """uint8 (H, W, channels); channels are 1 or 3. Raises ReproError that names the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = _pixels_of(image)
    except PermissionError:
        raise
    except ReproError as error:
        raise ReproError(f"{path} {error}") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error
        raise ReproError(f"{path} is not a readable image ({first_line(error)}); restore it") from None
    if channels == 1 and (pixels != pixels[..., :1]).any():
        raise ReproError(f"{path} is in colour, and the image set is grey; convert it to grey")
    return pixels[..., :channels]


def _pixels_of(image: "Image.Image") -> np.ndarray:
    """uint8 (H, W, 3). Raises ReproError, and what Pillow raises."""
    image.load()
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ReproError(f"is animated ({frames} frames); keep one")
    if (orientation := image.getexif().get(ORIENTATION, 1)) != 1:
        raise ReproError(f"is rotated by its metadata (EXIF orientation {orientation}); save it upright")
    # Pillow below 11 calls the mode of a 16-bit PNG "I".
    sixteen_bits = image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")
    if not sixteen_bits and image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA"):
        raise ReproError(f"has colours of mode {image.mode}; save it as 8-bit RGB or grey")
    if image.mode.endswith("A") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        if (rgba[..., 3] < 255).any():
            raise ReproError("has transparent pixels; save it on a background")
        return rgba[..., :3]
    if sixteen_bits:  # Pillow's own conversion clips values above 255 to white
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _pixels(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"


def some_of(names: Sequence[str], shown: int = 3) -> str:
    """The first ``shown`` names, made printable, and how many more there are."""
    rest = len(names) - shown
    text = ", ".join(names[:shown]).encode(errors="replace").decode()
    return text + (f" and {rest} more" if rest > 0 else "")
