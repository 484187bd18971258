"""Image sets as numpy arrays, decoded once. No torch here.

An image set is read from its own files (downloaded at first use) or from a tree of image folders, sorted into an
order that does not depend on the source, and cached decoded: a run is the same from either source.
"""

import hashlib
import shutil
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.config.folders import cache_folder
from repro.data.registry import Arrays, ImageSet, get

ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


def load(dataset: Dataset) -> Arrays:
    """The whole configured image set. Raises ReproError where it is missing or incomplete."""
    image_set = get(dataset)
    return image_set.read(Path()) if image_set.folder is None else _load_files(dataset, image_set)


def digest(dataset: Dataset) -> str | None:
    """Sixteen hexadecimal digits that identify the image set's contents; None before it is first decoded."""
    try:
        image_set = get(dataset)
    except ReproError:
        return None  # loading it raises the error
    if image_set.folder is None:
        return _digest_packaged(dataset.name)
    entry = _cache_entry(dataset, image_set)
    try:
        return (entry / "digest").read_text(encoding="utf-8").strip() if entry else None
    except OSError:
        return None


def identify(dataset: Dataset) -> None:
    """Set ``dataset.digest`` to the digest of the images, where it is known.

    Raises ReproError where the configuration requires another digest.
    """
    actual, required = digest(dataset), dataset.digest
    if required is not None and actual is not None and required != actual:
        raise ReproError(
            f"dataset.digest={required}: the images of {dataset.name} under {dataset.root} have {actual}"
        )
    dataset.digest = actual or required


@lru_cache(maxsize=4)
def _digest_packaged(name: str) -> str:
    return _digest_arrays(load(Dataset(name=name)))


def _digest_arrays(arrays: Arrays) -> str:
    sha256 = hashlib.sha256()
    for name in ARRAY_NAMES:
        sha256.update(f"{name} {arrays[name].shape}".encode())
        sha256.update(arrays[name].tobytes())
    return sha256.hexdigest()[:16]


def _load_files(dataset: Dataset, image_set: ImageSet) -> Arrays:
    root = Path(dataset.root).expanduser().resolve()
    try:
        entry = _cache_entry(dataset, image_set)
        if entry is not None and (arrays := _read_cache(entry)) is not None:
            return arrays
        tree = _find_image_tree(root, dataset.name)
        arrays = _decode_tree(tree, dataset.name, image_set) if tree else image_set.read(root)
    except PermissionError as error:
        raise ReproError(f"dataset.root={root}: {error.filename} cannot be read: {error.strerror}") from None
    arrays = {**_sort_split(arrays, "train"), **_sort_split(arrays, "test")}
    if entry := _cache_entry(dataset, image_set):
        try:
            _write_cache(entry, arrays)
        except OSError as error:
            print(f"note: the decoded images are not cached in {entry} ({error}); the next run decodes them again")
    return arrays


def _cache_entry(dataset: Dataset, image_set: ImageSet) -> Path | None:
    """The cache folder of an image set, which may not exist yet; None where there are no source images."""
    root = Path(dataset.root).expanduser().resolve()
    source = _find_image_tree(root, dataset.name) or root / str(image_set.folder)
    if not source.is_dir():
        return None
    return cache_folder(dataset.cache) / f"{dataset.name}-{_hash_folders(source)}"


def _read_cache(entry: Path) -> Arrays | None:
    """The arrays that ``_write_cache`` wrote, or None; a broken cache is deleted."""
    if not entry.exists():
        return None
    try:
        return {name: np.load(entry / f"{name}.npy") for name in ARRAY_NAMES}
    except (OSError, ValueError, EOFError) as error:
        print(f"note: the cache {entry} is broken ({error}); the images are decoded again")
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _find_image_tree(root: Path, name: str) -> Path | None:
    return next((tree for tree in (root, root / name) if (tree / "train").is_dir()), None)


def _hash_folders(folder: Path) -> str:
    """A key that changes with the path and whenever a file is added to or removed from its folders."""
    folders = sorted(p for p in [folder, *folder.glob("*"), *folder.glob("*/*")] if p.is_dir())
    stamps = "".join(f"{path}:{path.stat().st_mtime_ns};" for path in folders)
    return f"{zlib.crc32(stamps.encode()):08x}"


def _decode_tree(tree: Path, name: str, image_set: ImageSet) -> Arrays:
    from rich.progress import track

    arrays: Arrays = {}
    expected = {"train": image_set.train, "test": image_set.test}
    for split, count in expected.items():
        classes = sorted(p.name for p in (tree / split).glob("*") if p.is_dir())
        if len(classes) != image_set.classes:
            raise ReproError(
                f"dataset.root: {tree / split} holds {len(classes)} class folders, {name} has {image_set.classes}"
            )
        files = [(p, label) for label, c in enumerate(classes) for p in sorted((tree / split / c).glob("*.png"))]
        if not files:
            raise ReproError(f"dataset.root: no <class>/*.png under {tree / split}")
        if len(files) != count:
            print(f"note: {tree / split} holds {len(files)} images; {name} has {count}")
        images = []
        for path, _ in track(files, f"decoding {name} {split}", transient=True):
            images.append(_decode(path, image_set.channels))
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ReproError(f"dataset.root: the images under {tree / split} differ in size: {sorted(shapes)[:3]}")
        arrays[f"{split}_images"] = np.stack(images)
        arrays[f"{split}_labels"] = np.array([label for _, label in files], dtype=np.int64)
    return arrays


def _decode(path: Path, channels: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(*image.size[::-1], channels)
    except PermissionError:
        raise
    except OSError as error:
        raise ReproError(f"dataset.root: {path} is not a readable image ({error}); restore it") from None


def _sort_split(arrays: Arrays, split: str) -> Arrays:
    """One split sorted by label, then by pixels: the same order for every source."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    return {f"{split}_images": images[order], f"{split}_labels": labels[order]}


def _write_cache(entry: Path, arrays: Arrays) -> None:
    """Write the arrays and their digest all or nothing: beside the cache folder, then renamed."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        (partial / "digest").write_text(_digest_arrays(arrays) + "\n", encoding="utf-8")
        if not entry.exists():
            partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
