"""Image sets as numpy arrays, decoded once and cached. Does not import torch.

An image set is read from its own files (downloaded on first use) or from a tree of image folders, and sorted into
an order that does not depend on the source: a run is the same from either source. One that is named by its import
path is always read by its own ``read``, whose arrays must be as it declares.
"""

import inspect
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from repro import user_code
from repro.config import Dataset
from repro.config.errors import ReproError
from repro.data import cache, checks, folders
from repro.data.registry import Arrays, ImageSet, get, is_own

_SHAPES: dict[tuple[str, str], tuple[int, ...]] = {}  # name and root -> (H, W, C) of the images, once known


def load(dataset: Dataset) -> tuple[Arrays, str]:
    """The whole configured image set, and the digest of its contents.

    Raises ReproError if it is missing, incomplete or broken, or if ``dataset`` requires another digest.
    """
    image_set = get(dataset)
    if image_set.folder is None:
        arrays = _read(dataset, image_set)
        actual = cache.digest_of(arrays)
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
        entry = cache.entry_of(dataset, image_set)
        found = cache.read_digest(entry) if entry else None
        if entry and found:
            with suppress(ValueError, EOFError):  # ``load`` decodes a broken cache again
                images = np.load(entry / "train_images.npy", mmap_mode="r")
                _SHAPES[dataset.name, dataset.root] = images.shape[1:]
        return found
    except (ReproError, OSError):
        return None  # ``load`` raises the error


def identify(dataset: Dataset, decode: bool = False) -> None:
    """Set ``dataset.digest`` to the digest of the images, if it is known without decoding them.

    With ``decode`` images that are there are decoded, none are downloaded. Raises ReproError if the configuration
    requires another digest, and for images that cannot be decoded.
    """
    if (actual := digest(dataset)) is None and decode and Path(dataset.root).expanduser().exists():
        with suppress(OSError):
            if cache.entry_of(dataset, get(dataset)) is not None:
                actual = load(dataset)[1]
    if actual is not None:
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
        checks.require_valid(arrays, dataset, image_set)
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
    checks.require_valid(arrays, dataset, image_set)
    checks.require_declared(arrays, dataset, image_set)
    return arrays


def _require_same_images(dataset: Dataset, image_set: ImageSet, actual: str) -> None:
    """Raise ReproError if the set's ``read`` returns other images every time."""
    if (again := cache.digest_of(_read(dataset, image_set))) != actual:
        raise ReproError(
            f"dataset.name={dataset.name}: its read returns other images every time (digests {actual}, {again}); "
            "seed its random numbers, so that runs can be repeated and resumed"
        )


def _load_files(dataset: Dataset, image_set: ImageSet) -> tuple[Arrays, str]:
    """The arrays and their digest, from the cache or from the files."""
    root = Path(dataset.root).expanduser().resolve()
    try:
        entry = cache.entry_of(dataset, image_set)
        if entry is not None and (cached := cache.read(entry)) is not None:
            return cached
        tree = folders.tree_of(root, dataset, image_set)
        arrays = folders.decode(tree, dataset.name, image_set) if tree else _read(dataset, image_set)
        entry = entry or cache.entry_of(dataset, image_set)  # it has just been downloaded
    except OSError as error:
        file = error.filename or "its files"
        raise ReproError(f"dataset.root={root}: {file} cannot be read: {error.strerror or error}") from None
    if tree:
        checks.require_valid(arrays, dataset, image_set)
    arrays = {**_sort_split(arrays, "train"), **_sort_split(arrays, "test")}
    actual = cache.digest_of(arrays)
    if entry is not None:
        try:
            cache.write(entry, arrays, actual)
        except OSError as error:
            print(f"note: the decoded images are not cached in {entry} ({error}); the next run decodes them again")
    return arrays, actual


def _sort_split(arrays: Arrays, split: str) -> Arrays:
    """One split sorted by label, then by pixels: the same order for every source."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    return {f"{split}_images": images[order], f"{split}_labels": labels[order]}
