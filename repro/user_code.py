"""The user's own Python, named by an import path ``package.module:object``: finding it, and where it fails."""

import importlib
import os
import sysconfig
import traceback
from typing import Any

LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep
INSTALLED = f"{os.sep}site-packages{os.sep}"
SUITE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def find(path: str) -> Any:
    """The object with that import path. Raises ValueError: why there is none, and where its module fails."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(with_place(str(error), error)) from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {module} fails: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """One line for an exception in the user's code: its type, the first line of its message, file and line."""
    if isinstance(error, SystemExit):
        return with_place("it calls sys.exit", error)
    message = (str(error).strip().splitlines() or [""])[0]
    return with_place(f"{type(error).__name__}: {message}" if message else type(error).__name__, error)


def with_place(text: str, error: BaseException) -> str:
    """``text`` followed by the file and line of the user's code that raised ``error``, if it went through any."""
    found = place(error)
    return f"{text} ({found})" if found else text


def place(error: BaseException) -> str | None:
    """File and line of the last call that is neither in this suite, in torch nor in Python's library."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = os.path.abspath(frame.filename)
        is_library = file.startswith(LIBRARY) and INSTALLED not in file
        if not (frame.filename.startswith("<") or is_library or file.startswith(SUITE) or _is_torch(file)):
            below = os.path.relpath(file)
            return f"{file if below.startswith(os.pardir) else below}, line {frame.lineno}"
    return None


def _is_torch(file: str) -> bool:
    return INSTALLED in file and file.rpartition(INSTALLED)[2].startswith(f"torch{os.sep}")
