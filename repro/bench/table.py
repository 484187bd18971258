"""Measurements, one a line, and the table of them."""

import csv
import io
import math
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from repro.config.terminal import console
from repro.records.files import write_whole

COLUMNS = ["part", "what", "median", "low", "high", "unit", "ratio", "note"]


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
        """Add a line with the values of its rounds; its ratio is to ``baseline``, a median (0: no ratio)."""
        median = statistics.median(values)
        self.lines.append(
            Line(part, what, median, min(values), max(values), unit, median / baseline if baseline else None, note)
        )


def write(results: Results, title: str, name: str, folder: Path, setting: str) -> None:
    """Print the table, and write it to ``<name>.csv`` and ``<name>.md`` in ``folder``."""
    table = Table(title=title, caption=setting)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("median", "low", "high", "ratio") else "left")
    cells = []
    part = None
    for line in results.lines:
        numbers = [_format(value) for value in (line.median, line.low, line.high)]
        ratio = f"{line.ratio:.2f}" if line.ratio else ""
        if part not in (None, line.part):
            table.add_section()
        table.add_row("" if line.part == part else line.part, line.what, *numbers, line.unit, ratio, line.note)
        cells.append([line.part, line.what, *numbers, line.unit, ratio, line.note])
        part = line.part
    console(width=None if sys.stdout.isatty() else 180).print(table)
    folder.mkdir(parents=True, exist_ok=True)
    rows = io.StringIO()
    csv.writer(rows).writerows([COLUMNS, *([getattr(line, c) for c in COLUMNS] for line in results.lines)])
    write_whole(folder / f"{name}.csv", rows.getvalue())
    text = [f"# {title}", "", setting, "", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    text += [f"| {' | '.join(row)} |" for row in cells]
    write_whole(folder / f"{name}.md", "\n".join(text) + "\n")


def _format(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
