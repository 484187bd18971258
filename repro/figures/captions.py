"""The text of a figure or table: labels, notes, tables and caption, shared by terminal, files and report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from repro.config.terminal import plural

if TYPE_CHECKING:
    import pandas as pd

    from repro.figures.figure import Figure
    from repro.records.runs import Runs

FINAL = "final: mean over the last 3 tests of a run; ± is the standard deviation over seeds"
PRINT = (
    "The thin lines behind ours are the curves as printed in the paper, read off the pixels of its figure "
    "(conf/published) and drawn at their real iterations, {error}{smoothed}."
)
BAND = "Mean over seeds, band of one sample standard deviation; below, the learning rate and momentum recorded."


@dataclass
class Table:
    """Rows of text under a header; ``markdown``, ``latex`` and ``page.html.jinja`` render it."""

    header: list[str]
    rows: list[list[str]]
    title: str = ""
    notes: list[str] = field(default_factory=list)  # how to read it


@dataclass
class Drawn:
    """One figure or table as drawn and judged, with its text."""

    kind: str  # "figure" or "table"
    name: str
    title: str
    reading: str  # how to read the drawing
    runs: "Runs"
    target: Path  # its files, without suffix
    subtitle: str
    commands: list[str]
    tables: list[Table]  # its results first
    judged: "pd.DataFrame"  # as returned by claims.table
    notes: list[str]  # on missing, unfinished and diverged runs
    errors: list[str]  # on runs that could not be read


def describe(
    figure_runs: "Runs", expected: Mapping[str, list[int]], names: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Legend labels with the number of seeds, and one line for each missing, unfinished or diverged curve.

    ``expected`` has each curve's seeds, in the legend's order; ``names`` the legend's names of curves.
    """
    from repro.records import FINISHED

    labels, missing = {}, []
    for curve, seeds in expected.items():
        status = {seed: info["status"] for (c, seed), info in figure_runs.info.items() if c == curve}
        finished = [s for s, state in status.items() if state in FINISHED]
        diverged = sorted(s for s, state in status.items() if state == "diverged")
        wanted = sorted({*seeds, *status})
        absent = [s for s in wanted if s not in finished]
        count = f"{len(finished)} of {len(wanted)} seeds" if absent else plural(len(finished), "seed")
        extra = f", {len(diverged)} diverged" if diverged else ""
        if status and not finished:
            extra = ", unfinished"
        labels[curve] = f"{names.get(curve, curve)} ({count}{extra})"
        for state in dict.fromkeys(status.get(seed, "missing") for seed in absent):
            missing.append(_note(curve, [s for s in absent if status.get(s, "missing") == state], state))
        if diverged:
            missing.append(_note(curve, diverged, "diverged, the last test is kept to the end"))
    return labels, missing


def note(figure_runs: "Runs") -> str:
    """What the scale changes, as recorded by the runs."""
    return " / ".join(sorted({info["config"]["scale"]["note"] for info in figure_runs.info.values()}))


def results(figure_runs: "Runs", labels: Mapping[str, str]) -> Table:
    """Each curve's final accuracy and loss: mean and standard deviation over its finished seeds."""
    from repro.figures.claims import measured

    finals = [measured(figure_runs.frame, of) for of in ("final_accuracy", "final_loss")]
    rows = [
        [
            label,
            *(
                _mean(values[values.index.get_level_values("curve") == curve], digits)
                for values, digits in zip(finals, (2, 3), strict=True)
            ),
        ]
        for curve, label in labels.items()
    ]
    return Table(["curve", "final test accuracy (%)", "final test loss"], rows, "What it shows", [FINAL])


def described_print(figure: "Figure") -> str:
    """The note on the printed curves and their accuracy."""
    error, unit = figure.printed.error, "" if figure.y.endswith("loss") else " points"
    exact = f"each to within {error if not unit else 100 * error:g}{unit} (one standard error)"
    tests = figure.printed.smoothed
    means = f"; the paper prints centred means of {tests} tests, ours are single tests" if tests > 1 else ""
    return PRINT.format(error=exact, smoothed=means)


def beside(figure_runs: "Runs", figure: "Figure", scale: str, printed: "pd.DataFrame | None" = None) -> Table:
    """Our results beside the published ones: the printed curves, then single published values.

    A printed curve is compared by the same summary as ours (its final value, or the figure's ``summary``), the
    difference, and the root mean square distance over the tests that both have. A single value is compared with
    ours at the same iteration of the protocol.
    """
    from repro.records.averages import at, averaged

    rows = [] if printed is None else _beside_print(figure_runs, figure, printed)
    frame = averaged(figure_runs)
    for value in figure.published:
        unit, digits = (100.0, 2) if value.y.endswith("accuracy") else (1.0, 3)
        error = "" if value.error is None else f" ± {value.error:g}"
        end = "the end" if value.iteration is None else f"{value.iteration:,} iterations"
        values = unit * at(frame, figure_runs, value.curve, value.y, value.iteration)
        cells = [f"{value.value:g}{error}", *_compared(values, value.value, digits), ""]
        rows.append([value.curve, end, *cells, value.tested, value.source])
    header = ["curve", "at", "published", f"ours, {scale} scale", "difference", "rms distance along the curve"]
    return Table([*header, "published on", "source"], rows, "Ours beside the published")


def _beside_print(figure_runs: "Runs", figure: "Figure", printed: "pd.DataFrame") -> list[list[str]]:
    from repro.figures.claims import measured, measured_in_print
    from repro.figures.printed import distance, smoothed
    from repro.records.averages import averaged, over_seeds, own_iteration

    rows = []
    for y in figure.measures:
        accuracy = y.endswith("accuracy")
        unit, digits = (100.0, 2) if accuracy else (1.0, 3)
        summary, lr = "final_accuracy" if accuracy else "final_loss", None
        summary_name = "the end: mean of the last 3 tests"
        if figure.summary:
            summary, lr = figure.summary.of, figure.summary.lr
            summary_name = summary.replace("_", " ")
            summary_name += f" of the tests from LR {lr[0]:g} to {lr[1]:g}" if lr else ""
        if figure.also:
            summary_name += ", accuracy" if accuracy else ", loss"
        printed_summary = measured_in_print(printed, figure.printed, summary, lr)
        ours = measured(figure_runs.frame, summary, lr)
        means = over_seeds(averaged(figure_runs), "iteration", y)
        for curve in dict.fromkeys([*figure.curves, *printed["curve"]]):
            part = printed[printed["curve"] == curve]
            if part.empty:
                continue
            index = [own_iteration(figure_runs, curve, int(i)) for i in part["iteration"]]
            means_of_curve = means[means["curve"] == curve].set_index("iteration")["mean"]
            away, tests = distance(smoothed(means_of_curve, figure.printed.smoothed), part.set_index([index])[y])
            along = f"{unit * away:.{digits}f} over {plural(tests, 'test')}" if tests else "-"
            value = float(printed_summary[curve, 0])
            own = ours[ours.index.get_level_values("curve") == curve]
            cells = [f"{value:.{digits}f}", *_compared(own, value, digits), along]
            rows.append([curve, summary_name, *cells, figure.printed.tested, "print"])
    return rows


def _compared(ours: "pd.Series", published: float, digits: int) -> list[str]:
    """Ours with its spread, and how far its mean lies from the published value."""
    return [_mean(ours, digits), "-" if ours.empty else f"{ours.mean() - published:+.{digits}f}"]


def verdicts(judged: "pd.DataFrame") -> Table:
    """The claims: what the paper's text says, the verdict, and the findings behind it."""
    from repro.figures.claims import interval

    rows = []
    for claim, part in judged.groupby("claim", sort=False):
        for number, row in enumerate(part.to_dict("records")):
            head = [str(claim), row["says"], row["verdict"]] if number == 0 else ["", "", ""]
            rows.append(
                [
                    *head,
                    row["rule"],
                    interval(row["estimate"], row["low"], row["high"]),
                    row["seeds"],
                    row["finding"],
                ]
            )
    header = ["claim", "the text says", "verdict", "rule", "ours, with 95 % interval", "runs", "finding"]
    return Table(header, rows, "Claims")


def described(drawn: Drawn) -> list[str]:
    """The tables and notes of a figure, as lines that suit both a terminal and Markdown."""
    lines = []
    for table in drawn.tables:
        for block in (markdown(table), *([note] for note in table.notes)):
            lines += [*block, ""]
    return lines + drawn.notes


def caption(drawn: Drawn) -> str:
    """The text of the caption file: what the figure shows, and the commands that reproduce it."""
    head = [f"# {drawn.title}", "", drawn.subtitle, "", drawn.reading, "", "```", *drawn.commands, "```", ""]
    return "\n".join([*head, *described(drawn)]).rstrip() + "\n"


def markdown(table: Table) -> list[str]:
    """The lines of a Markdown table, its columns aligned."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


LATEX = str.maketrans(
    {c: f"\\{c}" for c in "%&_#${}"}
    | {"±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"<": "$<$", ">": "$>$"}
)


def latex(table: Table) -> str:
    """The table as LaTeX's tabular, in the rules of the package booktabs."""
    header, *rows = (" & ".join(cell.translate(LATEX) for cell in row) for row in (table.header, *table.rows))
    lines = ["% needs \\usepackage{booktabs}", rf"\begin{{tabular}}{{{'l' * len(table.header)}}}", r"\toprule"]
    lines += [rf"{header} \\", r"\midrule", *(rf"{row} \\" for row in rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _mean(seeds: "pd.Series", digits: int = 2) -> str:
    if seeds.empty:
        return "-"
    return f"{seeds.mean():.{digits}f}" + (f" ± {seeds.std():.{digits}f}" if len(seeds) > 1 else "")


def _note(curve: str, seeds: list[int], state: str) -> str:
    return f"note: {curve} {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}: {state}"
