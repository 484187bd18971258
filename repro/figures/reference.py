"""The author's own curves, from files that the user provides: CSV, or the Caffe logs of his repositories.

Both give the columns COLUMNS; a value that a file lacks is NaN. Source: the logs published with
arXiv 1708.07120 (github.com/lnsmith54/super-convergence) and 1803.09820 (github.com/lnsmith54/hyperParam1).
"""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from repro.config.errors import ReproError

COLUMNS = ["iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy"]
NUMBER = r"([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))"
ITERATION = re.compile(rf"Iteration (\d+)(?: \(.*?\))?, loss = {NUMBER}")
TESTING = re.compile(r"Iteration (\d+), Testing net")
TEST = re.compile(rf"Test net output #\d+: (accuracy|loss) = {NUMBER}")
SOLVER = re.compile(rf"Iteration (\d+), lr = {NUMBER}(?:, momentum = {NUMBER})?")


def load(folder: Path, figure: str, curves: list[str], logs: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The curves of a figure that ``folder`` has, each a frame of COLUMNS.

    A curve is ``<figure>_<curve>.csv``, or the log that ``logs`` names, in ``folder`` or one folder below it.
    Raises ReproError that names file and line of unreadable content, and if there is no curve at all.
    """
    if not folder.is_dir():
        raise ReproError(f"reference={folder}: no such folder")
    curves_read = {}
    for curve in curves:
        table = folder / f"{figure}_{curve}.csv"
        if table.exists():
            curves_read[curve] = read_csv(table)
        elif log := next((p for p in _places(folder, logs.get(curve)) if p.exists()), None):
            curves_read[curve] = read_log(log)
    if not curves_read:
        wanted = ", ".join([f"{figure}_<curve>.csv", *dict.fromkeys(logs.values())])
        raise ReproError(f"reference={folder}: it has no curve of {figure}; looked for {wanted}")
    return curves_read


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV table with a header and at least COLUMNS; an empty cell is NaN. Raises ReproError."""
    rows = []
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if missing := [c for c in COLUMNS if c not in (reader.fieldnames or [])]:
            raise ReproError(f"{path}:1: no column {', '.join(missing)}")
        for row in reader:
            values = []
            for column in COLUMNS:
                try:
                    values.append(float(row[column]) if row[column] else float("nan"))
                except ValueError:
                    problem = f"{column} {row[column]!r} is not a number"
                    raise ReproError(f"{path}:{reader.line_num}: {problem}") from None
            rows.append(values)
    if not rows:
        raise ReproError(f"{path}: no rows")
    return pd.DataFrame(rows, columns=COLUMNS)


def read_log(path: Path) -> pd.DataFrame:
    """A Caffe training log, one row per printed iteration. Raises ReproError if it has no tests."""
    rows: dict[int, dict[str, float]] = {}
    tested = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := TESTING.search(line):
            tested = int(match[1])
        elif (match := TEST.search(line)) and tested is not None:
            rows.setdefault(tested, {})[f"test_{match[1]}"] = float(match[2])
        elif match := ITERATION.search(line):
            rows.setdefault(int(match[1]), {})["train_loss"] = float(match[2])
        elif match := SOLVER.search(line):
            row = rows.setdefault(int(match[1]), {})
            row["lr"] = float(match[2])
            if match[3]:
                row["momentum"] = float(match[3])
    if not any("test_accuracy" in row for row in rows.values()):
        raise ReproError(f"{path}: no 'Test net output' lines; is it a Caffe training log?")
    table = pd.DataFrame([{"iteration": i, **row} for i, row in sorted(rows.items())])
    return table.reindex(columns=COLUMNS).astype("float64")


def _places(folder: Path, log: str | None) -> list[Path]:
    return [] if log is None else [folder / log, folder / Path(log).name, *folder.glob(f"*/{log}")]
