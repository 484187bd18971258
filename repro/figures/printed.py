"""The paper's printed curves as numbers (``conf/published``), and the distance of ours from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from repro.config.errors import ReproError


@dataclass
class Printed:
    """How ``conf/published/<figure>.csv`` was printed, and how accurately it was read."""

    tested: str = ""  # the data that the paper measured it on
    error: float = 0.0  # one standard error of a value, in its units (an accuracy as a fraction)
    smoothed: int = 1  # the number of tests in the centred mean that each value is


def load(name: str, y: str, folders: Iterable[Path]) -> pd.DataFrame:
    """The printed curves of the figure ``name``, from the first of the configuration folders that has them.

    Columns curve, iteration and ``y``, also lr if the figure is printed over it; empty if there is no print.
    Raises ReproError for a file that is not such a table.
    """
    path = next((p for f in folders if (p := f / "published" / f"{name}.csv").exists()), None)
    if path is None:
        return pd.DataFrame({"curve": pd.Series(dtype="str"), "iteration": pd.Series(dtype="int64"), y: []})
    try:
        frame = pd.read_csv(path, comment="#").astype({"curve": "str", "iteration": "int64", y: "float64"})
    except (ValueError, KeyError) as error:
        raise ReproError(f"{path}: not a table of curve, iteration and {y} ({error})") from None
    return frame.sort_values(["curve", "iteration"], ignore_index=True)


def smoothed(values: pd.Series, tests: int) -> pd.Series:
    """Centred moving mean over ``tests`` values, over fewer at both ends, as in the paper's figures."""
    mean: pd.Series = values.rolling(tests, center=True, min_periods=1).mean()
    return mean


def distance(ours: pd.Series, printed: pd.Series) -> tuple[float, int]:
    """Root mean square of ours minus the print over the iterations (the index) that both have; their number."""
    differences = (ours - printed).dropna()
    count = len(differences)
    return (float(np.sqrt((differences**2).mean())) if count else float("nan")), count
