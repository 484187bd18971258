"""Image sets as numpy arrays, decoded once and cached. Does not import torch.

An image set is read from its own files (downloaded on first use) or from a tree of image folders, and sorted into
an order that does not depend on the source: a run is the same from either source.
"""

import hashlib
import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.config.folders import cache_folder
from repro.data import folders
from repro.data.registry import Arrays, ImageSet, get

ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


def load(dataset: Dataset) -> tuple[Arrays, str]:
    """The whole configured image set, and the digest of its contents.

    Raises ReproError if it is missing, incomplete or broken, or if ``dataset`` requires another digest.
    """
    image_set = get(dataset)
    if image_set.folder is None:
        arrays = image_set.read(Path())
        _require_valid(arrays, dataset, image_set)
        actual = _digest_arrays(arrays)
    else:
        arrays, actual = _load_files(dataset, image_set)
    _require_digest(dataset, actual)
    return arrays, actual


def digest(dataset: Dataset) -> str | None:
    """Sixteen hexadecimal digits that identify the image set's contents; None until it has been decoded once."""
    try:
        image_set = get(dataset)
        if image_set.folder is None:
            return _digest_packaged(dataset.name)
        entry = _cache_entry(dataset, image_set)
        return _read_digest(entry) if entry else None
    except (ReproError, OSError):
        return None  # ``load`` raises the error


def identify(dataset: Dataset) -> None:
    """Set ``dataset.digest`` to the digest of the images, if it is known without decoding them.

    Raises ReproError if the configuration requires another digest.
    """
    if (actual := digest(dataset)) is not None:
        _require_digest(dataset, actual)
        dataset.digest = actual


def _require_digest(dataset: Dataset, actual: str) -> None:
    if dataset.digest not in (None, actual):
        raise ReproError(
            f"dataset.digest={dataset.digest}: the images of {dataset.name} under {dataset.root} have {actual}"
        )


@lru_cache(maxsize=4)
def _digest_packaged(name: str) -> str:
    return load(Dataset(name=name))[1]


def _digest_arrays(arrays: Arrays) -> str:
    sha256 = hashlib.sha256()
    for name in ARRAY_NAMES:
        sha256.update(f"{name} {arrays[name].shape}".encode())
        sha256.update(arrays[name].tobytes())
    return sha256.hexdigest()[:16]


def _load_files(dataset: Dataset, image_set: ImageSet) -> tuple[Arrays, str]:
    """The arrays and their digest, from the cache or from the files."""
    root = Path(dataset.root).expanduser().resolve()
    try:
        entry = _cache_entry(dataset, image_set)
        if entry is not None and (cached := _read_cache(entry)) is not None:
            return cached
        tree = _tree(root, dataset, image_set)
        arrays = folders.decode(tree, dataset.name, image_set) if tree else image_set.read(root)
        entry = entry or _cache_entry(dataset, image_set)  # it has just been downloaded
    except OSError as error:
        file = error.filename or "its files"
        raise ReproError(f"dataset.root={root}: {file} cannot be read: {error.strerror or error}") from None
    _require_valid(arrays, dataset, image_set)
    arrays = {**_sort_split(arrays, "train"), **_sort_split(arrays, "test")}
    actual = _digest_arrays(arrays)
    if entry is not None:
        try:
            _write_cache(entry, arrays, actual)
        except OSError as error:
            print(f"note: the decoded images are not cached in {entry} ({error}); the next run decodes them again")
    return arrays, actual


def _cache_entry(dataset: Dataset, image_set: ImageSet) -> Path | None:
    """The cache folder of an image set, which may not exist yet; None if there are no source images.

    Its name changes whenever one of the files does. Raises OSError.
    """
    root = Path(dataset.root).expanduser().resolve()
    tree, set_folder = _tree(root, dataset, image_set), root / str(image_set.folder)
    if tree is None and not set_folder.is_dir():
        return None
    if image_set.key is not None:
        stamp = f"{image_set.key}-{folders.stamp(set_folder, levels=3)}"
    else:
        stamp = folders.stamp(*(tree / split for split in folders.SPLITS)) if tree else folders.stamp(set_folder)
    return cache_folder(dataset.cache) / f"{dataset.name}-{stamp}"


def _tree(root: Path, dataset: Dataset, image_set: ImageSet) -> Path | None:
    """The tree of image folders that replaces the set's own files; None if there is none."""
    return None if image_set.key is not None else folders.find(root, dataset.name)


def _read_cache(entry: Path) -> tuple[Arrays, str] | None:
    """The arrays and digest that ``_write_cache`` wrote, or None; a broken cache is deleted."""
    if not entry.exists():
        return None
    try:
        if (digest := _read_digest(entry)) is None:
            raise ValueError("it has no digest")
        return {name: np.load(entry / f"{name}.npy") for name in ARRAY_NAMES}, digest
    except (OSError, ValueError, EOFError) as error:
        print(f"note: the cache {entry} is broken ({error}); the images are decoded again")
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _read_digest(entry: Path) -> str | None:
    try:
        text = (entry / "digest").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{16}", text) else None


def _require_valid(arrays: Arrays, dataset: Dataset, image_set: ImageSet) -> None:
    """Raise ReproError for arrays that cannot be trained on."""
    for split in folders.SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        subject = f"dataset.name={dataset.name}: its {split} images"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != image_set.channels:
            problem = f"{images.dtype} {images.shape}, not uint8 (N, H, W, {image_set.channels})"
            raise ReproError(f"{subject} are {problem}")
        if not 0 < len(images) == len(labels):
            raise ReproError(f"{subject} number {len(images)}, their labels {len(labels)}")
        if not 0 <= labels.min() <= labels.max() < image_set.classes:
            found = f"{labels.min()} to {labels.max()}"
            raise ReproError(f"{subject} have labels {found}, and there are {image_set.classes} classes")
    train, test = (f"{a.shape[2]}x{a.shape[1]}" for a in (arrays["train_images"], arrays["test_images"]))
    if train != test:
        raise ReproError(
            f"dataset.name={dataset.name}: its train images have {train} pixels, its test images {test}"
        )


def _sort_split(arrays: Arrays, split: str) -> Arrays:
    """One split sorted by label, then by pixels: the same order for every source."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    return {f"{split}_images": images[order], f"{split}_labels": labels[order]}


def _write_cache(entry: Path, arrays: Arrays, digest: str) -> None:
    """Write the arrays and their digest atomically: into a temporary folder, which is then renamed."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        (partial / "digest").write_text(digest + "\n", encoding="utf-8")
        if not entry.exists():
            partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
