"""The drawing of a search: test loss and accuracy of its runs over LR, momentum or iteration."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.figures.drawing import DASHES
from repro.figures.drawing import save as save_drawing
from repro.search.found import Found
from repro.search.suggestion import smooth

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LABELS = {"lr": "Learning rate", "momentum": "Momentum", "iteration": "Iteration"}
TITLES = {
    "lr_range": "LR range test",
    "momentum": "Short 1cycle runs by momentum",
    "weight_decay": "Range tests by weight decay",
    "dropout": "Range tests by dropout",
    "batch_size": "Range test at the largest batch",
    "recipe": "What was found beside the defaults",
}


def save(found: Found, target: Path) -> None:
    """Write ``<target>.png`` and ``.svg``. Raises OSError."""
    save_drawing(draw(found), target, ["png", "svg"])


def draw(found: Found) -> "Drawing":
    """Test loss and accuracy over LR, momentum or iteration: for each run its tests, and a smoothed line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    curves = found.curves
    settings = list(dict.fromkeys(curves["setting"]))
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        drawing, (top, bottom) = plt.subplots(
            2, 1, sharex=True, figsize=(6.4, 5.0), height_ratios=[3, 2], layout="constrained"
        )
        palette = sns.color_palette("colorblind", max(1, len(settings)))
        for setting, color, dashes in zip(settings, palette, itertools.cycle(DASHES), strict=False):
            style: dict[str, Any] = {"color": color, "linewidth": 1.3, **({"dashes": dashes} if dashes else {})}
            for seed, rows in curves[curves["setting"] == setting].groupby("seed"):
                rows = rows.dropna(subset=["test_loss"])
                label = setting if seed == curves["seed"].min() else None
                top.plot(rows[found.x], rows["test_loss"], ".", color=color, markersize=2, alpha=0.6)
                level = np.exp(smooth(np.log(rows["test_loss"].clip(lower=1e-6).to_numpy())))
                top.plot(rows[found.x], level, label=label or None, **style)
                bottom.plot(rows[found.x], 100 * rows["test_accuracy"], **style)
        for name, x in found.marks.items():
            for axes in (top, bottom):
                axes.axvline(x, color="0.3", linewidth=1, linestyle=(0, (4, 2)))
            top.annotate(f" {name} {x:.3g}", (x, 0.97), xycoords=("data", "axes fraction"), va="top")
        if found.band and found.band[1] > found.band[0]:
            top.axvspan(*found.band, color="0.5", alpha=0.15, linewidth=0)
        _set_loss_limits(top, curves["test_loss"].dropna().to_numpy())
        if found.x == "lr" and len(curves) and _is_exponential(curves["lr"].to_numpy()):
            top.set_xscale("log")
        top.set_ylabel("Test loss")
        bottom.set_ylabel("Test accuracy (%)")
        bottom.set_xlabel(LABELS[found.x])
        top.set_title(TITLES.get(found.method, found.method))
        if settings != [""]:
            top.legend(fontsize=8, handlelength=3)
    return drawing


def _set_loss_limits(axes: Any, loss: np.ndarray) -> None:
    """Set a logarithmic y axis whose limits ignore diverged losses."""
    positive = loss[np.isfinite(loss) & (loss > 0)]
    if len(positive):
        axes.set_yscale("log")
        axes.set_ylim(0.8 * positive.min(), min(1.3 * positive.max(), 10 * np.median(positive)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")


def _is_exponential(lr: np.ndarray) -> bool:
    values = np.unique(lr)
    return len(values) > 4 and bool(np.median(values) < values.max() / 5)
