"""Checkpoints of a run.

A checkpoint is one file: the SHA-256 of the rest, then what ``torch.save`` makes. It is written beside its place
and renamed, and the last two are kept: a kill, a full disk or a cut file costs the work since the one before.
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

from repro.records.files import write_whole

log = logging.getLogger(__name__)
KEPT = 2


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``state["iteration"]`` and drop all but the last two. Raises OSError."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()

    def write(file: BinaryIO) -> None:
        file.write(hashlib.sha256(payload).digest())
        file.write(payload)

    write_whole(folder / f"checkpoint-{state['iteration']:09d}.pt", write, durable=True)
    for old in found(folder)[KEPT:]:
        old.unlink()


@contextmanager
def writer(folder: Path, before: Callable[[], None]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that copies a state where it is, and lets a thread ``save`` the copy while training goes on.

    The thread calls ``before`` first. One checkpoint is written at a time, and leaving waits for the last. One
    that cannot be written costs nothing but itself: the run goes on, and says so.
    """

    def write(state: dict[str, Any]) -> None:
        try:
            before()
            save(folder, state)
        except OSError as error:
            log.warning("no checkpoint at iteration %d: %s; make room, the run goes on", state["iteration"], error)

    pending: Future[None] | None = None

    def begin(state: dict[str, Any]) -> None:
        nonlocal pending
        if pending is not None:
            pending.result()  # raises what was no OSError
        pending = pool.submit(write, copy.deepcopy(state))

    with ThreadPoolExecutor(1, "checkpoint") as pool:
        try:
            yield begin
        finally:
            if pending is not None:
                pending.result()


def load(folder: Path, device: str) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, on ``device``; None where there is none."""
    import torch

    for path in found(folder):
        content = path.read_bytes()
        if content[:32] == hashlib.sha256(content[32:]).digest():
            saved: dict[str, Any] = torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
            return saved
        log.warning("%s is cut or broken; going back to the one before, or to the start", path)
        path.unlink()
    return None


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def clear(folder: Path) -> None:
    """Remove every checkpoint, and what killed processes left half-written."""
    for pattern in ("checkpoint-*.pt", ".checkpoint-*", ".weights.*", ".run.json.*", ".history.jsonl.*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
