"""A run's folder holds its authoritative record: Weights & Biases mirrors it, figures read it.

    run.json        configuration, fingerprint, status, versions, device, commit, wall time; at the end the number
                    of rows and their digest
    history.jsonl   one row per test, as ``repro.training.loop`` yields them; a value that is not finite is null
    weights.pt      the final weights, whose SHA-256 is in run.json

``run.json`` is replaced atomically, and a row of ``history.jsonl`` is one write: a reader never sees a part of
either (it ignores an unterminated last line).
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
from repro.config.errors import ReproError
from repro.records import naming
from repro.records.existing import code_of, differences
from repro.records.files import write_whole
from repro.records.history import as_text, digest, numbers
from repro.records.info import read_info, record_id, write_info
from repro.records.types import Info, Row

MAKES_RUNS = (":/repro", ":/conf", ":/hydra_plugins")  # git pathspecs of the files that determine results
ATTEMPT = ("attempt", "started", "host", "commit", "environment", "versions", "code")  # kept of a resumed attempt
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
        """Write a new ``run.json`` with status "running", in place of that of an unfinished run.

        ``changes`` are the run's overrides of its experiment (``naming.changes``). Existing rows are kept until
        ``start``, which is called here if ``environment`` is given. A failure before ``start`` can be recorded.
        Raises OSError.
        """
        self.folder = folder
        self._started, self._earlier_seconds = time.monotonic(), 0.0
        self._config = config
        previous = read_info(folder)
        same = None if previous is None or differences(previous, config) else previous  # an attempt at this run
        known = config
        if same is not None:
            self._earlier_seconds = same.get("wall_seconds", 0.0)
            if config.dataset.digest is None:  # not read yet: assume the images of the previous attempt
                known = copy.deepcopy(config)
                known.dataset.digest = same["config"].get("dataset", {}).get("digest")
        self._history: FileIO | None = None
        self._opened: os.stat_result | None = None  # of the history
        self.rows: list[Row] = []  # every row of this record
        self.info: Info = {
            "curve": config.curve,
            "seed": config.seed,
            "variant": _variant(folder, config),
            "overrides": list(changes),
            "fingerprint": fingerprint(known),
            "protocol": PROTOCOL,
            "status": "running",
            "attempt": (previous.get("attempt", 0) if previous else 0) + 1,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "host": platform.node(),
            "pid": os.getpid(),
            "commit": _commit(),
            "environment": {},
            "versions": {name: _version(name) for name in VERSIONS},
            "config": to_dict(known),
            "command": _command(config, changes),
            "code": code_of(config),
            "earlier": [] if same is None else _earlier(same),
            "resumed": [] if same is None else _makers(same),
        }
        if self._earlier_seconds:
            self.info["wall_seconds"] = self._earlier_seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._write()
        if environment is not None:
            self.start(environment)

    def start(self, environment: Mapping[str, Any], rows: Sequence[Row] | None = None, iteration: int = 0) -> None:
        """Open the history: empty, or with ``rows``, those before the checkpoint that the run resumes from.

        ``iteration`` is that checkpoint's. ``environment`` is stored in ``run.json``. Raises OSError.
        """
        if rows is None:
            self._earlier_seconds = 0.0
        self.info["resumed"] = [] if rows is None else _until(iteration, self.info["resumed"])
        self.rows = [*(rows or [])]
        path = self.folder / "history.jsonl"
        write_whole(path, as_text(self.rows), durable=bool(self.rows))  # the checkpoint needs these rows
        self._history = open(path, "ab", buffering=0)  # noqa: SIM115
        self._opened = os.fstat(self._history.fileno())
        self.info["environment"] = dict(environment)
        self.info["fingerprint"], self.info["config"] = fingerprint(self._config), to_dict(self._config)
        self._write()

    def _require_own(self) -> None:
        """Raise ReproError if the folder was deleted, moved or replaced: another process may train there now."""
        if self._opened is None:
            return
        try:
            is_own = os.path.samestat(self._opened, (self.folder / "history.jsonl").stat())
        except (FileNotFoundError, NotADirectoryError):
            is_own = False
        if not is_own:
            raise ReproError(f"{self.folder} was deleted, moved or replaced while this run trained in it")

    def append(self, row: Row) -> None:
        """Add the row of one test. Raises OSError, and leaves the history unchanged."""
        assert self._history is not None, "start comes first"
        self._require_own()
        finite = cast(Row, {k: v if v is None or math.isfinite(v) else None for k, v in numbers(row)})
        line = json.dumps(finite).encode() + b"\n"
        end = os.fstat(self._history.fileno()).st_size
        try:
            if self._history.write(line) != len(line):  # the disk filled up within the line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = str(self.folder / "history.jsonl")
            with contextlib.suppress(OSError):
                self._history.truncate(end)
            raise
        self.rows.append(finite)

    def sync(self) -> None:
        """Sync the rows and the wall time to disk, before a checkpoint that needs them. Raises OSError."""
        assert self._history is not None, "start comes first"
        os.fsync(self._history.fileno())
        self.info["wall_seconds"] = self._seconds()
        self._write(durable=True)

    def add(self, **more: Any) -> None:
        """Add keys to ``run.json`` that are known only after the start. Raises OSError."""
        self.info |= cast(Info, more)
        self._write()

    def finish(self, status: str, **more: Any) -> None:
        """Close the record as "finished", "diverged", "failed" or "interrupted"; ``more`` are further keys.

        Raises OSError.
        """
        self._require_own()
        self.info["status"], self.info["wall_seconds"] = status, self._seconds()
        if self._history is not None:  # otherwise the rows of the previous attempt are kept
            os.fsync(self._history.fileno())  # the checkpoints are deleted once this is written
            self._history.close()
            self.info["rows"], self.info["digest"] = len(self.rows), digest(self.rows)
        self.info |= cast(Info, more)
        write_info(self.folder, self.info, durable=True)

    def _seconds(self) -> float:
        return round(float(self._earlier_seconds) + time.monotonic() - self._started, 3)

    def _write(self, durable: bool = False) -> None:
        self._require_own()
        write_info(self.folder, self.info, durable=durable)


def _variant(folder: Path, config: Config) -> str:
    """The folder between curve and seed, which holds the overrides; "" if there is none."""
    home = f"/{config.scale.name}/{config.curve}/"
    _, found, rest = f"/{folder.as_posix()}".rpartition(home)
    return rest.rpartition("/")[0] if found else ""


def _command(config: Config, changes: Sequence[str]) -> str:
    chosen = (f"experiment={config.curve}", f"scale={config.scale.name}", f"seed={config.seed}")
    root = config.dataset.root
    places = [] if root == Config().dataset.root else [naming.override("dataset.root", root)]
    return shlex.join(["python", "-m", "repro.train", *chosen, *naming.as_overrides(changes), *places])


def _earlier(previous: Info) -> list[str]:
    """The record ids of all attempts up to ``previous``, an unfinished record."""
    with contextlib.suppress(KeyError):
        return [*previous.get("earlier", []), record_id(previous)]
    return []


def _makers(previous: Info) -> list[dict[str, Any]]:
    """What made the iterations up to now of ``previous``, an unfinished record: an entry per attempt."""
    resumed = previous.get("resumed", [])
    if not previous.get("environment"):  # it ended before its first iteration
        return resumed
    return [*resumed, {key: value for key, value in previous.items() if key in ATTEMPT}]


def _until(iteration: int, makers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of ``makers`` that made an iteration up to ``iteration``, each with its last as "until"."""
    kept: list[dict[str, Any]] = []
    for maker in makers:
        kept.append({**maker, "until": min(maker.get("until", iteration), iteration)})
        if kept[-1]["until"] == iteration:
            break
    return kept


@lru_cache(maxsize=1)
def _commit() -> str | None:
    return commit_of(Path(__file__).parent)


def commit_of(folder: Path) -> str | None:
    """The commit of ``folder``, None without git; with "-dirty" if a file in MAKES_RUNS differs from it.

    Other changes, such as a figure drawn again, do not affect a run.
    """
    git = ["git", "-C", str(folder)]
    options: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": 10}
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], **options)
        if head.returncode:
            return None
        diff = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *MAKES_RUNS], **options)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{head.stdout.strip()}{'-dirty' if diff.returncode else ''}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:
        return None
