"""A run's folder: the record that is the truth about it. Weights & Biases mirrors it; figures read it.

    run.json        configuration, fingerprint, status, versions, device, commit, wall time; at the end the number
                    of rows and their digest
    history.jsonl   a row a test, as ``repro.training.loop`` yields them; a value that is not finite is null
    weights.pt      the final weights, whose SHA-256 is in run.json

``run.json`` is replaced whole, a row of ``history.jsonl`` is one write: a reader never sees half of either (it
leaves out a last line that does not end yet).
"""

import contextlib
import copy
import errno
import json
import math
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from typing import Any, cast

from repro.config import PROTOCOL, Config, fingerprint, to_dict
from repro.records.existing import differences
from repro.records.files import write_whole
from repro.records.history import as_text, digest, numbers
from repro.records.info import read_info, record_id, write_info
from repro.records.types import Info, Row

MAKES_RUNS = (":/repro", ":/conf", ":/hydra_plugins")  # what is trained, and how, from the top of the checkout
VERSIONS = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "wandb")


class Record:
    """The open record of one run, in one folder."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        environment: Mapping[str, Any] | None = None,
        changes: Sequence[str] = (),
    ):
        """Say in ``run.json`` that a run begins, in place of an unfinished one.

        ``changes`` is what the run changes in its experiment (``naming.changes``). The rows that are there stay as
        they are until ``start``, which follows at once where ``environment`` is given. Before that, whatever fails
        can be recorded already.
        """
        self.folder = folder
        self._clock, self._wall = time.monotonic(), 0.0
        self._config = config
        before = read_info(folder)
        known = config
        if before is not None and not differences(before, config):
            self._wall = before.get("wall_seconds", 0.0)
            if config.dataset.digest is None:  # not read yet, so still the images of before
                known = copy.deepcopy(config)
                known.dataset.digest = before["config"].get("dataset", {}).get("digest")
        self._history: FileIO | None = None
        self.rows: list[Row] = []  # every row of this record
        self.info: Info = {
            "curve": config.curve,
            "seed": config.seed,
            "variant": _variant(folder, config),
            "overrides": list(changes),
            "fingerprint": fingerprint(known),
            "protocol": PROTOCOL,
            "status": "running",
            "attempt": (before.get("attempt", 0) if before else 0) + 1,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "host": platform.node(),
            "pid": os.getpid(),
            "commit": _commit(),
            "environment": {},
            "versions": {name: _version(name) for name in VERSIONS},
            "config": to_dict(known),
            "command": _command(config, changes),
            "earlier": _earlier(before) if before is not None and not differences(before, config) else [],
        }
        if self._wall:
            self.info["wall_seconds"] = self._wall
        folder.mkdir(parents=True, exist_ok=True)
        self._write()
        if environment is not None:
            self.start(environment)

    def start(self, environment: Mapping[str, Any], rows: Sequence[Row] | None = None) -> None:
        """Open the record for rows: after ``rows``, those of before that a checkpoint counts on, or after none.

        ``environment`` goes into ``run.json``.
        """
        if rows is None:
            self._wall = 0.0
        self.rows = [*(rows or [])]
        path = self.folder / "history.jsonl"
        write_whole(path, as_text(self.rows), durable=bool(self.rows))  # the checkpoint counts on them
        self._history = open(path, "ab", buffering=0)  # noqa: SIM115
        self.info["environment"] = dict(environment)
        self.info["fingerprint"], self.info["config"] = fingerprint(self._config), to_dict(self._config)
        self._write()

    def append(self, row: Row) -> None:
        """Add one test's row, whole. Raises OSError, and leaves the rows as they were."""
        assert self._history is not None, "start comes first"
        finite = cast(Row, {k: v if v is None or math.isfinite(v) else None for k, v in numbers(row)})
        line = json.dumps(finite).encode() + b"\n"
        end = os.fstat(self._history.fileno()).st_size
        try:
            if self._history.write(line) != len(line):  # the disk took a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = str(self.folder / "history.jsonl")
            with contextlib.suppress(OSError):
                self._history.truncate(end)
            raise
        self.rows.append(finite)

    def sync(self) -> None:
        """Bring the rows and the time so far to the disk, before a checkpoint counts on them."""
        assert self._history is not None, "start comes first"
        os.fsync(self._history.fileno())
        self.info["wall_seconds"] = self._seconds()
        self._write()

    def add(self, **more: Any) -> None:
        """Write what is known only after the start."""
        self.info |= cast(Info, more)
        self._write()

    def finish(self, status: str, **more: Any) -> None:
        """Close the record: "finished", "diverged", "failed" or "interrupted", with what else is worth keeping."""
        self.info["status"], self.info["wall_seconds"] = status, self._seconds()
        if self._history is not None:  # otherwise the rows are those of before
            os.fsync(self._history.fileno())  # the checkpoints go once this is written
            self._history.close()
            self.info["rows"], self.info["digest"] = len(self.rows), digest(self.rows)
        self.info |= cast(Info, more)
        write_info(self.folder, self.info, durable=True)

    def _seconds(self) -> float:
        return round(float(self._wall) + time.monotonic() - self._clock, 3)

    def _write(self) -> None:
        write_info(self.folder, self.info)


def _variant(folder: Path, config: Config) -> str:
    """What the folder's name says beyond scale, curve and seed: the further overrides, or nothing."""
    home = f"/{config.scale.name}/{config.curve}/"
    _, found, rest = f"/{folder.as_posix()}".rpartition(home)
    return rest.rpartition("/")[0] if found else ""


def _command(config: Config, changes: Sequence[str]) -> str:
    own = (f"experiment={config.curve}", f"scale={config.scale.name}", f"seed={config.seed}")
    return shlex.join(["python", "-m", "repro.train", *own, *changes])


def _earlier(before: Info) -> list[str]:
    """The attempts up to that of ``before``, an unfinished record."""
    with contextlib.suppress(KeyError):
        return [*before.get("earlier", []), record_id(before)]
    return []


@lru_cache(maxsize=1)
def _commit() -> str | None:
    return commit_of(Path(__file__).parent)


def commit_of(folder: Path) -> str | None:
    """The commit of ``folder``, None without git; with "-dirty" where a file that makes runs differs from it.

    A figure that was drawn again makes no run another.
    """
    git = ["git", "-C", str(folder)]
    options: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": 10}
    try:
        named = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], **options)
        if named.returncode:
            return None
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *MAKES_RUNS], **options)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{named.stdout.strip()}{'-dirty' if changed.returncode else ''}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:
        return None
