"""The drawing of a table: a panel a group, a row a setting, published value and ours on one accuracy axis."""

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from repro.figures import claims
from repro.figures.tables import Table, as_printed, between, count, plus_minus, power

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

READING = (
    "A row a setting. Diamond: the published mean and one published standard deviation, on the band in which ours "
    "has to lie. Dot: our mean, in the colour of its verdict, with the 95 % interval of its difference from the "
    "published value, whose spread counts as that of {runs} runs; ticks: our runs.{others}"
)
OTHERS = " Cross: the mean of {source}, {runs} runs, with one standard deviation."
COLORS = {claims.REPRODUCED: "#0a6b2d", claims.NOT_REPRODUCED: "#a51d1d", claims.UNDECIDED: "#a97f00"}
BAND, PUBLISHED, OTHER = "0.9", "0.45", "#0b57a4"
MARK: dict[str, Any] = {"capsize": 0, "markersize": 4.5, "zorder": 3}
WIDTH = 11.6  # of a drawing, in inches, as all of these
ROW = 0.25
PANEL = (3.45, 2.7)  # left edge and width
COLUMNS = {
    0.1: "row",
    0.42: "LR / step or policy",
    1.55: "momentum / step",
    2.62: "WD",
    2.98: "epochs",
    6.3: "published (%)",
    7.25: "ours (runs)",
    8.6: "difference [95 %]",
    10.05: "verdict",
}


def reading(table: Table) -> str:
    """How the drawing is to be read."""
    others = OTHERS.format(**vars(table.others)) if table.others.source else ""
    return READING.format(runs=table.runs, others=others)


def draw(
    table: Table, numbers: pd.DataFrame, frame: pd.DataFrame, seeds: int, subtitle: str, scale: str
) -> "Drawing":
    """Each group a panel of rows over the accuracy; beside each row its setting, its numbers and its verdict."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    finals = claims.measured(frame, "final_accuracy")
    colors = {claims.in_words(verdict, scale): color for verdict, color in COLORS.items()}
    height = 1.15 + ROW * sum(len(group.rows) + 2.4 for group in table.groups.values())
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        drawing = plt.figure(figsize=(WIDTH, height))

        def write(x: float, y: float, text: str, **style: Any) -> None:
            drawing.text(x / WIDTH, 1 - y / height, text, **{"fontsize": 7.5, "va": "center", **style})

        write(WIDTH / 2, 0.2, table.title, fontsize=11, fontweight="bold", ha="center")
        write(WIDTH / 2, 0.45, fill(subtitle, 150), ha="center")
        for x, head in COLUMNS.items():
            write(x, 0.95, head, color="0.35")
        _key(drawing, table, height)
        top = 1.15
        for network, group in table.groups.items():
            part = numbers[(numbers["network"] == network) & (numbers["data"] == group.data)]
            title = f"{group.data}, {network}, batch {group.batch_size}"
            write(next(iter(COLUMNS)), top + ROW / 2, title, fontsize=9, fontweight="bold")
            top += ROW
            bottom = top + ROW * len(part)
            left, width = PANEL
            axes = drawing.add_axes((left / WIDTH, 1 - bottom / height, width / WIDTH, (bottom - top) / height))
            axes.set(ylim=(len(part) - 0.5, -0.5), yticks=[])
            axes.tick_params(labelsize=7, pad=1)
            for place, row in enumerate(part.to_dict("records")):
                _values(axes, place, row, finals, colors[row["verdict"]])
                for x, cell in zip(COLUMNS, _cells(row, seeds), strict=True):
                    color = colors[row["verdict"]] if cell == row["verdict"] else "black"
                    write(x, top + ROW * (place + 0.5), cell, color=color)
            top = bottom + ROW * 1.4
    plt.close(drawing)
    return drawing


def _cells(row: Mapping[Any, Any], seeds: int) -> list[str]:
    """What is written of a row under COLUMNS."""
    runs = count(row["runs"], seeds)
    return [
        *(str(row["row"]), row["lr"], row["momentum"], power(row["weight_decay"]), str(row["epochs"])),
        as_printed(row["published"], row["published_sd"]),
        f"{plus_minus(row['ours'], row['ours_sd'])} ({runs})" if row["runs"] else runs,
        between(row["difference"], row["low"], row["high"]) if row["runs"] else "",
        row["verdict"],
    ]


def _values(axes: "Axes", place: int, row: Mapping[Any, Any], finals: pd.Series, color: str) -> None:
    """The values of one row in its panel."""
    from matplotlib.patches import Rectangle

    left, width = row["published"] - row["within"], 2 * row["within"]
    axes.add_patch(Rectangle((left, place - 0.38), width, 0.76, color=BAND, zorder=0.5))
    axes.errorbar(row["published"], place - 0.15, xerr=row["published_sd"], fmt="D", color=PUBLISHED, **MARK)
    if not np.isnan(row.get("others", np.nan)):
        axes.errorbar(row["others"], place, xerr=row["others_sd"], fmt="x", color=OTHER, **MARK)
    if row["runs"]:
        half = np.nan_to_num(row["high"] - row["difference"])
        axes.errorbar(row["ours"], place + 0.15, xerr=half, fmt="o", color=color, **MARK)
        ours = finals[finals.index.get_level_values("curve") == row["curve"]]
        axes.plot(ours, [place + 0.15] * len(ours), "|", color=color, markersize=5, alpha=0.7)


def _key(drawing: "Drawing", table: Table, height: float) -> None:
    """What the marks are, above the panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def line(marker: str, color: str, label: str, **style: Any) -> Any:
        return Line2D([], [], marker=marker, color=color, label=label, **style)

    handles = [
        line("D", PUBLISHED, "published ± standard deviation"),
        Patch(color=BAND, label="where ours has to lie"),
        line("o", COLORS[claims.REPRODUCED], "ours, 95 % interval, in the verdict's colour"),
        line("|", "0.2", "each run", linestyle="none"),
    ]
    if table.others.source:
        handles.append(line("x", OTHER, f"{table.others.source} ± standard deviation"))
    place: dict[str, Any] = {"loc": "center", "bbox_to_anchor": (0.5, 1 - 0.7 / height), "ncols": len(handles)}
    drawing.legend(handles=handles, fontsize=7, frameon=False, markerscale=0.8, **place)
