"""The drawing of a figure."""

import itertools
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from repro import schedules
from repro.figures.figure import NAMES, Figure
from repro.records.averages import averaged, config_of, over_seeds, own_iteration
from repro.records.files import write_whole
from repro.records.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Drawing

PRINT_WIDTH = 0.8  # line width of the paper's curves
DASHES: list[Any] = ["", (4, 1.5), (1, 1), (3, 1.25, 1.5, 1.25), (5, 1, 1, 1), (5, 1, 2, 1, 2, 1)]


def draw(
    figure_runs: Runs,
    labels: Mapping[str, str],
    figure: Figure,
    subtitle: str,
    references: Mapping[str, pd.DataFrame],
    printed: pd.DataFrame | None = None,
    published: bool = False,
) -> "Drawing":
    """Mean over seeds with a band of one standard deviation; LR and momentum in two small panels below.

    A second measure (``figure.also``) has the colour and dashes of its curve, and dots.

    ``labels`` are the legend's, in its order, of every curve. ``references`` are the author's logged curves, thin
    over ours. ``printed`` are the paper's printed curves, thin behind ours in their colour and dashes;
    ``published`` marks the figure's published values too.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    frame = placed(averaged(figure_runs), figure_runs, figure.x)
    drawn = [curve for curve in labels if curve in set(frame["curve"])]
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        drawing, (main, lr_axes, momentum_axes) = plt.subplots(
            3, 1, sharex=True, figsize=(6.4, 5.6), height_ratios=[6, 1, 1], layout="constrained"
        )
        palette = dict(zip(labels, sns.color_palette("colorblind", len(labels)), strict=True))
        dashes = dict(zip(labels, itertools.cycle(DASHES), strict=False))
        style: dict[str, Any] = {"hue": "curve", "style": "curve", "hue_order": drawn, "style_order": drawn}
        style |= {"palette": palette, "dashes": dashes}
        lines = {"x": figure.x, "estimator": None, "errorbar": None, "legend": False, **style}
        heights, highest_start = _draw_ours(main, frame, drawn, figure, lines)
        protocol = frame.dropna(subset="lr").drop_duplicates(["curve", "iteration"])
        sns.lineplot(protocol, y="lr", ax=lr_axes, **lines)
        sns.lineplot(protocol, y="momentum", ax=momentum_axes, **lines)
        in_print: set[str] = set()
        for curve in labels:
            part = frame.iloc[:0] if printed is None else printed[printed["curve"] == curve]
            if len(part):
                in_print.add(curve)
                x = _x(part["iteration"], figure_runs, curve, figure.x)
                for y in figure.measures:
                    main.plot(x, part[y], **_print_style(palette[curve], dashes[curve]))
                    heights.append(part[y])
        for curve, reference in references.items():
            tested = reference.dropna(subset=figure.y)
            x = _x(tested["iteration"], figure_runs, curve, figure.x)
            main.plot(x, tested[figure.y], color=palette[curve], linewidth=0.7, alpha=0.9)
        handles = [
            _legend_line(
                palette[curve], fill(label, 48), **_legend_style(curve in drawn, curve in in_print, dashes[curve])
            )
            for curve, label in labels.items()
        ]
        if figure.also:
            for y, dots in figure.measures.items():
                handles.append(_legend_line("0.4", f"{'with dots' if dots else 'plain'}: {NAMES[y]}", **dots))
        if in_print:
            label = "the paper's print: thin, same colour and dashes"
            handles.append(_legend_line("0.4", label, linewidth=PRINT_WIDTH))
        if references:
            handles.append(_legend_line("0.4", "the author's log: thin and solid, same colour", linewidth=0.7))
        if published and _draw_published(main, figure_runs, figure, palette):
            handles.append(_legend_line("0.4", "published, of the same colour", linestyle="none", marker="D"))
        main.legend(handles=handles, fontsize=8, handlelength=3)
        if figure.yscale == "log":
            _logarithmic(main, pd.concat(heights), highest_start)
        _label_axes(main, lr_axes, momentum_axes, figure)
        if figure.x in ("lr", "momentum"):
            _iterations_on_top(main, protocol, figure.x)
        drawing.align_ylabels()
        drawing.suptitle(figure.title, fontsize=11, fontweight="bold")
        main.set_title(fill(subtitle, 110), fontsize=7.5)
        drawing.draw_without_rendering()
        drawing.set_layout_engine("none")  # laid out once, not for every format
    plt.close(drawing)
    return drawing


def _draw_ours(
    main: "Axes", frame: pd.DataFrame, drawn: list[str], figure: Figure, lines: dict[str, Any]
) -> tuple[list[pd.Series], float]:
    """Draw mean and band of every curve; returns the means of each measure, and the highest first mean."""
    import seaborn as sns

    heights, starts = [], []
    for y, dots in figure.measures.items():
        summary = over_seeds(frame, figure.x, y)
        sns.lineplot(summary, y="mean", ax=main, **lines, **dots)
        for curve in drawn:
            part = summary[summary["curve"] == curve]
            low, high = part["mean"] - part["std"], part["mean"] + part["std"]
            low = low.clip(lower=part["mean"] / 100)  # a logarithmic axis has no zero
            main.fill_between(part[figure.x], low, high, color=lines["palette"][curve], alpha=0.2, linewidth=0)
        heights.append(summary["mean"])
        starts.append(summary.sort_values(figure.x).groupby("curve")["mean"].first())
    return heights, float(pd.concat(starts).max())


def _label_axes(main: "Axes", lr_axes: "Axes", momentum_axes: "Axes", figure: Figure) -> None:
    if figure.y.endswith("accuracy") and not figure.also:
        main.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    if figure.ylim:
        main.set_ylim(*figure.ylim)
    main.set(ylabel=figure.ylabel, xlabel="")
    lr_axes.set(ylabel="LR", xlabel="")
    momentum_axes.set(ylabel="Momentum", xlabel=figure.xlabel)
    if figure.x == "iteration":
        _count_iterations(momentum_axes.xaxis)


def _count_iterations(axis: "Axis") -> None:
    """Label an axis at whole iterations."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))  # its own, but for integer
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def save(drawing: "Drawing", target: Path, formats: list[str]) -> None:
    """Write the drawing as ``target``.<format>; the same drawing gives the same bytes."""
    import matplotlib.pyplot as plt

    target.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "repro"}):
        for kind in formats:
            metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
            write = partial(drawing.savefig, format=kind, dpi=160, metadata=metadata)
            write_whole(Path(f"{target}.{kind}"), write)


def placed(frame: pd.DataFrame, figure_runs: Runs, x: str) -> pd.DataFrame:
    """The frame with the column ``x`` of the figure's x axis: "share" is the iteration over the run's length."""
    if x != "share":
        return frame
    length = {curve: info["config"]["iterations"] for (curve, _), info in figure_runs.info.items()}
    return frame.assign(share=frame["iteration"] / frame["curve"].map(length))


def _print_style(color: Any, dashes: Any) -> dict[str, Any]:
    """The line style of a printed curve: behind our line, over our band."""
    style = {"dashes": dashes} if dashes else {"linestyle": "-"}
    return {"color": color, "linewidth": PRINT_WIDTH, "alpha": 0.8, "zorder": 1.6, **style}


def _legend_style(drawn: bool, in_print: bool, dashes: Any) -> dict[str, Any]:
    """The style of a curve's line in the legend: ours if drawn, else the print's, else no line."""
    if not (drawn or in_print):
        return {"linestyle": "none"}
    return ({"dashes": dashes} if dashes else {}) | ({} if drawn else {"linewidth": PRINT_WIDTH})


def _legend_line(color: Any, label: str, **style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, label=label, **{"markersize": 4, **style})


def _draw_published(axes: "Axes", figure_runs: Runs, figure: Figure, palette: Mapping[str, Any]) -> int:
    """Draw published values with their errors, at the matching x of our runs; returns how many."""
    count = 0
    for value in figure.published:
        if value.y != figure.y or config_of(figure_runs, value.curve) is None:
            continue
        unit = 100.0 if value.y.endswith("accuracy") else 1.0
        axes.errorbar(
            _x([value.iteration], figure_runs, value.curve, figure.x),
            [value.value / unit],
            yerr=None if value.error is None else [value.error / unit],
            fmt="D",
            markersize=4,
            capsize=3,
            color=palette[value.curve],
            markeredgecolor="black",
            clip_on=False,
        )
        count += 1
    return count


def _x(iterations: Iterable[int | None], figure_runs: Runs, curve: str, x: str) -> "np.ndarray":
    """Paper-scale iterations (None: the end) as values on the x axis of a curve; NaN outside it.

    For LR and momentum, by the schedule of the curve's runs, or of another curve's if it has none.
    """
    scaled = np.array([own_iteration(figure_runs, curve, iteration) for iteration in iterations])
    if x == "iteration":
        return scaled
    if x == "share":
        return scaled / own_iteration(figure_runs, curve, None)
    config = config_of(figure_runs, curve) or next(iter(figure_runs.info.values()))["config"]
    schedule = schedules.build(config["schedule"]["lr"], config["schedule"]["momentum"])
    column = ("lr", "momentum").index(x)

    def value(i: float) -> float:  # between two iterations, as at a small scale, on the line through both
        before, part = int(i), i - int(i)
        first = schedule(before)[column]
        return first if not part else (1 - part) * first + part * schedule(before + 1)[column]

    inside = [round(i, 6) if i <= config["iterations"] else np.nan for i in scaled]
    return np.array([i if np.isnan(i) else value(float(i)) for i in inside])


def _logarithmic(axes: "Axes", means: pd.Series, start: float) -> None:
    """Set a logarithmic y axis around the means, with plain numbers at 1, 2 and 5.

    It ends at ten times their median, or at ``start``, the highest first mean: diverged curves leave it.
    """
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.set_ylim(0.7 * means.min(), 1.5 * min(means.max(), max(10 * means.median(), start)))
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")


def _iterations_on_top(axes: "Axes", protocol: pd.DataFrame, x: str) -> None:
    """Add a second axis of iterations, for an ``x`` that is the same linear function of them in every curve."""
    axis = protocol.drop_duplicates("iteration").sort_values("iteration")
    if len(axis) < 2:
        return  # no line yet
    slope, start = np.polyfit(axis[x], axis["iteration"], 1)
    top = axes.secondary_xaxis("top", functions=(lambda v: slope * v + start, lambda i: (i - start) / slope))
    top.set_xlabel("Iteration")
    _count_iterations(top.xaxis)
