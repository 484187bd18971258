"""Writing files atomically, and finding files through symbolic links. Does not import torch."""

import os
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | Callable[[BinaryIO], object], *, durable: bool = False) -> None:
    """Write ``content``, a text or a function that writes to a file, beside ``path``, then rename it to ``path``.

    A reader sees the old file or the new one, never a part. ``durable`` syncs the file to disk before the rename.
    Raises OSError that names ``path``, and leaves the old file unchanged.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            if isinstance(content, str):
                file.write(content.encode(errors="surrogateescape"))  # for paths in another encoding
            else:
                content(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno:
            error.filename = str(path)  # the error of a full disk does not name the file
        raise
    finally:
        partial.unlink(missing_ok=True)


def run_folders(folder: Path, *also: str) -> list[Path]:
    """Every folder below ``folder`` with a ``run.json`` or a file of ``also``, but for what was moved aside."""
    found = {path.parent for name in ("run.json", *also) for path in find(folder, name)}
    return sorted(path for path in found if path == folder or not re.fullmatch(r"earlier-\d+", path.name))


def find(folder: Path, pattern: str) -> list[Path]:
    """Every file below ``folder`` whose name matches ``pattern``, sorted.

    Symbolic links to folders are followed; each folder is listed once, by its real path if that is below
    ``folder``. A missing or unreadable folder has no files.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    roots = [folder]
    for root in roots:  # links to folders are appended and so come last
        for parent, folders, names in os.walk(root):
            try:
                status = os.stat(parent)
            except OSError:
                continue  # deleted meanwhile
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            roots += [path for name in folders if (path := Path(parent, name)).is_symlink()]
            found += [Path(parent, name) for name in names if fnmatchcase(name, pattern)]
    return sorted(found)
