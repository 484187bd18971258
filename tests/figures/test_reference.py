"""The author's curves, from tables and from his Caffe logs: what is read, found, refused and drawn."""

import math

import pandas as pd
import pytest
from test_figures import write_run

from repro.config.errors import ReproError
from repro.figures import reference

HEADER = ",".join(reference.COLUMNS)

OLD = """\
I0817 19:00:00.499383 17550 solver.cpp:48] Initializing solver from parameters:
test_iter: 200
base_lr: 0.1
momentum: 0.9
I0817 19:00:10.153604 17550 solver.cpp:337] Iteration 0, Testing net (#0)
I0817 19:01:18.502846 17550 solver.cpp:404]     Test net output #0: accuracy = 0.1
I0817 19:01:18.503108 17550 solver.cpp:404]     Test net output #1: loss = 87.3366 (* 1 = 87.3366 loss)
I0817 19:01:19.815330 17550 solver.cpp:228] Iteration 0, loss = 4.5
I0817 19:01:19.815402 17550 solver.cpp:244]     Train net output #0: accuracy = 0.125
I0817 19:01:19.815420 17550 solver.cpp:244]     Train net output #1: loss = 4.25 (* 1 = 4.25 loss)
I0817 19:01:19.921301 17550 sgd_solver.cpp:166] Iteration 0, lr = 0.1
I0817 21:17:27.153604 17550 solver.cpp:337] Iteration 8700, Testing net (#0)
I0817 21:18:46.502846 17550 solver.cpp:404]     Test net output #0: accuracy = 0.75
I0817 21:18:46.503108 17550 solver.cpp:404]     Test net output #1: loss = 0.625 (* 1 = 0.625 loss)
I0817 21:18:47.815330 17550 solver.cpp:228] Iteration 8700, loss = 5.5e-05
I0817 21:18:47.815402 17550 solver.cpp:244]     Train net output #0: accuracy = 0.976
I0817 21:18:47.815420 17550 solver.cpp:244]     Train net output #1: loss = 0.0518975 (* 1 = 0.0518975 loss)
I0817 21:18:47.921301 17550 sgd_solver.cpp:166] Iteration 8700, lr = 0.854
I0817 21:40:19.571498 17550 solver.cpp:454] Snapshotting to binary proto file snapshots/made_iter_10000.caffemodel
I0817 21:40:20.292737 17550 solver.cpp:317] Iteration 10000, loss = 0.03
I0817 21:40:20.292775 17550 solver.cpp:337] Iteration 10000, Testing net (#0)
I0817 21:41:40.585319 17550 solver.cpp:404]     Test net output #0: accuracy = 0.875
I0817 21:41:40.585680 17550 solver.cpp:404]     Test net output #1: loss = 0.5 (* 1 = 0.5 loss)
I0817 21:41:40.585692 17550 solver.cpp:322] Optimization Done.
"""

NEW = """\
I0315 00:00:01.014650 33055 solver.cpp:218] Iteration 0 (-1.4013e-45 iter/s, 0.3s/200 iters), loss = 2.5
I0315 00:00:01.014663 33055 solver.cpp:237]     Train net output #0: accuracy = 0.0625
I0315 00:00:01.014677 33055 solver.cpp:237]     Train net output #1: loss = 2.75 (* 1 = 2.75 loss)
I0315 00:00:01.014691 33055 sgd_solver.cpp:212] Iteration 0, lr = 0.08, momentum = 0.95, weight decay = 0.0001
I0315 00:00:01.027054 33069 sgd_solver.cpp:172] Gradient: L2 norm 0.03
I0315 00:00:01.027079 33070 sgd_solver.cpp:172] Gradient: L2 norm 0.03
I0315 00:03:02.039629 33055 solver.cpp:330] Iteration 8600, Testing net (#0)
I0315 00:03:03.014102 33068 sgd_solver.cpp:172] Gradient: L2 norm 0.03
I0315 00:03:05.499524 33055 solver.cpp:397]     Test net output #0: accuracy = 0.5625
I0315 00:03:05.499577 33055 solver.cpp:397]     Test net output #1: loss = 1.25 (* 1 = 1.25 loss)
I0315 00:03:05.644687 33055 solver.cpp:218] Iteration 8600 (5.85176 iter/s, 34.1778s/200 iters), loss = 0.00132187
I0315 00:03:05.644731 33055 solver.cpp:237]     Train net output #0: accuracy = 1
I0315 00:03:05.644745 33055 solver.cpp:237]     Train net output #1: loss = 0.00132194 (* 1 = 0.00132194 loss)
I0315 00:03:05.644760 33055 sgd_solver.cpp:212] Iteration 8600, lr = 8e-05, momentum = 0.85, weight decay = 0.0001
I0315 00:03:05.658164 33068 sgd_solver.cpp:172] Gradient: L2 norm 0.03
I0315 00:03:06.099759 33055 solver.cpp:315] Optimization Done.
"""


def rows(table):
    """The table's rows, None for NaN, in the order of COLUMNS."""
    assert table.columns.tolist() == reference.COLUMNS
    assert (table.dtypes == "float64").all()
    return [tuple(None if math.isnan(v) else v for v in row) for row in table.itertuples(index=False)]


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def table(path, accuracy=0.5):
    """A table of one test at iteration 100."""
    return written(path, f"{HEADER}\n100,0.1,0.9,1,1,{accuracy}\n")


def accuracies(found):
    return {curve: read["test_accuracy"].dropna().tolist() for curve, read in found.items()}


def test_empty_cells_of_a_table_are_nan(tmp_path):
    path = written(tmp_path / "a.csv", f"{HEADER}\n0,0.1,,4.5,,\n100,1e-2,0.9,nan,0.5,0.75\n")
    assert rows(reference.read_csv(path)) == [
        (0, 0.1, None, 4.5, None, None),
        (100, 0.01, 0.9, None, 0.5, 0.75),
    ]


def test_columns_may_be_in_any_order_and_more(tmp_path):
    text = "test_accuracy,note,iteration,lr,train_loss,momentum,test_loss\n0.75,good,100,0.1,2,0.9,0.5\n"
    assert rows(reference.read_csv(written(tmp_path / "a.csv", text))) == [(100, 0.1, 0.9, 2, 0.5, 0.75)]


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    path = written(tmp_path / "a.csv", f"\ufeff{HEADER}\r\n100,0.1,0.9,2,0.5,0.75\r\n")
    assert rows(reference.read_csv(path)) == [(100, 0.1, 0.9, 2, 0.5, 0.75)]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("iteration,lr,train_loss,test_loss\n0,1,1,1\n", ":1", "no column momentum, test_accuracy"),
        ("", ":1", "no column iteration, lr"),
        (f"{HEADER}\n0,0.1,0.9,1,1,0.5\n100,0.1,0.9,1,1,high\n", ":3", "test_accuracy 'high' is not a number"),
        (f"{HEADER}\n\n0,0.1,0.9,1,1,92 %\n", ":3", "test_accuracy '92 %' is not a number"),
        (f"{HEADER}\n", "", "no rows"),
        ("\u00e9\n", ":1", "no column iteration"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, text, line, message):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ReproError) as error:
        reference.read_csv(path)
    assert str(error.value).startswith(f"{path}{line}: {message}")
    assert len(str(error.value).splitlines()) == 1


def test_a_log_of_the_old_dialect(tmp_path):
    assert rows(reference.read_log(written(tmp_path / "log", OLD))) == [
        (0, 0.1, None, 4.5, 87.3366, 0.1),
        (8700, 0.854, None, 5.5e-05, 0.625, 0.75),
        (10000, None, None, 0.03, 0.5, 0.875),
    ]


def test_a_log_of_the_new_dialect(tmp_path):
    assert rows(reference.read_log(written(tmp_path / "log", NEW))) == [
        (0, 0.08, 0.95, 2.5, None, None),
        (8600, 8e-05, 0.85, 0.00132187, 1.25, 0.5625),
    ]


@pytest.mark.parametrize("value", ["nan", "-nan", "inf"])
def test_a_log_of_a_network_that_diverged(tmp_path, value):
    text = OLD.replace("loss = 0.5 (* 1 = 0.5 loss)", f"loss = {value} (* 1 = {value} loss)")
    last = reference.read_log(written(tmp_path / "log", text.replace("loss = 0.03", f"loss = {value}"))).iloc[-1]
    assert last["test_accuracy"] == 0.875
    expected = float(value)
    assert last[["train_loss", "test_loss"]].tolist() == pytest.approx([expected, expected], nan_ok=True)


@pytest.mark.parametrize(
    "text", ["", "a README\n", "\n".join(line for line in OLD.splitlines() if "Test net output" not in line)]
)
def test_a_log_without_tests_is_named(tmp_path, text):
    path = written(tmp_path / "log", text)
    with pytest.raises(ReproError) as error:
        reference.read_log(path)
    assert str(error.value).startswith(f"{path}: no 'Test net output' lines")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["Results/made", "clone/Results/made", "made"])
def test_a_log_is_found_in_a_clone_beside_others_and_by_its_name(tmp_path, place):
    written(tmp_path / place, OLD)
    found = reference.load(tmp_path, "fig5a", ["a", "b"], {"a": "Results/made", "b": "Results/absent"})
    assert accuracies(found) == {"a": [0.1, 0.75, 0.875]}


def test_a_table_goes_before_a_log(tmp_path):
    written(tmp_path / "Results/made", OLD)
    table(tmp_path / "fig5a_a.csv", 0.5)
    table(tmp_path / "fig5b_b.csv", 0.6)
    table(tmp_path / "fig5a_unknown.csv", 0.7)
    logs = {"a": "Results/made", "b": "Results/made"}
    found = reference.load(tmp_path, "fig5a", ["a", "b", "c"], logs)
    assert accuracies(found) == {"a": [0.5], "b": [0.1, 0.75, 0.875]}


def test_where_nothing_is_found_everything_looked_for_is_named(tmp_path):
    table(tmp_path / "fig5b_a.csv")
    with pytest.raises(ReproError) as error:
        reference.load(tmp_path, "fig5a", ["a", "b"], {"a": "Results/one", "b": "Results/two"})
    for name in (
        f"reference={tmp_path}: it has no curve of fig5a",
        "fig5a_<curve>.csv",
        "Results/one",
        "Results/two",
    ):
        assert name in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_folder_that_does_not_exist_is_named(tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ReproError, match=f"reference={tmp_path / name}: no such folder"):
        reference.load(tmp_path / name, "fig5a", ["a"], {})


@pytest.fixture
def draw(tmp_path, run_app):
    """A function: scale and arguments -> the finished process, and Figure 5b as drawn."""
    for scale in ("demo", "paper"):
        home = tmp_path / "multirun_outputs" / scale / "fig5b/wd_1e-3"
        for seed in range(4):
            write_run(home / f"seed{seed}", [(0, 0.1), (2, 0.3), (4, 0.5 + seed / 100)])
    text = f"{HEADER}\n0,0.1,0.9,4,,\n50,1.5,0.9,2,1,0.4\n100,3,0.9,1,1,0.7\n"
    written(tmp_path / "author/fig5b_wd_1e-3.csv", text)

    def run(scale, *arguments):
        done = run_app("figures", "figure=fig5b", f"scale={scale}", "formats=[svg]", *arguments)
        marks = {"reference=author": "-reference", "reference_rescaled=true": "-rescaled"}
        name = "".join(["fig5b", *(mark for option, mark in marks.items() if option in arguments)])
        return done, (tmp_path / "paper_figures" / scale / f"{name}.svg").read_bytes()

    return run


def test_at_another_scale_the_author_is_not_drawn_unasked(draw):
    _, plain = draw("demo")
    done, drawn = draw("demo", "reference=author")
    assert done.returncode == 0, done.stderr
    assert drawn == plain
    assert "paper scale, or with reference_rescaled=true" in done.stdout


@pytest.mark.parametrize(("scale", "arguments"), [("demo", ["reference_rescaled=true"]), ("paper", [])])
def test_the_author_is_drawn_at_paper_scale_or_when_asked(draw, scale, arguments):
    _, plain = draw(scale, *arguments)
    done, drawn = draw(scale, "reference=author", *arguments)
    assert done.returncode == 0, done.stderr
    assert drawn != plain
    assert "reference_rescaled" not in done.stdout


def test_a_broken_table_is_named_and_the_figure_is_drawn_without_it(draw, tmp_path):
    _, plain = draw("paper")
    written(tmp_path / "author/fig5b_wd_1e-3.csv", f"{HEADER}\n0,0.1,0.9,4,,\n50,fast,0.9,2,1,0.4\n")
    done, drawn = draw("paper", "reference=author")
    assert done.returncode == 1
    assert done.stderr == "error: author/fig5b_wd_1e-3.csv:3: lr 'fast' is not a number\n"
    assert drawn == plain


def test_what_is_read_can_be_written_and_read_again(tmp_path):
    read = reference.read_log(written(tmp_path / "log", OLD))
    read.to_csv(tmp_path / "fig5a_a.csv", index=False)
    pd.testing.assert_frame_equal(reference.load(tmp_path, "fig5a", ["a"], {})["a"], read)
