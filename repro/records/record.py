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
import hashlib
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

from repro.config import PROTOCOL, Config, fingerprint, flat, from_dict, to_dict
from repro.config.errors import ReproError
from repro.records.files import write_whole
from repro.records.history import AGAIN, as_text, broken, digest, numbers, read_history
from repro.records.types import FINISHED, Info, Row

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
            "variant": variant(folder, config),
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


def write_info(folder: Path, info: Info, *, durable: bool = False) -> None:
    """Write ``run.json``, to the disk where it is ``durable``. Raises OSError."""
    write_whole(folder / "run.json", json.dumps(info, indent=1) + "\n", durable=durable)


def read_info(folder: Path) -> Info | None:
    """``run.json`` of a run's folder, or None where no run has started.

    Raises ReproError if it is broken, cannot be read, or is another tool's.
    """
    path = folder / "run.json"
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ReproError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ReproError(f"{path}: broken ({error}); move this folder aside and run it again") from None
    if not is_record(value):
        raise ReproError(f"{path}: no record of this suite; move it out of the folders of runs")
    info: Info = value
    return info


def is_record(value: Any) -> bool:
    """Whether a value of JSON is ``run.json`` of this suite: another tool's holds other things."""
    return _has(
        value,
        curve=str,
        seed=int,
        status=str,
        environment=dict,
        versions=dict,
        config={
            "iterations": int,
            "batch_size": int,
            "test_every": int,
            "scale": {"iterations": (int, float), "note": str},
            "schedule": {"lr": dict, "momentum": dict},
        },
    )


def _has(value: Any, **types: Any) -> bool:
    """Whether a value is a dictionary with these keys, each of its type or in turn with its own keys."""
    return isinstance(value, dict) and all(
        _has(value.get(key), **kind) if isinstance(kind, dict) else isinstance(value.get(key), kind)
        for key, kind in types.items()
    )


def record_id(info: Mapping[str, Any]) -> str:
    """The name of one attempt at a run: fingerprint, attempt, and four digits of where and when it began.

    The same for a record and its copies, whoever holds them; another for a run that was trained again elsewhere.
    Raises KeyError where ``info`` lacks one of these.
    """
    begun = "|".join(str(info[key]) for key in ("curve", "host", "pid", "started"))
    return f"{info['fingerprint']}-{info['attempt']}-{hashlib.sha256(begun.encode()).hexdigest()[:4]}"


def variant(folder: Path, config: Config) -> str:
    """What the folder's name says beyond scale, curve and seed: the further overrides, or nothing."""
    home = f"/{config.scale.name}/{config.curve}/"
    _, found, rest = f"/{folder.as_posix()}".rpartition(home)
    return rest.rpartition("/")[0] if found else ""


def mark_failed(folder: Path, reason: str) -> None:
    """Write the end of a run whose process died before it could; a record that is not "running" stays."""
    try:
        info = read_info(folder)
        if info is not None and info["status"] == "running":
            write_info(folder, {**info, "status": "failed", "reason": reason})
    except (OSError, ReproError):
        return


def read_weights(folder: Path, info: Info) -> bytes:
    """``weights.pt`` of a run. Raises ReproError where it cannot be read or is not what its record says."""
    path = folder / "weights.pt"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReproError(f"{path}: cannot be read: {error.strerror}; {AGAIN}") from None
    if info.get("weights_sha256") not in (None, hashlib.sha256(content).hexdigest()):
        raise ReproError(f"{path}: not the weights that the run recorded (another SHA-256); {AGAIN}")
    return content


def require_intact(folder: Path, info: Info) -> None:
    """Raises ReproError where a finished run's files are not what it recorded of them; weights may be missing."""
    if problem := broken(info, read_history(folder)):
        raise ReproError(f"{folder / 'history.jsonl'}: {problem}; {AGAIN}")
    if "weights_sha256" in info and (folder / "weights.pt").exists():
        read_weights(folder, info)


def already_finished(folder: Path, config: Config) -> bool:
    """Whether this very run is finished in ``folder``; ``config.force`` wants it trained again in any case.

    Raises ReproError that names what differs where a finished run of another configuration is in the way, or one
    whose files are not what it recorded of them.
    """
    info = read_info(folder)
    if info is None or info["status"] not in FINISHED or config.force:
        return False
    differ = differences(info, config)
    if not differ:
        require_intact(folder, info)
        return True
    raise ReproError(
        f"{folder} holds a finished run of another configuration ({'; '.join(differ)}); "
        "force=true moves it aside, output=DIR puts the new one elsewhere"
    )


def differences(info: Info, config: Config) -> list[str]:
    """What makes a recorded run another than ``config``, a line a key; an unknown digest is no difference."""
    try:
        old, new = flat(from_dict(info["config"])), flat(config)
    except ReproError as error:
        return [str(error)]
    if None in (old["dataset.digest"], new["dataset.digest"]):
        del old["dataset.digest"], new["dataset.digest"]
    old["protocol"], new["protocol"] = info.get("protocol"), PROTOCOL
    return [f"{key}: {old[key]} there, {new[key]} now" for key in new if old[key] != new[key]]


def outdated(info: Info, config: Config) -> str | None:
    """In words, what other values a recorded run was trained with than ``config`` has; None where there are none.

    A record without a fingerprint is not of this suite, and nothing is said of it.
    """
    now = copy.deepcopy(config)
    now.dataset.digest = info["config"].get("dataset", {}).get("digest")
    if info.get("fingerprint") in (None, fingerprint(now)):
        return None
    if differ := differences(info, now):
        return "; ".join(differ)
    spelt_otherwise = fingerprint(from_dict(info["config"])) == info["fingerprint"]  # a number as 1.0 or 1
    return None if spelt_otherwise else "another fingerprint"


def move_aside(folder: Path) -> None:
    """Make room for a new run where a finished one lies: its files go into the next ``earlier-<n>`` there."""
    info = read_info(folder)
    if info is None or info["status"] not in FINISHED:
        return
    numbers = [path.name.removeprefix("earlier-") for path in folder.glob("earlier-*")]
    aside = folder / f"earlier-{1 + max((int(n) for n in numbers if n.isdecimal()), default=0)}"
    aside.mkdir()
    snapshots = [path.name for path in folder.glob("snapshot-*.pt")]
    for name in ("history.jsonl", "weights.pt", *snapshots, "wandb", "run.json"):
        if (folder / name).exists():
            (folder / name).rename(aside / name)


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
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:
        return None
