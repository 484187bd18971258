"""What the benchmark measures and writes. No test asserts a speed."""

import csv
import json
import math
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro import models
from repro.bench import app, fidelity, floor, measure, overheads, peer, table
from repro.bench.measure import Loop
from repro.bench.table import Results
from repro.config import Model
from repro.config.errors import ReproError
from repro.sweeps import cost
from repro.sweeps.machine import Plan

TINY = Loop("ours", demo=True, overrides=("model.width=4",))


@pytest.fixture
def tiny(monkeypatch):
    """A small loop without overrides: only such loops give rows of bench.json."""
    return replace(TINY, overrides=())


def build_network():
    return models.build("resnet56_superconv", 10, blocks=1, width=4, channels=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_peer_loop_trains_from_images(workers):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 12, 12, 1), dtype=np.uint8)
    network = build_network()
    before = network.stem.weight.detach().clone()
    steps = peer.from_files(network, pixels, np.arange(10), 4, "cpu", workers)
    for _ in range(5):  # more than an epoch
        next(steps)
    steps.close()
    assert not torch.equal(before, network.stem.weight)


def test_the_plain_loop_trains_and_tests():
    images, labels = torch.rand(10, 1, 8, 8), torch.arange(10)
    network = build_network()
    before = network.stem.weight.detach().clone()
    steps = peer.from_memory(network, images, labels, 4, (images, labels, 2))
    for _ in range(4):
        next(steps)
    assert not torch.equal(before, network.stem.weight)
    assert network.training
    assert peer.accuracy(network.eval(), images, labels) in {k / 10 for k in range(11)}


def test_loops_take_turns_and_ratios_are_to_the_first(tiny):
    results = Results()
    loops = [
        replace(TINY, name="plain", kind="memory"),
        tiny,
        replace(TINY, name="broken", kind="ours", device="nowhere"),
    ]
    measure.compare(results, "demo", loops, rounds=3, seconds=0.01)
    assert [line.what for line in results.lines] == ["plain", "ours"]  # the broken one is left out, not made up
    first, second = results.lines
    assert first.ratio == 1
    assert second.ratio == pytest.approx(second.median / first.median)
    assert all(line.low <= line.median <= line.high and line.unit == "images/s" for line in results.lines)
    (row,) = results.speeds
    assert {k: row[k] for k in ("model", "blocks", "width", "resolution", "batch_size", "device", "threads")} == {
        "model": "resnet56_superconv", "blocks": 1, "width": 16, "resolution": 8, "batch_size": 125, "device": "cpu",
        "threads": 1,
    }  # fmt: skip
    assert row["memory_mb"] > 50


def test_a_broken_loop_is_named(tiny, capsys):
    measure.compare(Results(), "demo", [replace(tiny, overrides=("model.width=none",))], rounds=1, seconds=0.01)
    assert "note: ours: " in capsys.readouterr().err


def test_several_of_a_loop_at_once(tiny, monkeypatch):
    monkeypatch.setattr(measure.machine, "cores", lambda: 2)
    results = Results()
    measure.compare(results, "four seeds", [tiny, replace(tiny, name="two at once", at_once=2)], 2, 0.01)
    assert [(line.what, " each" in line.note) for line in results.lines] == [
        ("ours", False),
        ("two at once", True),
    ]
    alone, shared = results.speeds  # of a run that has a core of its own, while another has the other
    one, two = results.lines
    assert alone["images_per_second"] / one.median == pytest.approx(
        shared["images_per_second"] / (two.median / 2), rel=1e-3
    )
    assert shared["threads"] == 1


def test_what_several_share_says_nothing_of_one_alone(tiny, monkeypatch):
    monkeypatch.setattr(measure.machine, "cores", lambda: 1)
    results = Results()
    measure.compare(results, "four seeds", [replace(tiny, name="two at once", at_once=2)], 1, 0.01)
    assert results.speeds == []


@pytest.mark.parametrize(
    ("experiment", "shape", "levels"),
    [(app.CNN3, (32, 32, 3), 1), ("table2-lenet/1cycle_12ep", (28, 28, 1), 256)],
)
def test_noise_has_the_shape_of_the_images_that_it_stands_for(resolved, experiment, shape, levels):
    noise = measure.make_noise(resolved(f"experiment={experiment}").dataset, "cpu", train=3, test=2)
    assert (noise.train_images.shape, noise.test_images.shape) == ((3, *shape), (2, *shape))
    assert noise.levels == levels
    assert bool(noise.mean.any()) == (levels == 1)


def test_four_seeds_in_the_ways_of_a_device():
    plain = Loop("plain", kind="memory", threads=4)
    ways = {loop.name: loop for loop in app.seed_loops(Loop("", threads=4), plain, quick=False)}
    assert list(ways) == ["plain, one after the other", "ours, one after the other", "ours, 4 at once",
                          "ours, bf16, 4 at once"]  # fmt: skip
    assert (ways["ours, 4 at once"].threads, ways["ours, 4 at once"].at_once) == (1, 4)
    on_gpu = app.seed_loops(Loop("", threads=4, device="cuda"), plain, quick=True)
    assert [loop.at_once for loop in on_gpu] == [1, 2, 4]


def test_a_sweep_as_a_command(monkeypatch):
    monkeypatch.setattr(app.machine, "cores", lambda: 2)
    results = Results()
    overheads.measure_commands(results, "commands", Loop("plain", kind="memory", demo=True), rounds=1, seeds=2)
    assert [line.what for line in results.lines] == ["plain", "ours, workers=1", "ours, workers=2"]
    assert all(line.median > 0 and line.ratio for line in results.lines)


def test_the_demos_speed_does_not_count_its_tests_twice(tiny, resolved):
    """A demo loop tests as it trains: its row says how fast it would train without."""
    run = resolved("experiment=fig5a/clr_3.0", "scale=demo", "test_at_start=false", "device=cpu")
    row = measure._speed_row(tiny, 1000.0, 100.0)
    seconds = cost.estimate(run, Plan(1, 1, [], 1), [row]).seconds
    assert seconds == pytest.approx(run.iterations * run.batch_size / 1000, rel=1e-3)


def test_the_dry_run_estimates_by_what_the_benchmark_found(resolved):
    row = measure._speed_row(Loop("ours", batch_size=1000, bn_groups=8), 250.0, 5000.0)
    run = resolved("experiment=fig5a/clr_3.0", "device=cpu")
    estimate = cost.estimate(run, Plan(1, 1, [], 1), [row])
    tests = run.iterations // run.test_every * 10_000
    assert estimate.seconds == pytest.approx((10_000_000 + tests / cost.TEST_SPEEDUP) / 250)
    assert estimate.basis.startswith("resnet56_superconv, 9 blocks, 32x32 pixels, batch 1000")


@pytest.mark.parametrize("name", models.networks())
def test_what_an_image_needs(name):
    size = (32, 32, 3)
    flops, moved = floor.count_image_needs(
        models.from_config(Model(name=name, blocks=1), 10, size, 0), size, images=2
    )
    shape = cost.Shape(name, 1, 16, 32)
    multiply_adds, outputs, _ = cost.network_sizes([shape])[shape]
    assert 5.4 < flops / multiply_adds < 6.1  # forward, and backward twice, but for the first layer
    assert (
        2 < moved / (4 * outputs) < 8
    )  # each convolution's output is kept more than once: as it is, and normalised


def test_tables_are_written(tmp_path, capsys):
    results = Results()
    results.add("a part", "ours", [3.0, 1.0, 2.0], "images/s", "a note", baseline=4.0)
    table.write(results, "Speed", "bench", tmp_path / "to", "`a command` on a machine")
    table.show(results, "Speed", "`a command` on a machine")
    (row,) = csv.DictReader((tmp_path / "to/bench.csv").open())
    assert (row["median"], row["low"], row["high"], row["ratio"]) == ("2.0", "1.0", "3.0", "0.5")
    text = (tmp_path / "to/bench.md").read_text()
    assert "`a command` on a machine" in text
    assert "| a part | ours | 2 | 1 | 3 | images/s | 0.50 | a note |" in text
    assert "a part" in capsys.readouterr().out


def test_overheads_and_start_up():
    results = Results()
    overheads.measure(results, rounds=3, wandb=False)
    assert [line.what for line in results.lines] == [
        "a row of the record",
        "a checkpoint: the copy",
        "a checkpoint: writing it, in its thread",
    ]
    assert all("% of a run" in line.note for line in results.lines)


def test_fidelity_judges_every_setting():
    results = Results()
    for part in fidelity.list_parts(results, "cpu", quick=True):
        part.measure(math.inf)
    by_name = {(line.part, line.what): line for line in results.lines}
    for name in models.networks():
        part = f"gradient of {name}, relative error"
        assert by_name[part, "float32 (reference)"].median < 2e-3
        assert 2e-3 < by_name[part, "bf16"].median < 0.5
    end = by_name["final test loss of four demo runs, Figure 8b's tbs512", "float32 (reference)"]
    assert "+0.0000 away, within" in end.note


def test_fidelity_past_its_time_measures_the_reference_alone(capsys):
    results = Results()
    for part in fidelity.list_parts(results, "cpu", quick=True)[:-1]:
        part.measure(0.0)
    assert {line.what for line in results.lines} == {"float32 (reference)"}
    assert "note: bf16: skipped, the time is over" in capsys.readouterr().err


def test_each_part_is_kept_as_it_is_measured_and_the_time_is_bounded(capsys):
    done, kept = [], []

    def broken(until):
        raise ReproError("no room")

    parts = [
        table.Part("one", lambda until: done.append(until)),
        table.Part("two", broken),
        table.Part("three", lambda until: done.append(until)),
    ]
    app.measure_parts(parts, math.inf, lambda: kept.append(len(done)))
    assert (done, kept) == ([math.inf, math.inf], [1, 1, 2])
    app.measure_parts(parts, time.monotonic() - 1, lambda: kept.append(len(done)))
    assert len(kept) == 4  # the first part at least
    errors = capsys.readouterr().err
    assert "note: two: no room" in errors
    assert "note: the time is over (--minutes); not measured: two; three" in errors


def test_only_some_parts(capsys):
    parts = app.list_parts(Results(), "cpu", quick=False)
    assert [part.name for part in app.choose_parts(parts, ["start", "testing"])] == [
        "testing, resnet56_superconv",
        "start-up",
    ]
    assert app.choose_parts(parts, None) == parts
    with pytest.raises(ReproError, match="--only fast: no such part; choose from: cnn3, batch 128; "):
        app.choose_parts(parts, ["fast"])


def test_turns_end_with_the_time(tiny, capsys):
    results = Results()
    loops = [tiny, replace(TINY, name="late")]
    measure.compare(results, "demo", loops, rounds=1000, seconds=0.01, until=time.monotonic() - 1)
    assert [line.what for line in results.lines] == ["ours"]
    assert "note: late: skipped, the time is over" in capsys.readouterr().err


def test_a_loop_that_does_not_answer_is_left_out(tiny, monkeypatch, capsys):
    monkeypatch.setattr(measure, "GRACE_SECONDS", 0.0)
    measure.compare(Results(), "demo", [tiny], rounds=1, until=time.monotonic())
    assert "note: ours: no response in time" in capsys.readouterr().err


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    """Without wandb, as on a machine that has none."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(app.importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sys, "argv", ["bench", "--quick", "--only", "overhead", "--only", "start-up", "--to", str(tmp_path)]
    )
    app.main()
    rows = list(csv.DictReader((tmp_path / "bench.csv").open()))
    assert {row["part"] for row in rows} == {"overhead", "start-up"}
    assert not any("W&B" in row["what"] for row in rows)
    assert "python -m repro.train, a run of one iteration" in capsys.readouterr().out
    assert cost.read_benchmark() is None  # no speed was measured


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--minutes", "-1")])
def test_turns_and_minutes_are_positive(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit):
        app.main()
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


def test_a_wrong_part_or_folder_is_named_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(app, "measure_parts", None)  # it is not called
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "nothing"])
    with pytest.raises(ReproError, match="--only nothing: no such part; choose from: cnn3"):
        app.main()
    monkeypatch.setattr(sys, "argv", ["bench", "--to", str(tmp_path / "file/tables")])
    with pytest.raises(NotADirectoryError):
        app.main()
    assert capsys.readouterr().out == ""


def test_a_child_answers_in_json_alone(capfd):
    with measure.Child(TINY) as child:
        child.start(2)
        measured = child.wait()
    assert measured["images"] == 250
    assert json.dumps(measured)
