"""Tables: the published values as data, ours beside them with the interval of the difference, the verdict, the files."""

import re

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scipy import stats
from test_claims import frame, points
from test_figures import write_run

import repro
from repro import schedules
from repro.config.folders import CONF
from repro.figures import captions, claims, table_drawing, tables
from repro.figures.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from repro.figures.tables import Group, Others, Row, Table

NAMES = sorted(path.stem for path in (CONF / "table").glob("*.yaml") if path.stem != "all")
TABLES = {
    name: OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(Table), OmegaConf.load(CONF / "table" / f"{name}.yaml"))
    )
    for name in NAMES
}
PUBLISHED = {  # table: group: (published value, its spread), written out from the paper
    "table1": {
        "table1-cnn3": [(81.3, 0.1), (80.2, 0.1), (79.5, 0.1), (80.2, 0.4), (81.2, 0.2),
                        (80.8, 0.3), (80.9, 0.3), (80.2, 0.3), (81.0, 0.2), (81.0, 0.1)],
        "table1-resnet56": [(92.0, 0.2), (91.4, 0.1), (90.8, 0.3), (91.4, 0.3), (92.1, 0.1),
                            (89.1, 0.3), (88.1, 0.5), (87.8, 0.3), (88.1, 0.1), (88.8, 0.3)],
    },
    "table2": {
        "table2-wide": [(86.7, 0.6), (88.7, 0.6), (89.8, 0.4), (90.3, 1.0), (87.3, 0.8), (91.3, 0.1), (91.9, 0.2)],
        "table2-densenet": [(91.3, 0.2), (92.1, 0.2), (92.7, 0.2), (91.7, 0.3), (92.1, 0.2), (92.2, 0.2), (92.8, 0.1)],
        "table2-lenet": [(99.03, 0.04), (99.00, 0.04), (99.25, 0.03), (99.28, 0.06), (99.27, 0.07), (99.35, 0.03)],
        "table2-cifar100": [(60.8, 0.4), (61.6, 0.9), (61.0, 0.2), (65.4, 0.2), (66.4, 0.6), (69.0, 0.4)],
    },
}  # fmt: skip
RULES = {  # claim: (curve, minus, above, within), fixed before any run
    "T1-1": ("table1-cnn3/1cycle_cm_0.95-0.85", "table1-cnn3/1cycle_0.85", 0, None),
    "T1-2": ("table1-cnn3/1cycle_cm_0.95-0.85", "table1-cnn3/1cycle_0.95", None, 0.5),
    "T1-3": ("table1-resnet56/1cycle_cm_0.95-0.85", "table1-resnet56/1cycle_0.85", 0, None),
    "T1-4": ("table1-resnet56/1cycle_cm_0.95-0.85", "table1-resnet56/1cycle_0.95", None, 0.5),
    "T1-5": ("table1-cnn3/1cycle_cm_0.95-0.85", "table1-cnn3/constant_cm_0.95-0.85", 0, None),
    "T2-1": ("table2-lenet/1cycle_12ep", "table2-lenet/inv_85ep", 0, None),
}


def test_every_table_is_drawn_unless_another_is_chosen():
    assert OmegaConf.load(CONF / "table/all.yaml").defaults == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_published_values_are_the_papers(name):
    values = {g.experiments: [(r.value, r.spread) for r in g.rows.values()] for g in TABLES[name].groups.values()}
    assert values == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_are_those_fixed_before_any_run(name):
    table = TABLES[name]
    held = tables.all_claims(table)
    count = sum(len(group.rows) for group in table.groups.values())
    assert list(held) == [*table.claims, *(f"row {i + 1}" for i in range(count))]
    for number, (curve, _, group, row) in enumerate(tables.rows(table), start=1):
        least = 0.1 if group.data == "MNIST" else 0.5
        [rule] = held[f"row {number}"].rules
        assert (rule.curve, rule.minus, rule.of, rule.around) == (curve, None, "final_accuracy", row.value)
        assert (rule.within, rule.spread, rule.runs) == (max(least, 2 * row.spread), row.spread, 4)
    for claim, made in table.claims.items():
        [rule] = made.rules
        assert (rule.curve, rule.minus, rule.above, rule.within) == RULES[claim]
        assert rule.of == "final_accuracy"


def test_every_fixed_rule_is_in_a_table():
    assert {claim for table in TABLES.values() for claim in table.claims} == set(RULES)


def numbers(cell):
    return [float(number) for number in re.findall(r"\d*\.?\d+(?:e-\d+)?", cell)]


SETTINGS = [(curve, group, row) for table in TABLES.values() for curve, _, group, row in tables.rows(table)]


@pytest.mark.parametrize(("curve", "group", "row"), SETTINGS, ids=[curve for curve, *_ in SETTINGS])
def test_a_row_says_what_its_experiment_trains(resolved, curve, group, row):
    run = resolved(f"experiment={curve}")
    images = 60_000 if group.data == "MNIST" else 50_000
    assert run.dataset.name == group.data.lower().replace("-", "")
    assert (run.batch_size, run.regularization.weight_decay) == (group.batch_size, row.weight_decay)
    assert run.iterations == row.epochs * images // group.batch_size
    lr, momentum = zip(
        *map(schedules.build(run.schedule.lr, run.schedule.momentum), range(run.iterations)), strict=True
    )
    rates, _, policy = row.lr.partition(" / ")
    assert numbers(rates) == pytest.approx(sorted({lr[0], max(lr)}), rel=1e-6)
    cycled = numbers(row.momentum.partition(" / ")[0])
    assert cycled == pytest.approx(
        [momentum[0]] if len(cycled) == 1 else [momentum[0], extreme(momentum)], rel=1e-6
    )
    if policy.isdigit():
        step = int(policy) * images // group.batch_size
        assert lr.index(max(lr)) == step
        assert row.momentum.endswith(f" / {policy}") or len(cycled) == 1
    elif policy == "step":
        ends = [run.iterations * k // 16 for k in (8, 12, 14, 15)]
        drops = [i for i in range(1, run.iterations) if lr[i] < lr[i - 1]]
        assert drops == pytest.approx(ends, abs=1)
    elif policy == "inv":
        assert lr[10_000 - 1 if run.iterations > 10_000 else -1] < 0.7 * lr[0]
    else:
        assert len(set(lr)) == 1


def extreme(momentum):
    """The momentum farthest from that of the beginning."""
    return max(momentum, key=lambda value: abs(value - momentum[0]))


def one_row(accuracies, **row):
    """A table of one row published as 90 ± 0.2, and its numbers for these accuracies of its runs."""
    setting = Row(lr="1", momentum="0.9", weight_decay=1e-4, epochs=1, value=90.0, spread=0.2, **row)
    others = Others("them", 5) if row else Others()
    table = Table("A table", groups={"net": Group("data", 8, "x", rows={"a": setting})}, others=others)
    made = frame(**{"x/a": accuracies})
    judged = claims.table(tables.all_claims(table), made, range(4), "paper")
    return table, made, tables.beside(table, judged, made)


@pytest.mark.parametrize(
    ("mean", "sd", "verdict"),
    [(90.05, 0.1, REPRODUCED), (91.2, 0.1, NOT_REPRODUCED), (88.8, 0.1, NOT_REPRODUCED), (90.5, 0.1, UNDECIDED),
     (90.0, 0.6, UNDECIDED)],
)  # fmt: skip
def test_a_row_is_judged_by_the_interval_of_its_difference(mean, sd, verdict):
    sample = points(mean, sd)
    _, _, made = one_row(sample)
    [row] = made.to_dict("records")
    assert row["verdict"] == verdict
    assert (row["ours"], row["ours_sd"], row["runs"]) == (pytest.approx(mean), pytest.approx(sd), 4)
    assert row["difference"] == pytest.approx(mean - 90)
    error, freedom = welch(sd, 4, 0.2, 4)
    half = stats.t.ppf(0.975, freedom) * error
    assert (row["low"], row["high"]) == pytest.approx((mean - 90 - half, mean - 90 + half))


def welch(a, m, b, n):
    """The standard error of a difference of means and its degrees of freedom, from two standard deviations."""
    parts = a**2 / m, b**2 / n
    return np.sqrt(sum(parts)), sum(parts) ** 2 / (parts[0] ** 2 / (m - 1) + parts[1] ** 2 / (n - 1))


def test_the_others_are_held_against_ours_with_an_interval():
    _, _, made = one_row(points(90.1, 0.1), other=89.0, other_spread=0.3)
    [row] = made.to_dict("records")
    error, freedom = welch(0.1, 4, 0.3, 5)
    half = stats.t.ppf(0.975, freedom) * error
    assert row["minus_others"] == pytest.approx(1.1)
    assert (row["minus_others_low"], row["minus_others_high"]) == pytest.approx((1.1 - half, 1.1 + half))


@pytest.mark.parametrize(("runs", "says"), [(0, "not run"), (1, "1 of 4"), (3, "3 of 4"), (4, "4")])
def test_a_row_says_how_many_of_its_runs_are_there(runs, says):
    table, made, values = one_row(list(points(90.0, 0.1))[:runs])
    text = tables.as_text(table, values, 4, "paper")
    row = dict(zip(text.header, text.rows[0], strict=True))
    assert row["runs"] == says
    assert row["verdict"] == (REPRODUCED if runs == 4 else UNDECIDED)
    assert (row["ours, paper scale"] == "-") == (runs == 0)
    drawing = table_drawing.draw(table, values, made, 4, "", "paper")
    assert says in " ".join(text.get_text() for text in drawing.texts)


def test_a_row_is_drawn_where_its_numbers_are():
    table, made, values = one_row(points(90.3, 0.1))
    [row] = values.to_dict("records")
    axes = table_drawing.draw(table, values, made, 4, "", "paper").axes[0]
    [band] = axes.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((89.5, 1.0))  # within half a point
    published, ours = (
        (bar.lines[0].get_xdata()[0], *bar.lines[2][0].get_segments()[0][:, 0]) for bar in axes.containers
    )
    assert published == pytest.approx((90, 89.8, 90.2))
    assert ours == pytest.approx((90.3, 90 + row["low"], 90 + row["high"]))


def test_a_sample_has_the_published_mean_and_standard_deviation():
    for runs in (2, 4, 5):
        sample = claims.sample_of(90.0, 0.3, runs)
        assert (len(sample), sample.mean(), sample.std(ddof=1)) == (runs, pytest.approx(90), pytest.approx(0.3))


@pytest.mark.parametrize(
    ("value", "printed"), [(3e-3, "3e-3"), (3.2e-4, "3.2e-4"), (1e-10, "1e-10"), (0.05, "5e-2"), (0, "0")]
)
def test_a_small_number_keeps_its_digits(value, printed):
    assert tables.power(value) == printed


def test_a_claim_on_what_is_no_row_is_named(table1, run_app):
    claim = "tables.table1.claims={x:{says:so,rules:[{curve:table1-cnn3/1cycle_0.99,above:1}]}}"
    done = run_app("figures", "table=table1", "scale=demo", "formats=[svg]", claim)
    assert done.returncode == 1
    assert "error: table table1: claims.x: no curve table1-cnn3/1cycle_0.99 among its rows\n" in done.stderr


def test_latex_has_the_rules_of_booktabs_and_escapes():
    made = captions.latex(captions.Table(["a %", "b"], [["90.0 ± 0.1", "x_1 & y"], ["{\\", "2^3"]]))
    assert made.splitlines()[1:] == [
        r"\begin{tabular}{ll}", r"\toprule", r"a \% & b \\", r"\midrule", r"90.0 $\pm$ 0.1 & x\_1 \& y \\",
        r"\{\textbackslash{} & 2\textasciicircum{}3 \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


@pytest.fixture
def table1(tmp_path):
    """Four runs of one row of Table 1 and two of another, at demo scale."""
    home = tmp_path / "multirun_outputs/demo/table1-cnn3"
    for row, accuracies in (("1cycle_0.95", (0.811, 0.812, 0.813, 0.812)), ("1cycle_0.85", (0.79, 0.8))):
        for seed, accuracy in enumerate(accuracies):
            write_run(home / row / f"seed{seed}", [(0, accuracy), (2, accuracy), (4, accuracy)])
    return tmp_path


def test_a_table_is_drawn_from_the_runs_that_are_there(table1, run_app):
    done = run_app("figures", "table=table1", "scale=demo")
    assert done.returncode == 0, done.stderr
    target = table1 / "paper_figures/demo"
    kinds = ("claims.csv", "csv", "md", "pdf", "png", "svg", "tex")
    assert sorted(path.name for path in target.iterdir()) == [f"table1.{kind}" for kind in kinds]
    made = pd.read_csv(target / "table1.csv").set_index("curve")
    assert len(made) == 20
    assert made.loc["table1-cnn3/1cycle_0.95", ["ours", "runs"]].tolist() == [pytest.approx(81.2), 4]
    assert made.loc["table1-cnn3/1cycle_0.85", "runs"] == 2
    assert made["runs"].sum() == 6
    text = (target / "table1.md").read_text()
    assert text.count("not run") == 18
    assert "2 of 4" in text
    assert "python -m repro.train sweep=table1 scale=demo" in text
    assert "python -m repro.figures table=table1 scale=demo" in text
    assert "table1-cnn3/1cycle_0.85 seeds 2, 3: missing" in done.stdout
    assert (target / "table1.tex").read_text().count(r"\\") == 21
    assert list(pd.read_csv(target / "table1.claims.csv")["claim"])[:6] == [*TABLES["table1"].claims, "row 3"]


def test_the_report_has_figures_and_tables(table1, run_app):
    done = run_app("report", "figure=fig5b", "table=table1", "scale=demo", "formats=[svg]")
    html = (table1 / "paper_figures/demo/index-fig5b-table1.html").read_text()
    assert '<section id="table1" class="table">' in html
    assert "81.20 ± 0.08" in html
    assert done.stderr.startswith("error: figure fig5b: no runs at scale demo")


def test_a_table_without_runs_is_one_line(tmp_path, run_app):
    done = run_app("figures", "table=table1", "scale=demo")
    assert done.returncode == 1
    message = (
        "no runs at scale demo in multirun_outputs; python -m repro.train sweep=table1 scale=demo trains them"
    )
    assert done.stderr == f"error: table table1: {message}\n"


def test_a_notebook_has_the_runs_of_a_table(table1, monkeypatch):
    monkeypatch.chdir(table1)
    assert set(repro.load("table1", "scale=demo").frame["curve"]) == {
        f"table1-cnn3/1cycle_{m}" for m in ("0.85", "0.95")
    }


def test_in_print_cyclical_rows_equal_the_constant_rows_of_their_first_momentum():
    """docs/cyclical-momentum.md builds on it, and repeats the values."""
    values = {
        (group.experiments, name): row.value
        for group in TABLES["table1"].groups.values()
        for name, row in group.rows.items()
    }
    pairs = [(k, (k[0], re.sub(r"cm_(0...)-.*", r"\1", k[1]))) for k in values if "_cm_" in k[1]]
    assert len(pairs) == 8
    assert max(abs(values[cyclical] - values[constant]) for cyclical, constant in pairs) == pytest.approx(0.3)
    text = (CONF.parent / "docs/cyclical-momentum.md").read_text()
    for pair in pairs:
        assert all(f"| {values[name]} ± " in text for name in pair)
