"""A table of the paper: its schema (``conf/table``), ours beside its values, and the drawing of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import MISSING

from repro.figures import captions, claims
from repro.figures.claims import Claim, Rule

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


@dataclass
class Row:
    """A setting as printed, and what was published of it: an accuracy in per cent, mean and standard deviation."""

    lr: str = MISSING  # or base and policy; with the step size in epochs
    momentum: str = MISSING
    weight_decay: float = MISSING
    epochs: int = MISSING
    value: float = MISSING
    spread: float = MISSING
    other: float | None = None  # what others measured
    other_spread: float | None = None


@dataclass
class Group:
    """The rows of one network on one data set, by the name of their experiment."""

    data: str = MISSING
    batch_size: int = MISSING
    experiments: str = MISSING  # the folder of conf/experiment that the rows are in
    within: float | None = None  # instead of the table's
    rows: dict[str, Row] = field(default_factory=dict)


@dataclass
class Others:
    """Whose attempt the rows are held against too, and how many runs a row it has."""

    source: str = ""
    runs: int = 5


@dataclass
class Table:
    """What is published, ours beside it: ``conf/table/<name>.yaml``.

    A row's claim is that its final accuracy is within ``within`` points of the published value, or within
    ``spreads`` published standard deviations where that is more.
    """

    title: str = MISSING
    tested: str = ""  # what the paper measured it on
    runs: int = 4  # that a published value is the mean of
    within: float = 0.5
    spreads: float = 2.0
    others: Others = field(default_factory=Others)
    groups: dict[str, Group] = field(default_factory=dict)  # by network
    notes: list[str] = field(default_factory=list)
    claims: dict[str, Claim] = field(default_factory=dict)  # besides those of the rows


def rows(table: Table) -> Iterator[tuple[str, str, Group, Row]]:
    """Every row in order: its curve (<figure>/<curve> of conf/experiment), network, group and setting."""
    for network, group in table.groups.items():
        for name, row in group.rows.items():
            yield f"{group.experiments}/{name}", network, group, row


def all_claims(table: Table) -> dict[str, Claim]:
    """The table's claims, then a claim a row: "row 1", "row 2" and so on."""
    by_name = dict(table.claims)
    for number, (curve, network, group, row) in enumerate(rows(table), start=1):
        margin = max(table.within if group.within is None else group.within, table.spreads * row.spread)
        rule = Rule(curve=curve, within=margin, around=row.value, spread=row.spread, runs=table.runs)
        setting = f"{network}, LR {row.lr}, momentum {row.momentum}, {row.epochs} epochs"
        by_name[f"row {number}"] = Claim(f"{setting}: {as_printed(row.value, row.spread)}", [rule])
    return by_name


def beside(table: Table, judged: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """A row a setting in numbers, accuracies in points: what is published, ours, their difference, the verdict.

    ``judged`` is ``claims.table`` of ``all_claims``, of the runs in ``frame``. ``low`` and ``high`` are the ends
    of the difference's 95 % interval. What is not there is NaN.
    """
    finals = claims.measured(frame, "final_accuracy")
    findings, by_name = judged.set_index("claim"), all_claims(table)
    made = []
    for number, (curve, network, group, row) in enumerate(rows(table), start=1):
        finding = findings.loc[f"row {number}"]
        ours = finals[finals.index.get_level_values("curve") == curve]
        values = {
            "row": number,
            "curve": curve,
            "data": group.data,
            "network": network,
            **{key: getattr(row, key) for key in ("lr", "momentum", "weight_decay")},
            "batch_size": group.batch_size,
            "epochs": row.epochs,
            "published": row.value,
            "published_sd": row.spread,
            "ours": ours.mean(),
            "ours_sd": ours.std(),
            "runs": len(ours),
            "difference": finding["estimate"] - row.value,
            "low": finding["low"] - row.value,
            "high": finding["high"] - row.value,
            "within": by_name[f"row {number}"].rules[0].within,
            "verdict": finding["verdict"],
        }
        if table.others.source:
            values |= _others(ours.to_numpy(), row, table.others.runs)
        made.append(values)
    return pd.DataFrame(made)


def _others(ours: "np.ndarray", row: Row, runs: int) -> dict[str, float]:
    other = np.nan if row.other is None else row.other
    difference = ours.mean() - other if len(ours) else np.nan
    width = claims.half_width([ours, claims.sample_of(other, row.other_spread or 0.0, runs)])
    return {
        "others": other,
        "others_sd": np.nan if row.other_spread is None else row.other_spread,
        "minus_others": difference,
        "minus_others_low": difference - width,
        "minus_others_high": difference + width,
    }


def as_text(table: Table, numbers: pd.DataFrame, seeds: int, scale: str) -> captions.Table:
    """The table to be read: ``beside`` in words, with the notes that go with it."""
    cells = []
    for row in numbers.to_dict("records"):
        cells.append(
            [
                str(row["row"]),
                f"{row['data']}, {row['network']}",
                row["lr"],
                row["momentum"],
                power(row["weight_decay"]),
                f"{row['batch_size']} / {row['epochs']}",
                as_printed(row["published"], row["published_sd"]),
                plus_minus(row["ours"], row["ours_sd"]),
                count(row["runs"], seeds),
                between(row["difference"], row["low"], row["high"]),
                f"{row['within']:g}",
                row["verdict"],
            ]
        )
        if table.others.source:
            difference = between(row["minus_others"], row["minus_others_low"], row["minus_others_high"])
            cells[-1] += [plus_minus(row["others"], row["others_sd"]), difference]
    header = ["row", "network", "LR / step or policy", "momentum / step", "WD", "batch / epochs", "published (%)"]
    header += [f"ours, {scale} scale", "runs", "difference", "limit", "verdict"]
    notes = [
        f"{captions.FINAL}. difference: ours minus the published value, with its 95 % interval, in which the "
        f"published spread counts as that of {table.runs} runs. limit: the row's claim, {table.within:g} points "
        f"(or its group's) or {table.spreads:g} published standard deviations where that is more. The paper tests "
        f"on {table.tested}, ours are on all of them."
    ]
    if table.others.source:
        header += ["others", "ours minus others"]
        notes.append(f"others: {table.others.source}, {table.others.runs} runs a row.")
    return captions.Table(header, cells, "Ours beside the published", notes + table.notes)


def reading(table: Table) -> str:
    """How the drawing is to be read."""
    others = OTHERS.format(**vars(table.others)) if table.others.source else ""
    return READING.format(runs=table.runs, others=others)


def power(value: float) -> str:
    """A small number as the paper prints it: 3e-3."""
    return f"{value:.0e}".replace("e-0", "e-")


def as_printed(value: float, spread: float) -> str:
    """A published value with the decimals of its spread."""
    decimals = len(f"{spread}".partition(".")[2])
    return f"{value:.{decimals}f} ± {spread}"


def plus_minus(mean: float, sd: float) -> str:
    """A mean with its standard deviation, "-" where there is none."""
    return "-" if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(sd) else f" ± {sd:.2f}")


def between(value: float, low: float, high: float) -> str:
    """A difference with its interval, "-" where there is none."""
    return "-" if np.isnan(value) else f"{value:+.2f}" + ("" if np.isnan(low) else f" [{low:+.2f}, {high:+.2f}]")


def count(runs: int, seeds: int) -> str:
    """How many runs there are of those that there should be."""
    return "not run" if runs == 0 else str(runs) if runs >= seeds else f"{runs} of {seeds}"


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


BAND, PUBLISHED, OTHER = "0.9", "0.45", "#0b57a4"
MARK: dict[str, Any] = {"capsize": 0, "markersize": 4.5, "zorder": 3}


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
