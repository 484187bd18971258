"""The schema of a figure (``conf/figure``)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from omegaconf import MISSING

from repro.config.errors import ReproError
from repro.figures.claims import Claim, Summary, require_measure, require_rules
from repro.figures.printed import Printed

NAMES = {"test_loss": "test loss", "test_accuracy": "test accuracy, as a fraction"}
AXES: dict[str, list[str | None]] = {
    "x": ["iteration", "lr", "momentum", "share"],
    "y": [*NAMES, "train_loss"],
    "also": [None, *NAMES],
    "yscale": ["linear", "log"],
}
DOTS = {"marker": "o", "markersize": 3.5, "markeredgewidth": 0.0}  # markers of a second measure


@dataclass
class Published:
    """A published number, as printed: an accuracy is in per cent."""

    curve: str = MISSING
    value: float = MISSING
    error: float | None = None  # the published or implied standard error or deviation
    iteration: int | None = None  # null is the end of the run
    y: str = "test_accuracy"
    tested: str = ""  # the data that it was measured on
    source: str = MISSING


@dataclass
class Figure:
    """The content of ``conf/figure/<name>.yaml``."""

    title: str = MISSING
    experiments: str = MISSING  # the folder of conf/experiment whose curves are drawn
    x: str = "iteration"  # or lr, momentum, or share (of the run)
    y: str = "test_accuracy"
    also: str | None = None  # a second measure on the same axis; an accuracy is a fraction there
    xlabel: str = "Iteration"
    ylabel: str = "Test accuracy (%)"
    yscale: str = "linear"
    ylim: list[float] | None = None
    curves: dict[str, str] = field(default_factory=dict)  # name -> label, in the legend's order
    published: list[Published] = field(default_factory=list)
    printed: Printed = field(default_factory=Printed)  # of the curves in conf/published/<name>.csv
    summary: Summary | None = None  # the measure that compares a curve with its print; null: the final ``y``
    logs: dict[str, str] = field(default_factory=dict)  # curve -> the author's log, in a clone of his repository
    claims: dict[str, Claim] = field(default_factory=dict)

    @property
    def measures(self) -> dict[str, dict[str, Any]]:
        """The measures on the main axis, ``y`` and ``also`` if set, with the marker style of their lines."""
        return {self.y: {}} | ({self.also: DOTS} if self.also else {})


def require_drawable(figure: Figure, prefix: str) -> None:
    """Raise ReproError, naming the key after ``prefix``, for an axis, claim or summary that cannot be drawn."""
    for key, choices in AXES.items():
        if (value := getattr(figure, key)) not in choices:
            raise ReproError(f"{prefix}.{key}={value}: choose from {', '.join(filter(None, choices))}")
    limits = figure.ylim
    if limits is not None and not (len(limits) == 2 and np.isfinite(limits).all() and limits[0] < limits[1]):
        raise ReproError(f"{prefix}.ylim={limits}: give two finite numbers, the lower end first")
    require_rules(figure.claims, prefix)
    if figure.summary:
        require_measure(figure.summary.of, figure.summary.lr, f"{prefix}.summary.")
