"""The lock that limits a run to one process. Does not import torch."""

import fcntl
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from repro.config.errors import ReproError

log = logging.getLogger(__name__)
LOCK = ".lock"
POLL_SECONDS = 2.0  # between two attempts while waiting for a lock
patience = 0.0  # seconds that this process waits for a lock; a requeued job waits for that of its dead node


@contextmanager
def locked(folder: Path, activity: str | None = None) -> Iterator[None]:
    """Keep other processes from this run; the lock of a process that died is free at once.

    ``activity`` says in the error what its holder does; by default it trains the run. Raises ReproError that names
    host and process of a living holder, once ``patience`` has passed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, until = folder / LOCK, time.monotonic() + patience
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            if (name := holder(folder)) is None:
                continue  # released meanwhile
            if time.monotonic() < until:
                time.sleep(POLL_SECONDS)
                continue
            raise ReproError(
                f"{activity or f'{folder} is being trained'} by {name}; wait for it, or end it"
            ) from None
        except OSError as error:
            log.info("%s cannot be locked (%s); make sure that no other process trains this run", path, error)
            break
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # the holder removed it between our opening and locking it
    try:
        with suppress(OSError):  # the lock does not depend on its text
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
        yield
    finally:
        with suppress(OSError):  # not that of another process, if the folder was replaced
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                path.unlink()
        file.close()


def holder(folder: Path) -> str | None:
    """A description of the process and host that hold a run's lock; None if no living process does."""
    try:
        with open(folder / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return (folder / LOCK).read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return None
    except OSError:
        return None
    return None
