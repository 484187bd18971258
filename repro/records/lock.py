"""The lock that keeps a run to one process. No torch here."""

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
POLL_SECONDS = 2.0  # between two tries of a lock that is waited for
patience = 0.0  # seconds that this process waits for a lock: a job that is queued again, for a dead node's


@contextmanager
def locked(folder: Path, what: str | None = None) -> Iterator[None]:
    """Keep other processes from this run; the lock of a process that died is free at once.

    ``what`` is in words what its holder does, the training of the run otherwise.

    Raises ReproError that names host and process of a holder that lives, once ``patience`` is over.
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
                continue  # it has just let go
            if time.monotonic() < until:
                time.sleep(POLL_SECONDS)
                continue
            raise ReproError(f"{what or f'{folder} is being trained'} by {name}; wait for it, or end it") from None
        except OSError as error:
            log.info("%s cannot be locked (%s): see to it that no other process trains this run", path, error)
            break
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # the holder removed it between our opening and locking it
    try:
        with suppress(OSError):  # the lock holds without these words
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def holder(folder: Path) -> str | None:
    """Process and host that train a run now, in words; None where no living process does."""
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
