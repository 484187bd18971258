"""The lines and the table of a benchmark."""

import csv
import io
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from repro.config.terminal import console
from repro.records.files import write_whole

COLUMNS = ["part", "what", "median", "low", "high", "unit", "ratio", "note"]


class Part(NamedTuple):
    """A part of a benchmark."""

    name: str
    measure: Callable[[float], None]  # takes the time (monotonic clock) at which to stop early


@dataclass
class Line:
    """One measurement: the median and range of its rounds, and the median's ratio to its part's baseline."""

    part: str
    what: str
    median: float
    low: float
    high: float
    unit: str
    ratio: float | None = None
    note: str = ""


@dataclass
class Results:
    """The lines of a benchmark; ``speeds`` are the rows of ``bench.json``."""

    lines: list[Line] = field(default_factory=list)
    speeds: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, part: str, what: str, values: list[float], unit: str, note: str = "", baseline: float = 0
    ) -> None:
        """Add a line for the values of its rounds; its ratio is to ``baseline``, a median (0: no ratio)."""
        median = statistics.median(values)
        self.lines.append(
            Line(part, what, median, min(values), max(values), unit, median / baseline if baseline else None, note)
        )


def show(results: Results, title: str, setting: str) -> None:
    """Print the table."""
    table = Table(title=title, caption=setting)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("median", "low", "high", "ratio") else "left")
    part = None
    for row in _list_cells(results):
        if part not in (None, row[0]):
            table.add_section()
        table.add_row("" if row[0] == part else row[0], *row[1:])
        part = row[0]
    console(width=None if sys.stdout.isatty() else 180).print(table)


def write(results: Results, title: str, name: str, folder: Path, setting: str) -> None:
    """Write the table to ``<name>.csv`` and ``<name>.md`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = io.StringIO()
    csv.writer(rows).writerows([COLUMNS, *([getattr(line, c) for c in COLUMNS] for line in results.lines)])
    write_whole(folder / f"{name}.csv", rows.getvalue())
    text = [f"# {title}", "", setting, "", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    text += [f"| {' | '.join(row)} |" for row in _list_cells(results)]
    write_whole(folder / f"{name}.md", "\n".join(text) + "\n")


def _list_cells(results: Results) -> list[list[str]]:
    return [
        [
            line.part,
            line.what,
            *(_format(value) for value in (line.median, line.low, line.high)),
            line.unit,
            f"{line.ratio:.2f}" if line.ratio else "",
            line.note,
        ]
        for line in results.lines
    ]


def _format(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
