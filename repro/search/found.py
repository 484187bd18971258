"""What a search concludes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from repro.search.runs import Base, Run, momentum_words

CURVE_COLUMNS = ["setting", "seed", "iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy"]


@dataclass
class Found:
    """What a method concludes."""

    method: str
    overrides: list[str]  # of repro.train, on top of the base's: a whole run; none where nothing is suggested
    chosen: dict[str, Any]  # name -> value, as they are told
    why: str
    notes: list[str]  # what is uncertain, a line each
    tried: pd.DataFrame  # a row a setting and seed
    curves: pd.DataFrame  # CURVE_COLUMNS: what is drawn
    runs: list[Run]  # every one that was trained
    x: str = "iteration"  # of the drawing
    marks: dict[str, float] = field(default_factory=dict)  # name -> where a line is drawn
    band: tuple[float, float] | None = None  # of the marked value, over the seeds
    parts: list["Found"] = field(default_factory=list)  # of a recipe: its searches
    base: Base | None = None  # where it is another than the command line's: that of a larger batch
    files: list[Path] = field(default_factory=list)
    command: str | None = None  # that trains what is suggested

    @property
    def cost(self) -> str:
        """Runs, epochs and time of all of them together."""
        seconds = sum(run.info.get("wall_seconds", 0.0) for run in self.runs)
        epochs = sum(run.epochs for run in self.runs)
        return f"{len(self.runs)} runs, {epochs:,.4g} epochs, {seconds / 60:,.1f} min of training"


def curves_of(runs: Sequence[tuple[str, Run]]) -> pd.DataFrame:
    """The rows of runs, each with the name of its setting."""
    frames = [run.rows.assign(setting=name, seed=run.config.seed) for name, run in runs]
    return pd.concat(frames, ignore_index=True)[CURVE_COLUMNS] if frames else pd.DataFrame(columns=CURVE_COLUMNS)


def finals_of(runs: Sequence[tuple[str, Run]]) -> pd.DataFrame:
    """A row a run, with the name of its setting: how it ended."""
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
    """A chosen value in words: a list is a momentum."""
    if isinstance(value, list):
        return momentum_words(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
