"""The rows of a run, ``history.jsonl``: read, named by a digest, held against what the run counted. No torch."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from repro.config.errors import ReproError
from repro.records.types import Info, Row

FILE = "history.jsonl"
AGAIN = "force=true trains the run again"  # what to do about a finished run whose files are broken


def read_history(folder: Path) -> list[Row]:
    """The complete rows of a run's folder. Raises ReproError that names file and line for what is no row."""
    rows: list[Row] = []
    for number, line in enumerate(_lines(folder), start=1):
        if (row := _parse_row(line)) is None:
            raise ReproError(f"{folder / FILE}:{number}: not a row of JSON; {AGAIN}")
        rows.append(row)
    return rows


def _lines(folder: Path) -> list[bytes]:
    """The complete lines of a run's history; none where there is no history."""
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
    numbers = isinstance(row, dict) and all(v is None or isinstance(v, int | float) for v in row.values())
    return cast(Row, row) if numbers and isinstance(row.get("iteration"), int) else None


def last_row(folder: Path) -> Row | None:
    """The last complete row of a run that may be running, without reading all of its history."""
    try:
        with open(folder / FILE, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            return _parse_row(file.read().split(b"\n")[-2])
    except (OSError, IndexError):
        return None


def as_text(rows: Sequence[Row]) -> str:
    """What ``history.jsonl`` holds of these rows."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def count(rows: Sequence[Row]) -> dict[str, Any]:
    """What a checkpoint says of the rows that it counts on: how many they are, and the SHA-256 of their text."""
    return {"rows": len(rows), "sha256": hashlib.sha256(as_text(rows).encode()).hexdigest()}


def counted(folder: Path, checkpoint: Mapping[str, Any]) -> list[Row] | None:
    """The rows that ``checkpoint`` counts on; None where the file does not have them as they were.

    A checkpoint holds ``iteration`` and, as ``history``, what ``count`` says; those from before that count on
    every row up to their iteration, whatever its values. Raises ReproError where the file cannot be read.
    """
    lines, counted = _lines(folder), checkpoint.get("history")
    if counted is not None:
        lines = lines[: counted["rows"]]
        text = b"".join(line + b"\n" for line in lines)
        if len(lines) != counted["rows"] or hashlib.sha256(text).hexdigest() != counted["sha256"]:
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
    """Twelve hexadecimal digits of a history, the same whichever way it was stored.

    The speed stays out: two runs with the same digest learnt the same.
    """
    hashed = hashlib.sha256()
    for row in rows:
        values = {k: float(v) for k, v in numbers(row) if v is not None and k != "images_per_second"}
        hashed.update(json.dumps(values, sort_keys=True).encode())
    return hashed.hexdigest()[:12]


def broken(info: Info, rows: list[Row]) -> str | None:
    """What is wrong with a history, by what its run counted at its end; None if nothing, or if it did not end."""
    if "digest" not in info:
        return None
    if len(rows) != info.get("rows"):
        return f"{len(rows)} rows came, and the run counted {info.get('rows', 'none')}"
    if digest(rows) != info["digest"]:
        return f"{len(rows)} rows came, as the run counted, but with other values than it recorded"
    return None


def numbers(row: Row) -> Iterable[tuple[str, float | None]]:
    """The keys and values of a row."""
    return cast(dict[str, float | None], row).items()
