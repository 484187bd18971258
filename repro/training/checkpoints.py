"""Checkpoints of a run.

A checkpoint is one file: the SHA-256 of the rest, then the output of ``torch.save``. It is written atomically, and
the last two are kept: a kill, a full disk or a truncated file costs only the work since the previous checkpoint.
It holds the number and SHA-256 of the run's rows so far; a run resumes from it only if its history still has them.
"""

import copy
import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from repro.config.errors import ADVICE, system_error
from repro.records import Row, history
from repro.records.files import write_whole
from repro.records.starts import CHECKPOINTS

log = logging.getLogger(__name__)
KEPT = 2


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``state["iteration"]`` and delete all but the last two. Raises OSError."""
    write(folder / f"checkpoint-{state['iteration']:09d}.pt", state)
    for outdated in find(folder)[KEPT:]:
        outdated.unlink()


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state atomically, with its SHA-256. Raises OSError."""
    payload = packed(state)

    def write_both(file: BinaryIO) -> None:
        file.write(hashlib.sha256(payload).digest())
        file.write(payload)

    write_whole(path, write_both, durable=True)


def read(path: Path, device: str) -> dict[str, Any] | None:
    """The state that ``write`` wrote, on ``device``; None if the file is truncated or corrupt. Raises OSError."""
    import torch

    content = path.read_bytes()
    if content[:32] != hashlib.sha256(content[32:]).digest():
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
    return state


def packed(state: dict[str, Any]) -> memoryview:
    """The bytes that ``torch.save`` writes. Saving directly to a file, torch hides the OSError of a full disk."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


@contextmanager
def write_in_background(
    folder: Path, before_save: Callable[[], None], device: str = "cpu"
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that copies a state on its ``device``; a thread then saves the copy while training continues.

    The thread calls ``before_save`` first. On a GPU it copies to main memory on a separate stream, so that
    training does not wait for it. One checkpoint is written at a time, and leaving the context waits for the last.
    An OSError is logged and costs only that checkpoint; any other exception reaches the caller.
    """
    import torch

    def save_copy(state: dict[str, Any], copied: torch.cuda.Event | None) -> None:
        try:
            before_save()
            stream = None if copied is None else torch.cuda.Stream(device)
            with torch.cuda.stream(stream):  # None: no stream
                if copied is not None:
                    copied.wait()
                save(folder, state)
        except OSError as error:
            reason = system_error(error, "the run continues")
            log.warning("no checkpoint at iteration %d: %s", state["iteration"], reason)

    pending: Future[None] | None = None

    def start_write(state: dict[str, Any]) -> None:
        nonlocal pending
        if pending is not None:
            pending.result()  # raises anything but an OSError
        state = copy.deepcopy(state)
        copied = torch.cuda.current_stream(device).record_event() if device.startswith("cuda") else None
        pending = pool.submit(save_copy, state, copied)

    with ThreadPoolExecutor(1, "checkpoint") as pool:
        try:
            yield start_write
        finally:
            if pending is not None:
                pending.result()


def load(folder: Path, device: str) -> tuple[dict[str, Any], list[Row]] | None:
    """The newest intact checkpoint, on ``device``, and the rows before it; None if there is none.

    Broken checkpoints, and those whose rows are no longer in the history, are logged and deleted. Raises
    ReproError if the history cannot be read.
    """
    for path in find(folder):
        problem = "is truncated or corrupt"
        try:
            state = read(path, device)
        except OSError as error:
            if error.errno in ADVICE:  # the user can mend it
                raise
            log.warning("%s; falling back to the previous checkpoint, or to the start", system_error(error, ""))
            continue
        if state is not None:
            if (rows := history.counted(folder, state)) is not None:
                return state, rows
            problem = f"needs rows that {folder / history.FILE} no longer has as recorded"
        log.warning("%s %s; falling back to the previous checkpoint, or to the start", path, problem)
        path.unlink()
    return None


def find(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted(folder.glob(CHECKPOINTS), reverse=True)


def clear(folder: Path) -> None:
    """Delete every checkpoint, and the partial files of killed processes."""
    partial_files = (".checkpoint-*", ".snapshot-*", ".weights.*", ".run.json.*", ".history.jsonl.*")
    for pattern in ("checkpoint-*.pt", *partial_files):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
