"""Records into one tidy pandas frame: a row a test, the same columns whatever the source. No torch here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from repro.config import ReproError
from repro.records import FINISHED, read_history, read_info

KEYS = ["curve", "seed", "status"]
VALUES = ["iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy", "images_per_second"]
TYPES = {"curve": "str", "seed": "int64", "status": "str", "iteration": "int64"}


@dataclass
class Runs:
    """Runs as read: ``frame`` has the columns KEYS + VALUES, ``info`` each run's ``run.json`` by (curve, seed)."""

    frame: pd.DataFrame
    info: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)  # one line each: what could not be read


def local(curves: Mapping[str, Path], variants: bool = False) -> Runs:
    """The runs on disk of ``curves``: name -> the folder that holds its ``seed<k>`` folders.

    With ``variants``, what a command line overrode beyond the experiment makes a curve of its own, named after
    its folder. A run that diverged keeps its last row for the tests that it did not reach: a network of NaNs
    stays one, and leaving it out would flatter the mean over seeds.
    """
    rows: list[dict[str, Any]] = []
    found = Runs(pd.DataFrame())
    for curve, folder in curves.items():
        for name, seed, run in _folders(curve, folder, variants):
            try:
                info, history = read_info(run), read_history(run)
            except ReproError as error:
                found.broken.append(str(error))
                continue
            if info is None:
                continue
            found.info[name, seed] = info
            if info["status"] == "diverged" and history:
                history += _held(history[-1], info["config"])
            rows += [{"curve": name, "seed": seed, "status": info["status"], **row} for row in history]
    frame = pd.DataFrame(rows, columns=KEYS + VALUES)
    found.frame = frame.astype({c: TYPES.get(c, "float64") for c in frame.columns})
    return found


def averaged(runs: Runs) -> pd.DataFrame:
    """The rows that a figure may average: of each curve, its finished runs, or if there is none its others."""
    done = runs.frame["status"].isin(FINISHED)
    curves = runs.frame["curve"]
    return runs.frame[done | ~curves.isin(curves[done].unique())]


def over_seeds(frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Mean and sample standard deviation (ddof 1) of ``y`` over the seeds, by curve and ``x``.

    Only where every seed of the curve has a row: a mean never changes the runs it is over.
    """
    seeds = frame.groupby("curve")["seed"].nunique()
    table = frame.groupby(["curve", x], sort=True)[y].agg(["mean", "std", "count"]).reset_index()
    return table[table["count"] == table["curve"].map(seeds)]


def final(frame: pd.DataFrame, y: str, tests: int = 3) -> pd.Series:
    """Mean of ``y`` over the last ``tests`` tests of each run, indexed by (curve, seed)."""
    last = frame.sort_values("iteration").groupby(["curve", "seed"]).tail(tests)
    return last.groupby(["curve", "seed"])[y].mean()


def at_share(frame: pd.DataFrame, found: Runs, curve: str, y: str, iteration: int | None) -> pd.Series:
    """``y`` of each seed of a curve at the test nearest to a paper-scale ``iteration`` (None: the run's end)."""
    rows = frame[frame["curve"] == curve]
    if rows.empty:
        return pd.Series(dtype="float64")
    scale = next(info["config"]["scale"] for (c, _), info in found.info.items() if c == curve)
    target = rows["iteration"].max() if iteration is None else iteration * scale["iterations"]
    distance = (rows["iteration"] - target).abs()
    nearest: pd.Series = rows.loc[distance.groupby(rows["seed"]).idxmin()].set_index("seed")[y]
    return nearest


def _folders(curve: str, folder: Path, variants: bool) -> list[tuple[str, int, Path]]:
    found = []
    for path in folder.glob("**/run.json" if variants else "seed*/run.json"):
        if match := re.fullmatch(r"seed(\d+)", path.parent.name):
            variant = path.parent.parent.relative_to(folder).as_posix()
            name = curve if variant == "." else f"{curve}, {variant.replace(',', ', ')}"
            found.append((name, int(match[1]), path.parent))
    return sorted(found)


def _held(last: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    every, end = config["test_every"], config["iterations"]
    tests = [*range((last["iteration"] // every + 1) * every, end, every), end]
    return [{**last, "iteration": i, "lr": None, "momentum": None} for i in tests if i > last["iteration"]]
