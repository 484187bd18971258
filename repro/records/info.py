"""``run.json``, a run's metadata: writing, reading, and recognising its format. Does not import torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.config.errors import ReproError
from repro.records.files import write_whole
from repro.records.types import Info


def write_info(folder: Path, info: Info, *, durable: bool = False) -> None:
    """Write ``run.json`` atomically; ``durable`` syncs it to disk. Raises OSError."""
    write_whole(folder / "run.json", json.dumps(info, indent=1) + "\n", durable=durable)


def read_info(folder: Path) -> Info | None:
    """``run.json`` of a run's folder, or None if no run has started there.

    Raises ReproError if it is broken, cannot be read, or belongs to another tool.
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
        raise ReproError(f"{path}: not a record of this suite; move it out of the folders of runs")
    info: Info = value
    return info


def is_record(value: Any) -> bool:
    """Whether a JSON value is a ``run.json`` of this suite, by its keys and their types."""
    return _has_keys(
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


def _has_keys(value: Any, **types: Any) -> bool:
    """Whether a value is a dictionary with these keys, each of its type or, for a dictionary, with its keys."""
    return isinstance(value, dict) and all(
        _has_keys(value.get(key), **kind) if isinstance(kind, dict) else isinstance(value.get(key), kind)
        for key, kind in types.items()
    )


def record_id(info: Mapping[str, Any]) -> str:
    """The name of one attempt at a run: fingerprint, attempt, and a four-digit hash of where and when it started.

    A record and all its copies share it; the same run trained again elsewhere has another. Raises KeyError if
    ``info`` lacks a key that it needs.
    """
    begun = "|".join(str(info[key]) for key in ("curve", "host", "pid", "started"))
    return f"{info['fingerprint']}-{info['attempt']}-{hashlib.sha256(begun.encode()).hexdigest()[:4]}"


def mark_failed(folder: Path, reason: str) -> None:
    """Record the failure of a run whose process died before it could; a record that is not "running" is kept."""
    try:
        info = read_info(folder)
        if info is not None and info["status"] == "running":
            write_info(folder, {**info, "status": "failed", "reason": reason})
    except (OSError, ReproError):
        return
