"""The result of a search."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from repro.config.terminal import plural
from repro.search.runs import Base, Run, momentum_words

CURVE_COLUMNS = ["setting", "seed", "iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy"]


@dataclass
class Found:
    """The result of a method."""

    method: str
    overrides: list[str]  # the suggested run, as overrides of the base for repro.train; empty without a suggestion
    chosen: dict[str, Any]  # name -> value, as printed
    why: str
    notes: list[str]  # uncertainties, one line each
    tried: pd.DataFrame  # one row per setting and seed
    curves: pd.DataFrame  # CURVE_COLUMNS, for the drawing
    runs: list[Run]  # all trained runs
    x: str = "iteration"  # of the drawing
    marks: dict[str, float] = field(default_factory=dict)  # name -> x of a vertical line
    band: tuple[float, float] | None = None  # range of the marked value over the seeds
    parts: list["Found"] = field(default_factory=list)  # of a recipe: the results of its searches
    base: Base | None = None  # if it is not the command line's: that of a larger batch
    files: list[Path] = field(default_factory=list)
    search: str = ""  # the command of the search
    command: str | None = None  # trains the suggested run

    @property
    def cost(self) -> str:
        """The number of runs, and their total epochs and time."""
        seconds = sum(run.info.get("wall_seconds", 0.0) for run in self.runs)
        epochs = sum(run.epochs for run in self.runs)
        return f"{plural(len(self.runs), 'run')}, {epochs:,.4g} epochs, {seconds / 60:,.1f} min of training"


def curves_of(runs: Sequence[tuple[str, Run]]) -> pd.DataFrame:
    """The rows of named runs, with the columns CURVE_COLUMNS."""
    frames = [run.rows.assign(setting=name, seed=run.config.seed) for name, run in runs]
    return pd.concat(frames, ignore_index=True)[CURVE_COLUMNS] if frames else pd.DataFrame(columns=CURVE_COLUMNS)


def finals_of(runs: Sequence[tuple[str, Run]]) -> pd.DataFrame:
    """One row per named run: its setting, seed, status, final loss and final accuracy."""
    rows = [
        {
            "setting": name,
            "seed": run.config.seed,
            "status": run.info["status"],
            "final_loss": run.final("test_loss"),
            "final_accuracy": run.final("test_accuracy"),
        }
        for name, run in runs
    ]
    return pd.DataFrame(rows)


def in_words(value: Any) -> str:
    """A chosen value as text; a list is a momentum."""
    if isinstance(value, list):
        return momentum_words(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
