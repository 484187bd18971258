"""One way to write a file: whole. A reader sees the old one or the new one; a kill leaves no half. No torch.

And one way to find files below a folder: through symbolic links too.
"""

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | Callable[[BinaryIO], object], *, durable: bool = False) -> None:
    """Write ``content``, a text or what a function writes, beside ``path``, then rename it.

    ``durable`` brings it to the disk before it is renamed. Raises OSError that names ``path``, and leaves the file
    as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            if isinstance(content, str):
                file.write(content.encode(errors="surrogateescape"))  # of a path in another encoding
            else:
                content(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno:
            error.filename = str(path)  # a full disk does not say of itself which file
        raise
    finally:
        partial.unlink(missing_ok=True)


def find(folder: Path, pattern: str) -> list[Path]:
    """Every file below ``folder`` whose name matches, sorted; each once, by its own path where it has one there.

    A folder that cannot be read, or that is not there, holds none.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    roots = [folder]
    for root in roots:  # links to folders come last
        for place, folders, names in os.walk(root):
            try:
                status = os.stat(place)
            except OSError:
                continue  # it has just gone
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            roots += [path for name in folders if (path := Path(place, name)).is_symlink()]
            found += [Path(place, name) for name in names if fnmatchcase(name, pattern)]
    return sorted(found)
