"""From records to frames to figures: what is averaged, what is missing, what is drawn."""

import json
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser

import repro
from repro import records
from repro.config import catalogue
from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.figures import captions, drawing, settings
from repro.figures.figure import Figure, Published
from repro.records import averages, lock, runs


def write_run(folder, rows, status="finished", iterations=4, test_every=2, **info):
    """A record as training leaves it, with (iteration, accuracy) rows."""
    folder.mkdir(parents=True)
    config = {
        "iterations": iterations,
        "test_every": test_every,
        "batch_size": 10,
        "scale": {"note": "made up", "iterations": 0.5},
        "schedule": {
            "lr": {
                "shape": "lr_range",
                "base_lr": 0.1,
                "max_lr": 0.1 + iterations / 100,
                "iterations": iterations,
            },
            "momentum": {"shape": "constant", "value": 0.9},
        },
    }
    made = {
        "curve": "fig5b/wd_1e-3",
        "seed": 0,
        "versions": {"torch": "2"},
        "commit": "abc",
        "wall_seconds": 60.0,
        "environment": {"device": "cpu", "python": "3"},
    }
    (folder / "run.json").write_text(json.dumps({"status": status, "config": config, **made, **info}))
    lines = [
        json.dumps({"iteration": i, "lr": 0.1 + i / 100, "momentum": 0.9, "train_loss": 1.0, "test_loss": 2 - a,
                    "test_accuracy": a, "images_per_second": 5.0})
        for i, a in rows
    ]  # fmt: skip
    (folder / "history.jsonl").write_text("".join(line + "\n" for line in lines))


@pytest.fixture
def fig5b(tmp_path):
    """Three complete seeds of one curve, one and a bit of the shared curve, nothing of the others."""
    home = tmp_path / "multirun_outputs/demo"
    for seed, last in enumerate((0.5, 0.6, 0.9)):
        write_run(home / f"fig5b/wd_1e-3/seed{seed}", [(0, 0.1), (2, 0.3), (4, last)])
    write_run(home / "fig5a/clr_3.0/seed0", [(0, 0.1), (2, 0.8), (4, 0.9)])
    write_run(home / "fig5a/clr_3.0/seed1", [(0, 0.1), (2, 0.2)], status="running")
    return tmp_path


def curves(tmp_path, **folders):
    return {name: tmp_path / "multirun_outputs/demo" / home for name, home in folders.items()}


def test_the_frame_is_tidy(fig5b):
    found = runs.local(curves(fig5b, a="fig5b/wd_1e-3", b="fig5a/clr_3.0"))
    assert list(found.frame.columns) == runs.KEYS + runs.VALUES
    assert len(found.frame) == 14
    assert found.frame["test_accuracy"].dtype == "float64"
    assert found.frame["iteration"].dtype == "int64"
    assert found.info["b", 1]["status"] == "stopped"  # nobody trains it any more
    with lock.locked(fig5b / "multirun_outputs/demo/fig5a/clr_3.0/seed1"):
        found = runs.local(curves(fig5b, b="fig5a/clr_3.0"))
    assert found.info["b", 1]["status"] == "running"


def test_runs_behind_a_link_are_found_and_others_named(fig5b):
    home = fig5b / "multirun_outputs/demo/fig5b/wd_1e-3"
    home.rename(fig5b / "disk")
    home.symlink_to(fig5b / "disk")
    write_run(fig5b / "more/seed0", [(0, 0.1)])
    (home / "a=1").symlink_to(fig5b / "more")
    (home / "seed1/run.json").write_text('{"name": "run of another tool", "config": {}}')
    for variants, expected in ((False, ["a"]), (True, ["a", "a, a=1"])):
        found = runs.local(curves(fig5b, a="fig5b/wd_1e-3"), variants)
        assert sorted(found.frame["curve"].unique()) == expected
        assert sorted(seed for curve, seed in found.info if curve == "a") == [0, 2]
        assert [problem.partition(": ")[2][:27] for problem in found.broken] == ["not a record of this suite;"]


def test_mean_and_sample_standard_deviation_over_seeds(fig5b):
    table = averages.over_seeds(runs.local(curves(fig5b, a="fig5b/wd_1e-3")).frame, "iteration", "test_accuracy")
    last = table.iloc[-1]
    assert last["mean"] == pytest.approx(statistics.mean([0.5, 0.6, 0.9]))
    assert last["std"] == pytest.approx(statistics.stdev([0.5, 0.6, 0.9]))  # ddof 1
    assert last["count"] == 3


def test_only_finished_runs_are_averaged_if_there_are_any(fig5b):
    found = runs.local(curves(fig5b, b="fig5a/clr_3.0"))
    assert averages.averaged(found)["seed"].unique().tolist() == [0]


def test_unfinished_runs_are_drawn_as_far_as_all_of_them_go(tmp_path):
    home = tmp_path / "multirun_outputs/demo/x"
    write_run(home / "seed0", [(0, 0.1), (2, 0.2)], status="running")
    write_run(home / "seed1", [(0, 0.3)], status="failed")
    finished = averages.averaged(runs.local(curves(tmp_path, x="x")))
    table = averages.over_seeds(finished, "iteration", "test_accuracy")
    assert table["iteration"].tolist() == [0]
    assert table["mean"].tolist() == [pytest.approx(0.2)]


def test_a_diverged_run_stays_in_the_mean(tmp_path):
    home = tmp_path / "multirun_outputs/demo/x"
    write_run(home / "seed0", [(0, 0.1), (2, 0.1)], status="diverged", iterations=7)
    write_run(home / "seed1", [(0, 0.1), (2, 0.5), (4, 0.7), (6, 0.8), (7, 0.9)], iterations=7)
    table = averages.over_seeds(runs.local(curves(tmp_path, x="x")).frame, "iteration", "test_accuracy")
    assert table["iteration"].tolist() == [0, 2, 4, 6, 7]
    assert table["mean"].tolist() == pytest.approx([0.1, 0.3, 0.4, 0.45, 0.5])
    found = runs.local(curves(tmp_path, x="x")).frame.query(
        "seed == 0"
    )  # and in a figure over the LR at its place
    assert found["lr"].tolist() == pytest.approx([0.1, 0.12, 0.14, 0.16, 0.17])
    assert len(averages.over_seeds(runs.local(curves(tmp_path, x="x")).frame.round(9), "lr", "test_accuracy")) == 5


def test_a_curve_with_a_diverged_run_says_so(tmp_path):
    write_run(tmp_path / "seed0", [(0, 0.1), (4, 0.5)])
    write_run(tmp_path / "seed1", [(0, 0.1), (2, 0.1)], status="diverged")
    labels, notes = captions.describe(runs.local({"a": tmp_path}), {"a": [0, 1]}, {"a": "WD 1"})
    assert labels == {"a": "WD 1 (2 seeds, 1 diverged)"}
    assert notes == ["note: a seed 1: diverged, the last test is kept to the end"]


def test_final_is_the_mean_of_the_last_three_tests(fig5b):
    values = averages.final(runs.local(curves(fig5b, a="fig5b/wd_1e-3")).frame, "test_accuracy")
    assert values.loc["a", 2] == pytest.approx((0.1 + 0.3 + 0.9) / 3)


@pytest.mark.parametrize(
    ("x", "expected"), [("iteration", [0, 2, 10]), ("share", [0, 0.2, 1]), ("lr", [0.1, 0.12, 0.2])]
)
def test_the_author_is_drawn_where_he_was_beside_a_run_that_is_not_there_yet(tmp_path, x, expected):
    write_run(tmp_path / "seed0", [(0, 0.1), (2, 0.3), (4, 0.5)], status="running", iterations=10)
    found = runs.local({"a": tmp_path})  # at half the paper's iterations
    author = pd.DataFrame({"iteration": [0, 4, 20], "test_accuracy": [0.1, 0.2, 0.9]})
    published = [
        Published("a", value, iteration=at, source="log") for value, at in ((20, 4), (90, 20), (91, None))
    ]
    figure = Figure("Figure", "a", x=x, published=published)
    main = drawing.draw(found, {"a": "a"}, figure, "", {"a": author}, published=True).axes[0]
    theirs = next(line for line in main.lines if list(line.get_ydata()) == [0.1, 0.2, 0.9])
    assert theirs.get_xdata() == pytest.approx(expected, nan_ok=True)
    assert [marker.lines[0].get_ydata()[0] for marker in main.containers] == pytest.approx([0.2, 0.9, 0.91])
    points = [marker.lines[0].get_xdata()[0] for marker in main.containers]
    assert points == pytest.approx([*expected[1:], expected[2]], nan_ok=True)
    assert [row[3] for row in captions.beside(found, figure, "demo").rows] == ["30.00", "-", "-"]
    assert captions.results(found, {"a": "a"}).rows == [["a", "-", "-"]]


def test_runs_that_have_no_test_yet_are_not_called_missing(tmp_path, run_app):
    write_run(tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3/seed0", [], status="running")
    done = run_app("figures", "figure=fig5b", "scale=demo")
    assert done.returncode == 1
    message = "none of the runs at scale demo in multirun_outputs has reached its first test yet"
    assert done.stderr == f"error: figure fig5b: {message}\n"


@pytest.mark.filterwarnings("error")
def test_a_figure_over_the_lr_is_drawn_from_its_first_test_on(tmp_path):
    write_run(tmp_path / "seed0", [(2, 0.1)], status="running")
    found = runs.local({"a": tmp_path})
    assert drawing.draw(found, {"a": "a"}, Figure("Figure", "a", x="lr"), "", {})


def test_a_figure_names_what_is_missing(fig5b, run_app):
    done = run_app("figures", "figure=fig5b", "scale=demo")
    assert done.returncode == 0, done.stderr
    assert "WD 1e-3 (3 of 4 seeds)" in done.stdout
    assert "WD 1e-4 (1 of 4 seeds)" in done.stdout  # Figure 5a's run, shown here too
    assert "WD 1e-6 (0 of 4 seeds)" in done.stdout
    for note in ("wd_1e-3 seed 3: missing", "wd_1e-4 seed 1: stopped", "wd_1e-6 seeds 0, 1, 2, 3: missing"):
        assert f"note: {note}" in done.stdout
    target = fig5b / "paper_figures/demo"
    assert sorted(p.name for p in target.iterdir()) == [
        f"fig5b.{k}" for k in ("claims.csv", "csv", "md", "pdf", "png", "svg")
    ]
    assert (target / "fig5b.png").read_bytes().startswith(b"\x89PNG")
    assert (target / "fig5b.pdf").read_bytes().startswith(b"%PDF")
    assert ElementTree.parse(target / "fig5b.svg").getroot().tag.endswith("svg")
    assert "(claims.csv, csv, md, pdf, png, svg)" in done.stdout
    frame = pd.read_csv(target / "fig5b.csv")
    assert len(frame) == 14
    assert frame[frame["curve"] == "wd_1e-3"]["test_accuracy"].max() == 0.9


def test_the_same_runs_give_the_same_files(fig5b, run_app):
    names = [f"fig5b.{kind}" for kind in ("claims.csv", "csv", "md", "pdf", "png", "svg")]
    seen = []
    for speed in (100, 200):  # of another machine: a record's, not a figure's
        for path in fig5b.glob("multirun_outputs/demo/*/*/*/history.jsonl"):
            rows = [{**json.loads(line), "images_per_second": speed} for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert run_app("figures", "figure=fig5b", "scale=demo").returncode == 0
        seen.append([(fig5b / "paper_figures/demo" / name).read_bytes() for name in names])
    assert seen[0] == seen[1]


def test_a_broken_record_is_named_and_the_rest_is_drawn(fig5b, run_app):
    broken = fig5b / "multirun_outputs/demo/fig5b/wd_1e-3/seed1/history.jsonl"
    broken.write_text(broken.read_text() + "half a row\n")
    done = run_app("figures", "figure=fig5b", "scale=demo")
    assert done.returncode == 1
    assert "seed1/history.jsonl:4: not a JSON row" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "WD 1e-3 (2 of 4 seeds)" in done.stdout
    assert (fig5b / "paper_figures/demo/fig5b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["figure=fig5a", "scale=demo"],
            "figure fig5a: no runs at scale demo in multirun_outputs; python -m",
        ),
        (["figure=fig99"], "figure=fig99: no such choice; choose from all, fig10a,"),
        (["scale=huge"], "scale=huge: no such choice; choose from demo, paper, quick, smoke"),
        (["seeds=many"], "seeds"),
        (
            ["figure=fig5a,fig5b"],
            "error: figure=fig5a,fig5b: several values need -m; a list is figure=[fig5a,fig5b]",
        ),
        (["seeds=range(2)"], "error: seeds=range(2): several values need -m; a list is [1,2]"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(run_app, arguments, message):
    done = run_app("figures", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_curve_that_is_no_experiment_is_named_and_the_rest_is_drawn(fig5b, run_app):
    done = run_app("figures", "figure=fig5b", "scale=demo", "+figures.fig5b.curves.wd_2=WD 2", "formats=[png]")
    assert done.returncode == 1
    assert done.stderr == "error: figure fig5b: curves.wd_2: no conf/experiment/fig5b/wd_2.yaml\n"
    assert (fig5b / "paper_figures/demo/fig5b-edited.png").exists()


def test_replicates_have_their_own_folder(tmp_path, run_app):
    write_run(tmp_path / "multirun_outputs/demo/fig8b/tbs512/replicates=author/seed0", [(0, 0.1), (4, 0.2)])
    assert run_app("figures", "figure=fig8b", "scale=demo", "formats=[png]").returncode == 1
    done = run_app("figures", "figure=fig8b", "scale=demo", "formats=[png]", "replicates=author")
    assert done.returncode == 0, done.stderr
    assert "TBS 512 (1 of 4 seeds)" in done.stdout
    caption = (tmp_path / "paper_figures/demo/fig8b-author.md").read_text()
    assert "sweep=fig8b scale=demo replicates=author" in caption


def test_variants_are_curves_of_their_own(fig5b, run_app):
    home = fig5b / "multirun_outputs/demo/fig5a/clr_3.0/regularization.weight_decay=0.5"
    write_run(home / "seed0", [(0, 0.1), (4, 0.2)])
    published = fig5b / "paper_figures/demo"
    published.mkdir(parents=True)
    for kind in ("csv", "md", "png", "claims.csv"):
        (published / f"fig5a.{kind}").write_text("published")
    for path in fig5b.rglob("run.json"):
        path.write_text(json.dumps({"started": "2026", "attempt": 1, **json.loads(path.read_text())}))
    done = run_app("figures", "figure=fig5a", "scale=demo", "variants=true", "formats=[png]")
    assert done.returncode == 0, done.stderr
    assert "wrote paper_figures/demo/fig5a-variants.* (claims.csv, csv, md, png)" in done.stdout
    frame = pd.read_csv(published / "fig5a-variants.csv")
    assert set(frame["curve"]) == {"clr_3.0", "clr_3.0, regularization.weight_decay=0.5"}
    assert "figure=fig5a scale=demo variants=true\n" in (published / "fig5a-variants.md").read_text()
    assert {path.read_text() for path in published.glob("fig5a.*")} == {"published"}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "fig5b"),
        (("formats=[png]", "output=evidence"), "fig5b"),  # the same figure, of the runs that lie there
        (("source=wandb", "tracking.project=mine"), "fig5b"),
        (("seeds=[0,1,2,3]", "variants=false", "replicates=seeds"), "fig5b"),
        (("variants=true",), "fig5b-variants"),
        (("replicates=author",), "fig5b-author"),
        (("seeds=[0,7]",), "fig5b-seeds-0-7"),
        (("reference=/some/where",), "fig5b-reference"),
        (("reference_rescaled=true",), "fig5b-rescaled"),
        (("figures.fig5b.ylim=[0.5,1]",), "fig5b-edited"),
        (("+figures.fig5b.curves.wd_2=WD 2",), "fig5b-edited"),
        (("variants=true", "seeds=[0]", "replicates=author"), "fig5b-author-variants-seeds-0"),
    ],
)
def test_only_a_figure_as_conf_has_it_goes_by_its_name(overrides, name):
    settings.register_schema()
    with catalogue.hydra_of_our_own():
        composed = compose("figures", ["figure=fig5b", "scale=quick", *overrides])
    config = settings.settings_of(composed, overrides)
    assert settings.target_of("fig5b", config) == Path("paper_figures/quick") / name
    command = settings.commands("figure fig5b", config)[1]
    drawn = [o.lstrip("+") for o in overrides if not o.startswith(("formats", "output"))]
    drawn = drawn if name != "fig5b" else []
    assert all(shlex.quote(override) in command or override in command for override in drawn)
    train = settings.commands("figure fig5b", config)[0]
    seeds = [word for word in train.split() if word.startswith("seed=")]
    assert seeds == ([f"seed={name.partition('seeds-')[2].replace('-', ',')}"] if "seeds-" in name else [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+optimizer=adam", "optimizer: no such key; choose from figures, "),
        ("+variant=true", "variant: no such key; did you mean variants?"),
        ("+tracking.mode=online", "tracking.mode: no such key; choose from entity, project, base_url"),
        ("dataset.name=digits", "dataset.name: runs are drawn as they were recorded"),
        ("+model.width=8", "model.width: runs are drawn as they were recorded"),
        ("scale.iterations=0.1", "scale.iterations: runs are drawn as they were recorded"),
        ("path=elsewhere", "path: only source=offline reads it, not local"),
        ("seeds=[]", r"seeds=\[\]: list every seed"),
        ("seeds=[0,0]", r"seeds=\[0, 0\]: list every seed"),
        ("seeds=[-1]", r"seeds=\[-1\]: list every seed"),
        ("formats=[foo]", "formats: no foo; choose from pdf, svg, png"),
    ],
)
def test_nothing_is_drawn_as_if_an_option_were_not_said(override, message):
    settings.register_schema()
    with catalogue.hydra_of_our_own():
        composed = compose("figures", ["figure=fig5b", "scale=demo", override])
    with pytest.raises(ReproError, match=message):
        settings.settings_of(composed, [override])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "index"),
        (["figure=all"], "index"),
        (["figure=all", "table=all"], "index"),
        (["table=all"], "index-tables"),
        (["table=table2"], "index-table2"),
        (["figure=[fig5a,fig5b]"], "index-fig5a-fig5b"),
        (["figure=fig5a", "table=table2"], "index-fig5a-table2"),
        (["figure=fig5a", "table=all"], "index-fig5a-tables"),
        (["figure=all", "table=table2"], "index-figures-table2"),
    ],
)
def test_the_page_of_a_part_has_a_name_of_its_own_and_its_own_command(overrides, name):
    named = settings.selected([*overrides, "scale=demo"])
    assert settings.page_name(named) == name
    assert (
        settings.report_command(named, settings.App()).replace("'", "").replace('"', "").split()[4:] == overrides
    )


@pytest.mark.parametrize(
    "text", ["runs", "/data/my runs", "a b ü/recs (1),x", "it's", 'a"b', "$HOME/x", "1e-3", "[x"]
)
def test_a_printed_option_is_read_as_it_was(text):
    [word] = shlex.split(settings._option("output", text))
    assert str(OverridesParser.create().parse_override(word).value()) == text


def test_printed_commands_name_folders_and_output():
    config = settings.App(output="a b")
    train, draw = settings.commands("figure fig5b", config)
    assert train == "python -m repro.train sweep=fig5b scale=paper 'output=a b'"
    assert draw == "python -m repro.figures figure=fig5b scale=paper 'output=a b'"


CLAIM = "figures.fig5b.claims={x:{says:so,"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("figures.fig5b.x=lrr", "figures.fig5b.x=lrr: choose from iteration, lr, momentum, share"),
        ("figures.fig5b.also=speed", "figures.fig5b.also=speed: choose from test_loss, test_accuracy"),
        ("figures.fig5b.yscale=cubic", "figures.fig5b.yscale=cubic: choose from linear, log"),
        ("figures.fig5b.ylim=[nan,1]", "figures.fig5b.ylim=.*: give two finite numbers"),
        ("figures.fig5b.ylim=[1,0]", "figures.fig5b.ylim=.*: give two finite numbers, the lower end first"),
        ("figures.fig5b.title=a b$c d&", "figures.fig5b.title=a b.*: Hydra cannot read this value"),
        ("figures.fig5b.published=3", "^error: figures.fig5b: published: "),
        ("figures.fig5b.summary={of:best}", "figures.fig5b.summary.of=best: choose from final_accuracy"),
        (f"{CLAIM}rules:[]}}}}", r"figures.fig5b.claims.x.rules=\[\]: a claim needs a rule"),
        (f"{CLAIM}rules:[{{curve:wd_1e-4,above:high}}]}}}}", "^error: figures.fig5b: above: Value 'high'"),
        (f"{CLAIM}rules:[{{curve:wd_1e-9,above:3}}]}}}}", "^error: figure fig5b: claims.x: no curve wd_1e-9"),
        ("figures.fig5b.bogus=1", "figures.fig5b.bogus: no such key; choose from title, experiments"),
        ("figures.fig5b.xlable=LR", "figures.fig5b.xlable: no such key; did you mean figures.fig5b.xlabel"),
        ("figures.fig5a.x=lr", "figures.fig5a: figure=fig5a is not among what this command draws"),
        ("figures.fig5a.title=x", "figures.fig5a: figure=fig5a is not among what this command draws"),
        ("tables.table1.title=x", "tables.table1.title=x: this command draws no table; add table=NAME"),
    ],
)
def test_a_wrong_setting_of_a_figure_is_named(fig5b, run_app, override, message):
    done = run_app("figures", "figure=fig5b", "scale=demo", "formats=[svg]", override)
    assert done.returncode == 1
    assert re.search(message, done.stderr.splitlines()[-1]), done.stderr


def test_a_key_that_a_figures_file_leaves_out_can_be_set(fig5b, run_app):
    done = run_app("figures", "figure=fig5b", "scale=demo", "formats=[svg]", "figures.fig5b.x=lr")
    assert "wrote paper_figures/demo/fig5b-edited.* (claims.csv, csv, md, svg)" in done.stdout, done.stderr
    assert (
        "figure=fig5b scale=demo figures.fig5b.x=lr" in (fig5b / "paper_figures/demo/fig5b-edited.md").read_text()
    )


def test_a_figure_of_ones_own_is_loaded_from_its_folder(tmp_path):
    (tmp_path / "conf/figure").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine").mkdir(parents=True)
    (tmp_path / "conf/figure/mine.yaml").write_text("# @package figures.mine\ntitle: Mine\nexperiments: mine\n")
    (tmp_path / "conf/experiment/mine/a.yaml").write_text("# @package _global_\n")
    write_run(tmp_path / "runs/paper/mine/a/seed0", [(2, 0.5), (4, 0.6)])
    search_path = f"hydra.searchpath=[file://{tmp_path}/conf]"
    found = repro.load("mine", search_path, f"output={tmp_path}/runs")
    assert (list(found.info), found.broken) == ([("a", 0)], [])


def test_records_of_a_figure_of_ones_own_are_held_against_its_experiments(tmp_path, resolved):
    (tmp_path / "conf/figure").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine").mkdir(parents=True)
    (tmp_path / "conf/figure/mine.yaml").write_text("# @package figures.mine\ntitle: Mine\nexperiments: mine\n")
    (tmp_path / "conf/experiment/mine/a.yaml").write_text(
        "# @package _global_\ndefaults: [/experiment/fig5b/wd_1e-4, _self_]\n"
    )
    run = resolved("experiment=fig5b/wd_1e-4", "scale=smoke")
    run.curve = "mine/a"
    record = records.Record(tmp_path / "runs/smoke/mine/a/seed0", run, {})
    record.append(dict.fromkeys(runs.VALUES, 0.5) | {"iteration": 2})
    record.finish("finished")
    search_path = f"hydra.searchpath=[file://{tmp_path}/conf]"
    found = repro.load("mine", search_path, "scale=smoke", f"output={tmp_path}/runs", "figures.mine.x=lr")
    assert (list(found.info), found.broken) == ([("a", 0)], [])
    assert not catalogue.search_path()


def test_an_axis_of_few_iterations_is_labelled_where_they_are(tmp_path):
    for curve in ("wd_1e-4", "wd_1e-3"):
        write_run(tmp_path / curve / "seed0", [(i, 0.5) for i in (5, 10, 15, 19)])
    found = runs.local({curve: tmp_path / curve for curve in ("wd_1e-4", "wd_1e-3")})
    drawn = drawing.draw(found, {"wd_1e-4": "a", "wd_1e-3": "b"}, Figure(title="t"), "", {})
    axis = drawn.axes[2].xaxis
    labels = [float(axis.get_major_formatter()(place)) for place in axis.get_majorticklocs()]
    assert labels == list(axis.get_majorticklocs())


def test_the_print_lies_between_the_iterations_of_a_small_scale(tmp_path):
    """400 iterations of the paper are 0.4 of a run of 10: no rounding to the LR of a whole iteration."""
    write_run(tmp_path / "wd_1e-4/seed0", [(0, 0.5), (10, 0.5)])
    found = runs.local({"wd_1e-4": tmp_path / "wd_1e-4"})
    config = found.info["wd_1e-4", 0]["config"]
    config |= {"iterations": 10, "scale": {"name": "smoke", "iterations": 0.001}}
    config["schedule"] = {
        "lr": {"shape": "lr_range", "base_lr": 0.0, "max_lr": 1.0, "iterations": 10},
        "momentum": {"shape": "constant", "value": 0.9},
    }
    assert drawing._x([400, 1500, 10000, 10400], found, "wd_1e-4", "lr") == pytest.approx(
        [0.04, 0.15, 1.0, np.nan], nan_ok=True
    )


def test_a_scale_cannot_leave_the_folder_of_figures(tmp_path):
    (tmp_path / "scale").mkdir()
    (tmp_path / "scale/mine.yaml").write_text("# @package _global_\nscale: {name: ../../mine}\n")
    with pytest.raises(ReproError, match=r"scale.name=../../mine cannot name a folder"):
        repro.load("fig5b", "scale=mine", f"hydra.searchpath=[{tmp_path}]")


def test_the_curves_of_a_figure_are_its_experiments():
    assert catalogue.curves("fig5b", [CONF])["wd_1e-4"] == "fig5a/clr_3.0"
    assert catalogue.curves("fig5b", [CONF])["wd_1e-3"] == "fig5b/wd_1e-3"


NO_TORCH = """schedules config config.catalogue records records.averages records.runs tracking.mirror tracking.pull
tracking.upload figures.app figures.page report sweeps.sweeper sweeps.launcher sweeps.workers sweeps.cost sweeps.states
training.lifecycle training.interrupts status train evaluate"""


@pytest.mark.parametrize("module", NO_TORCH.split())
def test_drawing_and_sweeping_never_import_torch(module):
    code = f"import sys, repro.{module}; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_notebook_has_the_frame_that_a_figure_is_drawn_from(fig5b, run_app, monkeypatch):
    monkeypatch.chdir(fig5b)
    found = repro.load("fig5b", "scale=demo")
    assert list(found.frame.columns) == runs.KEYS + runs.VALUES
    assert found.info["wd_1e-3", 1]["status"] == "finished"
    assert run_app("figures", "figure=fig5b", "scale=demo", "formats=[png]").returncode == 0
    drawn = pd.read_csv(fig5b / "paper_figures/demo/fig5b.csv", dtype=dict(runs.TYPES))
    pd.testing.assert_frame_equal(found.frame.drop(columns="images_per_second").reset_index(drop=True), drawn)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fig5a", "scale=demo", "output=elsewhere"],
            "figure fig5a: no runs at scale demo in elsewhere; python -m",
        ),
        (["fig99"], "figure=fig99: no such choice; choose from all, fig10a,"),
        (["fig5a", "seeds=many"], "seeds"),
        (["all"], "figure=all: load reads one figure at a time"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(arguments, message):
    with pytest.raises(ReproError, match=re.escape(message)) as error:
        repro.load(*arguments)
    assert len(str(error.value).splitlines()) == 1


def test_the_example_of_a_frame_runs():
    example = Path("examples/frame.py")
    done = subprocess.run([sys.executable, str(example)], cwd=CONF.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "every record is whole" in done.stdout
    assert "wd_1e-3 3 finished 0.001" in done.stdout
    assert re.search(r"wd_1e-3 +0\.\d+ +0\.\d+ +4", done.stdout)


def test_a_second_measure_lies_on_the_same_axis_with_its_print(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"seed{seed}", [(2, 0.1 + 0.2 * seed), (4, 0.5)])
    found = runs.local({"a": tmp_path})  # at half the paper's iterations
    theirs = pd.DataFrame({"curve": ["a"], "iteration": [4], "test_loss": [1.7], "test_accuracy": [0.2]})
    figure = Figure("Figure", "a", x="lr", y="test_loss", also="test_accuracy", yscale="log")
    main = drawing.draw(found, {"a": "label"}, figure, "", {}, theirs).axes[0]
    ours = [line for line in main.lines if line.get_linewidth() != drawing.PRINT_WIDTH]
    thin = [line for line in main.lines if line.get_linewidth() == drawing.PRINT_WIDTH]
    assert [list(line.get_ydata()) for line in ours] == [pytest.approx([1.8, 1.5]), pytest.approx([0.2, 0.5])]
    assert [line.get_marker() for line in ours] == ["None", "o"]
    assert [line.get_ydata() for line in thin] == [[1.7], [0.2]]
    low, high = main.get_ylim()
    assert low < 0.2 < 1.8 < high
    legend = [text.get_text() for text in main.get_legend().get_texts()]
    assert legend[:3] == ["label", "plain: test loss", "with dots: test accuracy, as a fraction"]
    rows = captions.beside(found, figure, "demo", theirs).rows
    assert [(row[1].split(", ")[-1], row[2], row[4], row[5]) for row in rows] == [
        ("loss", "1.700", "-0.050", "0.100 over 1 test"),
        ("accuracy", "20.00", "+15.00", "0.00 over 1 test"),
    ]


def test_a_figure_over_the_momentum_has_the_print_where_the_schedule_has_it(tmp_path):
    write_run(tmp_path / "seed0", [(2, 0.1), (4, 0.5)])
    info = json.loads((tmp_path / "seed0/run.json").read_text())
    rise = {"shape": "cyclical_momentum", "max_momentum": 0.7, "min_momentum": 1.0, "step_size": 4}
    info["config"]["schedule"]["momentum"] = rise
    (tmp_path / "seed0/run.json").write_text(json.dumps(info))
    found = runs.local({"a": tmp_path})
    assert list(drawing._x([0, 4, 8], found, "a", "momentum")) == pytest.approx([0.7, 0.85, 1.0])
    found.frame["momentum"] = [0.85, 1.0]
    main = drawing.draw(found, {"a": "a"}, Figure("Figure", "a", x="momentum"), "", {}).axes[0]
    [line] = main.lines
    assert list(line.get_xdata()) == [0.85, 1.0]
    top = main.child_axes[0]
    assert top.get_xlabel() == "Iteration"


def test_a_curve_that_diverges_leaves_a_logarithmic_axis_and_does_not_squeeze_the_others():
    import matplotlib.pyplot as plt

    def limits(means, start):
        drawn, axes = plt.subplots()
        drawing._logarithmic(axes, pd.Series(means), start)
        plt.close(drawn)
        return axes.get_ylim()

    low, high = limits([0.14, 0.05, 0.04, 0.03, 0.03, 40.0, 40.0], 0.14)
    assert low < 0.03
    assert 0.14 < high < 1
    assert limits([2.3, 0.1, 0.05, 0.04, 0.03], 2.3)[1] > 2.3  # every curve's start is shown


def test_the_band_is_one_standard_deviation_on_either_side(tmp_path):
    accuracies = (0.5, 0.6, 0.9)
    for seed, accuracy in enumerate(accuracies):
        write_run(tmp_path / f"seed{seed}", [(2, accuracy), (4, accuracy)])
    main = drawing.draw(runs.local({"a": tmp_path}), {"a": "a"}, Figure("Figure", "a"), "", {}).axes[0]
    [band] = main.collections
    edges = band.get_paths()[0].vertices[:, 1]
    mean, sd = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert (edges.min(), edges.max()) == pytest.approx((mean - sd, mean + sd))
