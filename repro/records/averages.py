"""What a figure takes from a frame of runs: means over seeds, final values, values at an iteration."""

from typing import Any

import pandas as pd

from repro.records.runs import Runs
from repro.records.types import FINISHED


def averaged(runs: Runs) -> pd.DataFrame:
    """The rows that a figure averages: the finished runs of each curve, or all of its runs if none finished."""
    is_finished = runs.frame["status"].isin(FINISHED)
    curves = runs.frame["curve"]
    return runs.frame[is_finished | ~curves.isin(curves[is_finished].unique())]


def over_seeds(frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Mean and sample standard deviation (ddof 1) of ``y`` over the seeds, by curve and ``x``.

    Only at values of ``x`` where every seed of the curve has a row, so that all means of a curve average the same
    runs. Columns: curve, ``x``, mean, std, count.
    """
    seeds = frame.groupby("curve")["seed"].nunique()
    table = frame.groupby(["curve", x], sort=True)[y].agg(["mean", "std", "count"]).reset_index()
    return table[table["count"] == table["curve"].map(seeds)]


def final(frame: pd.DataFrame, y: str, tests: int = 3) -> pd.Series:
    """Mean of ``y`` over the last ``tests`` tests of each run, indexed by (curve, seed)."""
    last = frame.sort_values("iteration").groupby(["curve", "seed"]).tail(tests)
    return last.groupby(["curve", "seed"])[y].mean()


def config_of(loaded: Runs, curve: str) -> dict[str, Any] | None:
    """The configuration of the curve's first run, finished or not; None if it has no run."""
    return next((info["config"] for (c, _), info in loaded.info.items() if c == curve), None)


def own_iteration(loaded: Runs, curve: str, iteration: int | None) -> float:
    """A paper-scale ``iteration`` (None: the end) converted to the scale of the curve's runs, finished or not.

    If the curve has no run, the scale of another curve's run is used, and the end is NaN.
    """
    config = config_of(loaded, curve)
    if iteration is None:
        return float("nan") if config is None else float(config["iterations"])
    return float(iteration * (config or next(iter(loaded.info.values()))["config"])["scale"]["iterations"])


def at(frame: pd.DataFrame, loaded: Runs, curve: str, y: str, iteration: int | None) -> pd.Series:
    """``y`` by seed at a paper-scale ``iteration`` (None: the end): each run's nearest test, if it reached it."""
    rows = frame[frame["curve"] == curve]
    if rows.empty:
        return pd.Series(dtype="float64")
    target = own_iteration(loaded, curve, iteration)
    rows = rows[rows.groupby("seed")["iteration"].transform("max") >= target]
    distance = (rows["iteration"] - target).abs()
    nearest: pd.Series = rows.loc[distance.groupby(rows["seed"]).idxmin()].set_index("seed")[y]
    return nearest
