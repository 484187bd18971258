"""Image sets as numpy arrays, decoded once and cached. Does not import torch.

An image set is read from its own files (downloaded on first use) or from a tree of image folders, and sorted into
an order that does not depend on the source: a run is the same from either source. One that is named by its import
path is always read by its own ``read``, whose arrays must be as it declares.
"""

import hashlib
import inspect
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from repro import user_code
from repro.config import Dataset
from repro.config.errors import ReproError
from repro.config.folders import cache_folder
from repro.data import folders
from repro.data.registry import Arrays, ImageSet, get, is_own

ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")
OWN_LEVELS = 8  # of folders whose files are part of the cache's key, for an image set named by its import path

_SHAPES: dict[tuple[str, str], tuple[int, ...]] = {}  # name and root -> (H, W, C) of the images, once known


def load(dataset: Dataset) -> tuple[Arrays, str]:
    """The whole configured image set, and the digest of its contents.

    Raises ReproError if it is missing, incomplete or broken, or if ``dataset`` requires another digest.
    """
    image_set = get(dataset)
    if image_set.folder is None:
        arrays = _read(dataset, image_set)
        actual = _digest_arrays(arrays)
        if is_own(dataset.name) and dataset.digest not in (None, actual):
            _require_same_images(dataset, image_set, actual)
    else:
        arrays, actual = _load_files(dataset, image_set)
    _SHAPES[dataset.name, dataset.root] = arrays["train_images"].shape[1:]
    _require_digest(dataset, actual)
    return arrays, actual


def shape(dataset: Dataset) -> tuple[int, ...] | None:
    """The (H, W, C) of the image set's own images; None until this process has loaded or identified them."""
    return _SHAPES.get((dataset.name, dataset.root))


def digest(dataset: Dataset) -> str | None:
    """Sixteen hexadecimal digits that identify the image set's contents; None until it has been decoded once."""
    try:
        image_set = get(dataset)
        if image_set.folder is None:
            return _digest_packaged(dataset.name, dataset.root)
        entry = _cache_entry(dataset, image_set)
        found = _read_digest(entry) if entry else None
        if entry and found:
            with suppress(ValueError, EOFError):  # ``load`` decodes a broken cache again
                images = np.load(entry / "train_images.npy", mmap_mode="r")
                _SHAPES[dataset.name, dataset.root] = images.shape[1:]
        return found
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
def _digest_packaged(name: str, root: str) -> str:
    return load(Dataset(name=name, root=root))[1]


def _read(dataset: Dataset, image_set: ImageSet) -> Arrays:
    """What the set's ``read`` returns, checked. Raises ReproError, for the user's own also for any error in it."""
    root = Path(dataset.root).expanduser().resolve()
    if not is_own(dataset.name):
        arrays = image_set.read(root)
        _require_valid(arrays, dataset, image_set)
        return arrays
    try:
        with suppress(ValueError):  # a function without a signature
            inspect.signature(image_set.read).bind(root)
    except TypeError as error:
        advice = "it is called with the folder, read(root)"
        raise ReproError(f"dataset.name={dataset.name}: its read cannot be called ({error}); {advice}") from error
    try:
        arrays = image_set.read(root)
    except (ReproError, MemoryError):
        raise
    except OSError as error:
        problem = user_code.with_place(
            f"{error.filename or 'a file'} cannot be read: {error.strerror or error}", error
        )
        raise ReproError(f"dataset.root={root}: {problem}") from error
    except (Exception, SystemExit) as error:
        raise ReproError(f"dataset.name={dataset.name}: its read fails: {user_code.describe(error)}") from error
    _require_valid(arrays, dataset, image_set)
    _require_declared(arrays, dataset, image_set)
    return arrays


def _require_same_images(dataset: Dataset, image_set: ImageSet, actual: str) -> None:
    """Raise ReproError if the set's ``read`` returns other images every time."""
    if (again := _digest_arrays(_read(dataset, image_set))) != actual:
        raise ReproError(
            f"dataset.name={dataset.name}: its read returns other images every time (digests {actual}, {again}); "
            "seed its random numbers, so that runs can be repeated and resumed"
        )


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
        arrays = folders.decode(tree, dataset.name, image_set) if tree else _read(dataset, image_set)
        entry = entry or _cache_entry(dataset, image_set)  # it has just been downloaded
    except OSError as error:
        file = error.filename or "its files"
        raise ReproError(f"dataset.root={root}: {file} cannot be read: {error.strerror or error}") from None
    if tree:
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
    if is_own(dataset.name):
        keys = [*filter(None, [image_set.key]), _source_key(dataset.name, image_set)]
        stamp = "-".join([*keys, folders.stamp(set_folder, levels=OWN_LEVELS)])
    elif image_set.key is not None:
        stamp = f"{image_set.key}-{folders.stamp(set_folder, levels=3)}"
    else:
        stamp = folders.stamp(*(tree / split for split in folders.SPLITS)) if tree else folders.stamp(set_folder)
    return cache_folder(dataset.cache) / f"{dataset.name}-{stamp}"


def _tree(root: Path, dataset: Dataset, image_set: ImageSet) -> Path | None:
    """The tree of image folders that replaces the files of a set of this package; None if there is none."""
    is_read = image_set.key is not None or is_own(dataset.name)
    return None if is_read else folders.find(root, dataset.name)


def _source_key(name: str, image_set: ImageSet) -> str:
    """A key of the source files of the user's module and of its ``read``: an edit decodes the images again."""
    read = image_set.read
    while isinstance(read, partial):
        read = read.func
    modules = {name.partition(":")[0], str(getattr(read, "__module__", ""))}
    return _modules_key(tuple(sorted(modules)))


@lru_cache(maxsize=16)  # a process keeps the code that it imported, whatever the files contain later
def _modules_key(modules: tuple[str, ...]) -> str:
    sha256 = hashlib.sha256()
    for module in modules:
        file = getattr(sys.modules.get(module), "__file__", None)
        with suppress(OSError):
            sha256.update(Path(file).read_bytes() if file else b"")
    return sha256.hexdigest()[:8]


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
    if not isinstance(arrays, Mapping):
        kind = type(arrays).__name__
        expected = f"a dictionary with {', '.join(ARRAY_NAMES)}"
        raise ReproError(f"dataset.name={dataset.name}: its read returns a {kind}, not {expected}")
    for name in ARRAY_NAMES:
        if name not in arrays:
            raise ReproError(f"dataset.name={dataset.name}: its read returns no {name}; add it to the dictionary")
        if not isinstance(arrays[name], np.ndarray):
            kind = type(arrays[name]).__name__
            raise ReproError(f"dataset.name={dataset.name}: its {name} are a {kind}, not a numpy array")
    for split in folders.SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        subject = f"dataset.name={dataset.name}: its {split} images"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != image_set.channels:
            problem = f"{images.dtype} {images.shape}, not uint8 (N, H, W, {image_set.channels})"
            raise ReproError(f"{subject} are {problem}")
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            problem = f"{labels.dtype} {labels.shape}, not integers (N,)"
            raise ReproError(f"dataset.name={dataset.name}: its {split} labels are {problem}")
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


def _require_declared(arrays: Arrays, dataset: Dataset, image_set: ImageSet) -> None:
    """Raise ReproError if the arrays are not as the user's ImageSet declares: plans and costs rely on it."""
    height, width = arrays["train_images"].shape[1:3]
    highest = max(int(arrays[f"{split}_labels"].max()) for split in folders.SPLITS)
    found: list[tuple[bool, str, str]] = [
        *(
            (
                len(arrays[f"{split}_labels"]) == count,
                f"{len(arrays[f'{split}_labels'])} {split} images",
                f"{split}={count}",
            )
            for split, count in (("train", image_set.train), ("test", image_set.test))
        ),
        (image_set.size in (height, width), f"images of {width}x{height} pixels", f"size={image_set.size}"),
        (highest + 1 == image_set.classes, f"labels up to {highest}", f"classes={image_set.classes}"),
    ]
    for agrees, returned, declared in found:
        if not agrees:
            raise ReproError(
                f"dataset.name={dataset.name}: its read returns {returned}, and its ImageSet declares {declared}; "
                "correct one of them"
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
