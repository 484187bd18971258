"""The paper's printed curves: whole, at real iterations, behind ours at paper scale, and compared along the way."""

import json

import numpy as np
import pandas as pd
import pytest
from test_claims import FIGURES
from test_figures import write_run

from repro import config, records, schedules
from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.figures import captions, claims, drawing, printed
from repro.figures.figure import Figure
from repro.records import runs

WD = ["wd_1e-3", "wd_1.8e-3", "wd_3.2e-3", "wd_1e-2"]
TESTS = {  # figure: tests of each curve in print, and those that could not be read
    "fig3a": ({"lr_0.0055": 300, "lr_0.001": 300}, 1),
    "fig4a": (dict.fromkeys(["wd_1e-4", "wd_4e-3", "wd_1e-2"], 100), 0),
    "fig7a": (dict.fromkeys(["momentum_0.7", "momentum_0.9", "momentum_0.99"], 50), 42),
    "fig7b": ({"increasing_0.7-1": 50}, 0),
    "fig7c": (
        dict.fromkeys(["constant_0.9", "increasing_0.8-1", "decreasing_0.95-0.8", "decreasing_0.97-0.7"], 50),
        71,
    ),
    "fig7d": (dict.fromkeys(["constant_0.9", "decreasing_0.97-0.7"], 100), 0),
    "fig9a": (dict.fromkeys(WD, 80), 0),
    "fig9b": (dict.fromkeys(WD, 80), 0),
    "fig10a": (dict.fromkeys(WD, 40), 0),
    "fig10b": (dict.fromkeys(WD, 40), 6),
    "fig11a": (dict.fromkeys(["wd_1e-4", "wd_3.2e-4", "wd_5.6e-4", "wd_1e-3"], 100), 1),
    "fig11b": (dict.fromkeys(["wd_1e-4", "wd_1e-5", "wd_1e-6", "wd_3.2e-4"], 100), 210),
    "fig12a": ({"wd_1e-3": 20, "wd_3e-3": 16, "wd_1e-2": 16}, 0),
    "fig12b": ({"wd_1e-4": 19, "wd_3e-4": 11, "wd_1e-3": 11}, 4),
    "fig13a": (dict.fromkeys(["wd_1e-3", "wd_1e-4", "wd_1e-5"], 48), 14),
    "fig13b": (dict.fromkeys([f"decreasing_{m}-0.85" for m in (0.9, 0.95, 0.97)], 48), 0),
    "fig13c": (dict.fromkeys(["wd_1e-4", "wd_1e-6", "wd_1e-7"], 48), 0),
    "fig13d": (dict.fromkeys(["tbs256", "tbs512"], 48), 1),
    "fig14a": (dict.fromkeys(["constant_0.9", "decreasing_0.95-0.8"], 58), 17),
    "fig14b": (dict.fromkeys(["wd_1e-4", "wd_5e-4", "wd_1e-3", "wd_3e-3"], 58), 105),
    "fig5a": ({"clr_3.0": 101, "piecewise_0.35": 801}, 3),
    "fig5b": (dict.fromkeys(["wd_1e-3", "wd_1e-4", "wd_1e-5", "wd_1e-6"], 101), 0),
    "fig6a": ({"tbs1024": 29, "tbs512": 46, "tbs256": 68, "tbs128": 93}, 0),
    "fig6b": ({"tbs1024": 29, "tbs512": 46, "tbs256": 68, "tbs128": 93}, 6),
    "fig8a": (dict.fromkeys(["constant_0.9", "increasing_0.85-0.95", "decreasing_0.95-0.85"], 100), 0),
    "fig8b": ({"tbs1024": 29, "tbs512": 46, "tbs256": 68, "tbs128": 93}, 0),
    "fig15a": (dict.fromkeys(["wd_1e-4", "wd_1e-5", "wd_3e-4"], 24), 10),
    "fig15b": ({"tbs1024": 70, "tbs512": 97, "tbs256": 166}, 1),
}


def curves_of(name):
    return printed.load(name, FIGURES[name].y, [CONF])


@pytest.mark.parametrize("name", TESTS)
def test_a_print_has_the_tests_of_the_protocol(name, resolved):
    tests, hidden = TESTS[name]
    frame, figure = curves_of(name), FIGURES[name]
    assert set(frame["curve"]) == set(tests)
    assert len(frame) == sum(tests.values()) - hidden
    assert not frame.duplicated(["curve", "iteration"]).any()
    for y in figure.measures:
        assert frame[y].between(0.02, 1 if y == "test_accuracy" else 3.5).all()
    for curve, part in frame.groupby("curve"):
        run = resolved(f"experiment={figure.experiments}/{curve}")
        begin = run.start.iteration or 0
        grid = range(begin if run.test_at_start else begin + run.test_every, run.iterations + 1, run.test_every)
        assert len(grid) == tests[curve]
        assert set(part["iteration"]) <= set(grid)
        assert {"lr", "momentum"} & set(part) == {figure.x} - {"iteration"}
        if figure.x != "iteration":
            schedule = schedules.build(run.schedule.lr, run.schedule.momentum)
            column = ("lr", "momentum").index(figure.x)
            assert part[figure.x].tolist() == pytest.approx(
                [schedule(i)[column] for i in part["iteration"]], rel=0.026
            )


@pytest.mark.parametrize("name", TESTS)
def test_what_claims_call_printed_is_what_was_read(name):
    figure = FIGURES[name]
    rules = [r for claim in figure.claims.values() if claim.says.startswith("(print) ") for r in claim.rules]
    for rule in rules:
        read = claims.measured_in_print(curves_of(name), figure.printed, rule.of)[rule.curve, 0]
        digits = 1 if rule.of == "final_accuracy" else 3 if rule.around > 0.1 else 4
        half = 0.5 if (name, rule.curve) != ("fig15b", "tbs512") else 0.6  # 68.555, which the protocol calls 68.5
        assert read == pytest.approx(rule.around, abs=half * 10**-digits), rule
    assert len({rule.curve for rule in rules}) in (0, len(TESTS[name][0]))
    if name == "fig15a":
        logs = claims.measured_in_print(curves_of(name), figure.printed, figure.summary.of, figure.summary.lr)
        expected = {"wd_1e-4": 0.6637, "wd_1e-5": 0.8698, "wd_3e-4": 0.7785}
        assert {curve: logs[curve, 0] for curve in expected} == pytest.approx(expected, abs=5e-5)


NOT_SHOWN = [
    "fig5a",
    "fig5b",
    "fig6a",
    "fig8a",
    "fig8b",
    "fig15a",
    "fig15b",
]  # their text says more than the print


@pytest.mark.parametrize("name", sorted(set(TESTS) - set(NOT_SHOWN)))
def test_the_print_shows_what_its_claims_say(name):
    figure = FIGURES[name]
    for claim, what in figure.claims.items():
        for rule in what.rules:
            values = claims.measured_in_print(curves_of(name), figure.printed, rule.of, rule.lr)
            sides = [values.get((curve, 0)) for curve in (rule.curve, rule.minus) if curve]
            if None in sides:  # off the chart
                assert rule.of == "mean_log_loss"
                continue
            difference = sides[0] - sum(sides[1:])
            limit = rule.above if rule.above is not None else rule.below
            assert limit is None or (difference > limit) == (rule.above is not None), (claim, rule)


def test_a_centred_mean_of_three_tests_has_two_at_the_ends():
    assert printed.smoothed(pd.Series([1.0, 4, 7, 1]), 3).tolist() == [2.5, 4, 4, 4]
    assert printed.smoothed(pd.Series([1.0, 4, 7, 1]), 1).tolist() == [1, 4, 7, 1]


def test_the_distance_is_over_what_both_have():
    ours, theirs = pd.Series({0: 9.0, 100: 1, 200: 2, 300: 5}), pd.Series({100: 4.0, 200: 6, 250: 1})
    assert printed.distance(ours, theirs) == (pytest.approx(np.sqrt((9 + 16) / 2)), 2)
    away, tests = printed.distance(ours, pd.Series({7: 1.0}))
    assert np.isnan(away)
    assert tests == 0


def test_a_figure_without_a_print_has_none_and_a_broken_one_is_named(tmp_path):
    assert printed.load("fig99", "test_loss", [CONF, tmp_path]).empty
    (tmp_path / "published").mkdir()
    (tmp_path / "published/fig99.csv").write_text("curve,iteration\na,1\n")
    with pytest.raises(ReproError, match=r"published/fig99.csv: not a table of curve, iteration and test_loss"):
        printed.load("fig99", "test_loss", [tmp_path])


OFF = 0.03  # of ours from the print


@pytest.fixture
def as_printed(tmp_path, resolved):
    """A function: figure -> its paper-scale records in tmp_path: the print, and always as much more."""

    def make(name, seeds=2):
        figure = FIGURES[name]
        for curve, part in curves_of(name).groupby("curve"):
            for seed in range(seeds):
                run = resolved(f"experiment={name}/{curve}", f"seed={seed}")
                record = records.Record(tmp_path / "multirun_outputs/paper" / run.curve / f"seed{seed}", run, {})
                schedule = schedules.build(run.schedule.lr, run.schedule.momentum)
                for i, y in zip(part["iteration"], part[figure.y], strict=True):
                    lr, momentum = schedule(i)
                    row = {"iteration": i, "lr": lr, "momentum": momentum, "train_loss": 1.0, "test_loss": 1.0}
                    record.append({**row, "test_accuracy": 0.5, "images_per_second": 5.0, figure.y: y + OFF})
                record.finish("finished")

    return make


@pytest.mark.parametrize("name", ["fig6a", "fig8a", "fig15a"])
def test_at_paper_scale_the_print_lies_behind_ours(name, as_printed, tmp_path, run_app):
    as_printed(name)
    done = run_app("figures", f"figure={name}", "formats=[svg]", "seeds=[0,1]")
    assert done.returncode == 0, done.stderr
    figure, theirs = FIGURES[name], curves_of(name)
    homes = {c: tmp_path / f"multirun_outputs/paper/{name}/{c}" for c in figure.curves}
    found = runs.local(homes)
    main = drawing.draw(found, {c: c for c in homes}, figure, "", {}, theirs).axes[0]
    ours = {line.get_color(): line for line in main.lines if line.get_linewidth() > drawing.PRINT_WIDTH}
    thin = {line.get_color(): line for line in main.lines if line.get_linewidth() == drawing.PRINT_WIDTH}
    assert set(thin) == set(ours)
    assert len(thin) == len(figure.curves)
    for curve, color in zip(figure.curves, thin, strict=True):
        part = theirs[theirs["curve"] == curve]
        assert thin[color].get_ydata() == pytest.approx(part[figure.y].to_numpy())
        assert thin[color].get_xdata() == pytest.approx(ours[color].get_xdata())
        assert thin[color].get_zorder() < ours[color].get_zorder()
        assert thin[color].is_dashed() == ours[color].is_dashed()
    unit, digits = (100, 2) if figure.y == "test_accuracy" else (1, 3)
    rows = [row for row in captions.beside(found, figure, "paper", theirs).rows if row[-1] == "print"]
    assert [row[0] for row in rows] == list(figure.curves)
    if figure.printed.smoothed == 1:
        assert [row[5].split()[0] for row in rows] == [f"{unit * OFF:.{digits}f}"] * len(rows)
    if figure.summary is None:
        assert [row[4] for row in rows] == [f"+{unit * OFF:.{digits}f}"] * len(rows)
    for text in ("read off the pixels of its figure", "rms distance along the curve", "print"):
        assert text in done.stdout


def test_ours_is_smoothed_like_the_print_before_it_is_compared(as_printed, tmp_path):
    as_printed("fig8a", seeds=1)
    found = runs.local({"constant_0.9": tmp_path / "multirun_outputs/paper/fig8a/constant_0.9"})
    theirs = curves_of("fig8a")
    theirs = theirs[theirs["curve"] == "constant_0.9"].copy()
    theirs["test_loss"] = printed.smoothed(theirs["test_loss"], 3)
    [row] = captions.beside(found, FIGURES["fig8a"], "paper", theirs).rows
    assert row[5] == f"{OFF:.3f} over 100 tests"


def test_at_another_scale_the_print_is_drawn_when_asked(tmp_path, run_app):
    write_run(tmp_path / "multirun_outputs/demo/fig6a/tbs512/seed0", [(2, 0.1), (4, 0.2)])
    plain = run_app("figures", "figure=fig6a", "scale=demo", "formats=[svg]").stdout
    asked = run_app("figures", "figure=fig6a", "scale=demo", "formats=[svg]", "reference_rescaled=true").stdout
    assert "read off the pixels" not in plain
    assert "read off the pixels" in asked


def test_a_printed_curve_without_runs_is_drawn_too(tmp_path):
    write_run(tmp_path / "seed0", [(2, 0.1), (4, 0.5)])
    found = runs.local({"a": tmp_path})  # at half the paper's iterations
    theirs = pd.DataFrame({"curve": ["b", "b"], "iteration": [2, 6], "test_accuracy": [0.3, 0.4]})
    figure = Figure("Figure", "a")
    main = drawing.draw(found, {"a": "a", "b": "b"}, figure, "", {}, theirs).axes[0]
    thin = [line for line in main.lines if line.get_linewidth() == drawing.PRINT_WIDTH]
    assert [list(line.get_xdata()) for line in thin] == [[1, 3]]
    [row] = captions.beside(found, figure, "demo", theirs).rows
    assert row[:6] == ["b", "the end: mean of the last 3 tests", "35.00", "-", "-", "-"]


def test_a_run_of_other_values_is_named_and_left_out(tmp_path, run_app, resolved):
    def train(folder, *overrides, seed=0):
        run = resolved("experiment=fig8b/tbs256", "scale=demo", f"seed={seed}", *overrides)
        run.dataset.digest = "0123456789abcdef"
        record = records.Record(tmp_path / f"multirun_outputs/demo/fig8b/tbs256/{folder}/seed{seed}", run, {})
        for i in (5, 10):
            row = {"iteration": i, "lr": 0.1, "momentum": 0.9, "train_loss": 1.0, "test_loss": 1.0}
            record.append({**row, "test_accuracy": 0.5, "images_per_second": 5.0})
        record.finish("finished")

    train("", seed=0)
    train("", "schedule.lr.base_lr=0.04", "schedule.lr.max_lr=0.4", seed=1)
    train("replicates=author", "replicates=author", seed=1)
    train("model.width=4,update=torch", "model.width=4", "update=torch", seed=2)
    train("model.width=5", "model.width=6", seed=3)
    done = run_app("figures", "figure=fig8b", "scale=demo", "formats=[svg]")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: figure fig8b: tbs256 seed 1 was trained with other values than conf/ has now (")
    assert "'base_lr': 0.04" in line
    assert "'base_lr': 0.06" in line
    assert "TBS 256 (1 of 4 seeds)" in done.stdout
    author = run_app("figures", "figure=fig8b", "scale=demo", "formats=[svg]", "replicates=author")
    assert author.returncode == 0, author.stderr
    train("replicates=author,update=torch", "replicates=author", "update=torch", seed=2)
    train("model.width=4,replicates=author", "replicates=author", "model.width=4", seed=3)
    more = runs.local({"tbs256": tmp_path / "multirun_outputs/demo/fig8b/tbs256"}, True, "replicates=author")
    assert sorted(more.info) == [("tbs256", 1), ("tbs256, model.width=4, replicates=author", 3),
                                 ("tbs256, replicates=author, update=torch", 2)]  # fmt: skip
    variants = run_app("figures", "figure=fig8b", "scale=demo", "formats=[svg]", "variants=true")
    assert [line.split(" was")[0] for line in variants.stderr.splitlines()] == [
        "error: figure fig8b: tbs256 seed 1",
        "error: figure fig8b: tbs256, model.width=5 seed 3",
    ]


def test_a_record_survives_its_round_through_json(tmp_path, resolved):
    run = resolved("experiment=fig8b/tbs256", "scale=demo")
    record = records.Record(tmp_path, run, {})
    info = json.loads(json.dumps(record.info))
    assert records.outdated(info, run) is None
    assert config.fingerprint(run) == info["fingerprint"]
