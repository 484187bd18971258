"""A table of the paper: its schema (``conf/table``), its claims, and our values beside the published ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from omegaconf import MISSING

from repro.figures import captions, claims
from repro.figures.claims import Claim, Rule


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


def power(value: float) -> str:
    """A small number as the paper prints it: 3e-3, 3.2e-4."""
    digits, exponent = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}" if value else "0"


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
