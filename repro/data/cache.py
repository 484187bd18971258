"""The cache of decoded images: a folder per image set, whose name changes whenever one of the set's files does."""

import hashlib
import re
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from repro.config import Dataset
from repro.config.folders import cache_folder
from repro.data import folders
from repro.data.registry import ARRAY_NAMES, Arrays, ImageSet, is_own

DAY = 86_400.0  # seconds
OWN_LEVELS = 8  # of folders whose files are part of the cache's key, for an image set named by its import path


def entry_of(dataset: Dataset, image_set: ImageSet) -> Path | None:
    """The cache folder of an image set, which may not exist yet; None if there are no source images.

    Its name changes whenever one of the files does. Raises OSError.
    """
    root = Path(dataset.root).expanduser().resolve()
    tree, set_folder = folders.tree_of(root, dataset, image_set), root / str(image_set.folder)
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


def read(entry: Path) -> tuple[Arrays, str] | None:
    """The arrays and digest that ``write`` wrote, or None; a broken cache is deleted."""
    if not entry.exists():
        return None
    try:
        if (digest := read_digest(entry)) is None:
            raise ValueError("it has no digest")
        arrays = {name: np.load(entry / f"{name}.npy") for name in ARRAY_NAMES}
        if digest_of(arrays) != digest:
            raise ValueError("its images are not those that were written")
        return arrays, digest
    except (OSError, ValueError, EOFError) as error:
        print(f"note: the cache {entry} is broken ({error}); the images are decoded again")
        shutil.rmtree(entry, ignore_errors=True)
        return None


def digest_of(arrays: Arrays) -> str:
    """Sixteen hexadecimal digits that identify the contents of an image set."""
    sha256 = hashlib.sha256()
    for name in ARRAY_NAMES:
        sha256.update(f"{name} {arrays[name].shape}".encode())
        sha256.update(np.ascontiguousarray(arrays[name]).data)
    return sha256.hexdigest()[:16]


def read_digest(entry: Path) -> str | None:
    """The digest of the arrays in the cache folder ``entry``; None if there is none, or a broken one."""
    try:
        text = (entry / "digest").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{16}", text) else None


def write(entry: Path, arrays: Arrays, digest: str) -> None:
    """Write the arrays and their digest atomically: into a temporary folder, which is then renamed."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    _delete_unfinished(entry.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        for name, array in arrays.items():
            np.save(unfinished / f"{name}.npy", array)
        (unfinished / "digest").write_text(digest + "\n", encoding="utf-8")
        if not entry.exists():
            unfinished.rename(entry)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _delete_unfinished(folder: Path) -> None:
    """Delete what processes that were killed while they wrote have left, a day ago or earlier."""
    for path in folder.glob(".*-*"):
        with suppress(OSError):
            if path.is_dir() and time.time() - path.stat().st_mtime > DAY:
                shutil.rmtree(path, ignore_errors=True)
