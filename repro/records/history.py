"""The rows of a run, ``history.jsonl``: reading, digest, verification. Does not import torch."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from repro.config.errors import ReproError
from repro.records.types import Info, Row

FILE = "history.jsonl"
AGAIN = "force=true trains the run again"  # the advice for a finished run whose files are broken


def read_history(folder: Path) -> list[Row]:
    """The complete rows of a run's folder. Raises ReproError that names file and line of an invalid row."""
    rows: list[Row] = []
    for number, line in enumerate(_lines(folder), start=1):
        if (row := _parse_row(line)) is None:
            raise ReproError(f"{folder / FILE}:{number}: not a JSON row; {AGAIN}")
        rows.append(row)
    return rows


def _lines(folder: Path) -> list[bytes]:
    """The complete lines of a run's history; none if there is no history."""
    path = folder / FILE
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReproError(f"{path}: cannot be read: {error.strerror}") from None


def _parse_row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_numeric = isinstance(row, dict) and all(v is None or isinstance(v, int | float) for v in row.values())
    return cast(Row, row) if is_numeric and isinstance(row.get("iteration"), int) else None


def last_row(folder: Path) -> Row | None:
    """The last complete row of a run, which may be running; reads only the end of its history."""
    try:
        with open(folder / FILE, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            return _parse_row(file.read().split(b"\n")[-2])
    except (OSError, IndexError):
        return None


def as_text(rows: Sequence[Row]) -> str:
    """The rows as the text of ``history.jsonl``."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def count(rows: Sequence[Row]) -> dict[str, Any]:
    """What a checkpoint stores to identify the rows before it: their number, and the SHA-256 of their text."""
    return {"rows": len(rows), "sha256": hashlib.sha256(as_text(rows).encode()).hexdigest()}


def counted(folder: Path, checkpoint: Mapping[str, Any]) -> list[Row] | None:
    """The rows before ``checkpoint``; None if the history no longer has them unchanged.

    A checkpoint holds ``iteration`` and, as ``history``, the result of ``count``. For older checkpoints without
    ``history``, these are all rows up to their iteration, unverified. Raises ReproError if the history cannot be
    read.
    """
    lines, expected = _lines(folder), checkpoint.get("history")
    if expected is not None:
        lines = lines[: expected["rows"]]
        text = b"".join(line + b"\n" for line in lines)
        if len(lines) != expected["rows"] or hashlib.sha256(text).hexdigest() != expected["sha256"]:
            return None
    rows: list[Row] = []
    for line in lines:
        if (row := _parse_row(line)) is None:
            return None
        if row["iteration"] > checkpoint["iteration"]:
            break
        rows.append(row)
    return rows


def digest(rows: Iterable[Row]) -> str:
    """Twelve hexadecimal digits that identify a history, however it is stored.

    The speed is excluded: two runs with the same digest have the same results.
    """
    hashed = hashlib.sha256()
    for row in rows:
        values = {k: float(v) for k, v in numbers(row) if v is not None and k != "images_per_second"}
        hashed.update(json.dumps(values, sort_keys=True).encode())
    return hashed.hexdigest()[:12]


def broken(info: Info, rows: list[Row]) -> str | None:
    """How a history differs from what its run recorded at its end; None if it does not, or if there is no end."""
    if "digest" not in info:
        return None
    if len(rows) != info.get("rows"):
        return f"it has {len(rows)} rows, and the run recorded {info.get('rows', 'none')}"
    if digest(rows) != info["digest"]:
        return f"its {len(rows)} rows have other values than the run recorded"
    return None


def numbers(row: Row) -> Iterable[tuple[str, float | None]]:
    """The items of a row, typed."""
    return cast(dict[str, float | None], row).items()
