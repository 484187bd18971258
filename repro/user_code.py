"""The user's own Python, named by an import path ``package.module:object``: finding it, and where it fails."""

import ast
import hashlib
import importlib
import importlib.util
import os
import random
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """While entered, Python's and numpy's own random numbers are seeded; afterwards they are as before."""
    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)


def digest(path: str) -> str | None:
    """Eight hexadecimal digits of the code of the module in an import path, without its comments and layout.

    None if the module is not a file of Python. Modules that it imports do not count.
    """
    try:
        spec = importlib.util.find_spec(path.partition(":")[0])
        code = ast.dump(ast.parse(Path(str(spec and spec.origin)).read_bytes()))
    except (ImportError, AttributeError, OSError, ValueError, SyntaxError):
        return None
    return hashlib.sha256(code.encode()).hexdigest()[:8]


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
    """File and line of the last call in the user's own files, else in an installed package that is not torch."""
    frames = [(os.path.abspath(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__)]
    frames = [(file, frame) for file, frame in frames if not frame.filename.startswith("<")]
    outside = [(file, frame) for file, frame in frames if not file.startswith(SUITE)]
    own = [pair for pair in outside if not pair[0].startswith(LIBRARY) and INSTALLED not in pair[0]]
    installed = [pair for pair in outside if INSTALLED in pair[0] and not _is_torch(pair[0])]
    for file, frame in reversed(own or installed):
        relative = os.path.relpath(file)
        return f"{file if relative.startswith(os.pardir) else relative}, line {frame.lineno}"
    return None


def _is_torch(file: str) -> bool:
    return INSTALLED in file and file.rpartition(INSTALLED)[2].startswith(f"torch{os.sep}")
