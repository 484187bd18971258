"""One way to write a file: whole. A reader sees the old one or the new one; a kill leaves no half. No torch."""

import os
from collections.abc import Callable
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
