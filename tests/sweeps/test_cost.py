"""What a sweep will cost, from the benchmark of this machine or without one."""

import json
import os
import subprocess
import sys

import pytest
import torch
from test_figures import write_run
from torch.utils.flop_counter import FlopCounterMode

from repro import models
from repro.config import Model
from repro.config.errors import ReproError
from repro.data import images
from repro.sweeps import cost, dry_run, machine
from repro.sweeps.cost import Shape
from repro.sweeps.machine import Plan

ROW = {"model": "resnet56_superconv", "blocks": 1, "width": 16, "resolution": 8, "batch_size": 125, "device": "cpu",
       "threads": 1, "images_per_second": 10_000.0, "memory_mb": 500.0}  # fmt: skip
DEMO = ("experiment=fig5a/clr_3.0", "scale=demo", "device=cpu")


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """A function: rows -> they are this machine's benchmark."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(*rows, host=None):
        path = tmp_path / "cache/disciplined-repro/bench.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": {"host": host}, "rows": rows}))
        return path

    return write


@pytest.mark.parametrize("name", models.networks())
@pytest.mark.parametrize(("blocks", "width", "side"), [(9, 16, 32), (1, 16, 16), (3, 8, 16)])
def test_multiply_adds_are_those_that_torch_counts(name, blocks, width, side):
    network = models.from_config(Model(name=name, blocks=blocks, width=width), 10, (side, side, 3), 0).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        network(torch.zeros(1, 3, side, side))
    shape = Shape(name, blocks, width, side)
    assert cost.network_sizes([shape])[shape][0] == counted.get_total_flops() / 2


def test_a_process_without_torch_has_sizes_counted_by_another_and_keeps_them(tmp_path):
    code = """if True:
        import sys
        from repro.sweeps import cost
        shapes = [cost.Shape("resnet56_superconv", 1, 4, 8, 1), cost.Shape("resnet56_hyperparam", 9, 16, 32)]
        sizes = cost.network_sizes(shapes)
        assert "torch" not in sys.modules
        print([sizes[shape] for shape in shapes])
    """
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    first = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    kept = json.loads((tmp_path / "disciplined-repro/sizes.json").read_text())
    assert len(kept) == 2
    ours = [Shape("resnet56_superconv", 1, 4, 8, 1), Shape("resnet56_hyperparam", 9, 16, 32)]
    assert first.stdout == f"{list(cost.network_sizes(ours).values())}\n"
    code = "import sys; sys.executable = '/nowhere'\n" + code
    again = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert again.stdout == first.stdout


def test_an_unknown_network_has_no_size():
    shape = Shape("vgg", 1, 16, 32)
    with pytest.raises(ReproError, match="model.name=vgg: choose from "):
        cost.network_sizes([shape])
    code = "from repro.sweeps import cost; cost.network_sizes([cost.Shape('vgg', 1, 16, 32)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ReproError: model.name=vgg: choose from cnn3, lenet" in done.stderr


FAULTY = """
from torch import nn


class Network(nn.Linear):
    def forward(self, images):
        return {"features": images}["my_feature"]


def network(num_classes, channels):
    return Network(channels, num_classes)


def kills(num_classes, channels):
    import os, sys
    print("no more memory", file=sys.stderr)
    os._exit(3)


def square(num_classes, channels, *, resolution):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * resolution**2, num_classes))
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("network", "model.name=faulty:network: it fails for a batch of images of shape (1, 3, 8, 8): KeyError: "
                    "'my_feature' (faulty.py, line 7)"),
        ("kills", "no more memory"),
    ],
)  # fmt: skip
def test_an_error_in_ones_own_network_says_where(tmp_path, name, message):
    (tmp_path / "faulty.py").write_text(FAULTY)
    code = f"from repro.sweeps import cost; cost.network_sizes([cost.Shape('faulty:{name}', 1, 16, 8)])"
    env = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.stderr.splitlines()[-1] == f"repro.config.errors.ReproError: {message}"


def test_an_unexpected_error_in_sizing_shows_its_traceback(capsys):
    stderr = "Traceback (most recent call last):\n  File 'mine.py', line 3\nKeyError: 'x'\n"
    error = cost._sizing_error(stderr, [Shape("mine:network", 1, 16, 8)])
    assert str(error) == "model.name=mine:network: the size of the network cannot be counted: KeyError: 'x'"
    assert "File 'mine.py', line 3" in capsys.readouterr().err
    assert "its process ended without a message" in str(cost._sizing_error("", [Shape("mine:network", 1, 16, 8)]))


def test_oblong_images_are_planned_as_they_are_trained(resolved, monkeypatch, tmp_path):
    (tmp_path / "oblong_for_cost.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = resolved(*DEMO, "dataset.resolution=null")
    square = cost.parameters(run)
    monkeypatch.setattr(images, "shape", lambda dataset: (16, 24, 1))
    assert cost.parameters(run) == square
    run.model.name = "oblong_for_cost:square"
    with pytest.raises(
        ReproError, match="its parameter resolution is for square images, and these have 24x16 pixels"
    ):
        cost.parameters(run)
    run.dataset.resolution = 16
    assert cost.parameters(run) == (256 + 1) * 10


def test_a_run_takes_what_it_trains_and_tests_at_the_measured_speed(resolved):
    run = resolved(*DEMO)
    one = cost.estimate(run, Plan(1, 1, [], 2), [ROW])
    images = run.iterations * run.batch_size
    tests = run.iterations // run.test_every
    assert one.seconds == pytest.approx((images + tests * 1497 / 3) / 10_000)
    assert one.memory_mb == 500
    assert one.basis.endswith("batch 125, on cpu")
    half = cost.estimate(run, Plan(1, 1, [], 2), [ROW], start=run.iterations // 2)
    assert half.seconds == pytest.approx(one.seconds / 2, rel=0.05)
    assert cost.estimate(run, Plan(4, 1, [], 2), [ROW]).seconds == 2 * one.seconds  # four share two cores
    two = cost.estimate(run, Plan(1, 2, [], 2), [ROW])
    assert two.seconds == one.seconds / 2
    assert two.basis.endswith("scaled from 1 thread to 2")


def test_the_closest_row_counts(resolved):
    rows = [
        ROW,
        {**ROW, "batch_size": 1000, "images_per_second": 1.0},
        {**ROW, "threads": 2, "images_per_second": 2.0},
        {**ROW, "device": "cuda", "images_per_second": 3.0},
        {**ROW, "model": "resnet56_hyperparam", "images_per_second": 4.0},
        {**ROW, "blocks": 9, "images_per_second": 5.0},
    ]
    planned = Plan(1, 1, [], 2)
    assert cost.estimate(resolved(*DEMO), planned, rows).seconds < 10
    other = cost.estimate(resolved(*DEMO, "model.blocks=2"), planned, [ROW])
    alone = cost.estimate(resolved(*DEMO), planned, [ROW])
    assert other.basis.endswith("scaled by multiply-adds")
    assert other.seconds > 2 * alone.seconds
    assert cost.estimate(resolved(*DEMO), planned, rows[3:4]).seconds is None
    # Of the same name, but further in size.
    large = {**ROW, "model": "resnet56_hyperparam", "blocks": 9, "resolution": 32}
    basis = cost.estimate(resolved("experiment=fig8b/tbs512", "scale=demo"), planned, [large, ROW]).basis
    assert basis.startswith("resnet56_superconv, 1 block, 8x8 pixels")


def test_memory_is_that_of_the_groups_that_a_device_takes_at_once(resolved):
    row = {**ROW, "device": "cuda:0"}
    run = resolved("experiment=fig5a/clr_3.0")  # not measured: 8 groups of 125 images, 6 MB an image
    on_cpu = cost.estimate(run, Plan(1, 1, [], 2), [ROW]).memory_mb - cost.PROCESS_MB
    on_gpu = cost.estimate(run, Plan(1, 1, ["0"]), [row]).memory_mb - cost.PROCESS_MB
    assert on_cpu == pytest.approx(125 * 6, rel=0.1)
    assert on_gpu == pytest.approx(8 * on_cpu)
    run.engine.compile = True
    assert cost.estimate(run, Plan(1, 1, [], 2), [ROW]).memory_mb - cost.PROCESS_MB == on_gpu


def test_a_broken_benchmark_is_none(benchmark):
    assert cost.read_benchmark() is None
    path = benchmark(ROW)
    assert cost.read_benchmark()["rows"] == [ROW]
    for text in ("{", "[]", "{}", '{"rows": []}', '{"rows": 3}'):
        path.write_text(text)
        assert cost.read_benchmark() is None


def test_rows_that_say_nothing_here_are_left_out(resolved, benchmark):
    unknown = {**ROW, "model": "resnet_old"}
    rows = [ROW, unknown, {**ROW, "images_per_second": None}, {k: v for k, v in ROW.items() if k != "threads"}, 3]
    benchmark(ROW).write_text(json.dumps({"machine": None, "rows": rows}))
    read = cost.read_benchmark()
    assert read == {"machine": {}, "rows": [ROW, unknown]}
    run, planned = resolved(*DEMO), Plan(1, 1, [], 1)
    assert cost.estimate(run, planned, read["rows"]) == cost.estimate(run, planned, [ROW])


def test_a_new_measurement_replaces_the_same_one_of_this_machine(benchmark):
    here, there = {"host": "here", "gpu": None}, {"host": "there", "gpu": None}
    faster, other = {**ROW, "images_per_second": 2 * ROW["images_per_second"]}, {**ROW, "batch_size": 7}
    benchmark(ROW, host="there").unlink()
    cost.write_benchmark(here, [ROW, other])
    cost.write_benchmark(here, [faster])
    assert cost.read_benchmark() == {"machine": here, "rows": [other, faster]}
    cost.write_benchmark(there, [ROW])
    assert cost.read_benchmark() == {"machine": there, "rows": [ROW]}


def test_runs_beside_others_are_estimated_by_runs_beside_others(benchmark):
    benchmark(ROW).unlink()
    beside = {**ROW, "images_per_second": 0.9 * ROW["images_per_second"]}
    for rows in ([ROW, beside], [beside, ROW]):
        cost.write_benchmark({}, rows)
        assert cost.read_benchmark()["rows"] == [beside]


def test_as_many_runs_as_memory_holds(resolved, benchmark, monkeypatch):
    benchmark(ROW)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "free_memory", lambda: 1100.0)
    run = resolved(*DEMO)
    assert cost.plan_within_memory([run] * 9).workers == 2
    run.workers = 5
    assert cost.plan_within_memory([run] * 9).workers == 5


def test_a_dry_run_says_the_cost_and_trains_nothing(run_app, tmp_path, benchmark):
    import platform

    benchmark(ROW, host=platform.node())
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    home = tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3"
    done = run_app("train", "sweep=fig5b", "scale=demo", "--dry-run", "device=cpu", "workers=2")
    assert done.returncode == 0, done.stderr
    assert "16 runs to do, 0 finished; 200,000 images; time: " in done.stdout
    assert "2 at once, 1 thread each; memory: about " in done.stdout
    assert "from resnet56_superconv, 1 block, 8x8 pixels, batch 125, on cpu" in done.stdout
    assert not home.exists()
    assert len([line for line in done.stdout.splitlines() if "fig5" in line]) == 4


def test_finished_runs_cost_nothing(resolved, benchmark, capsys, tmp_path):
    from repro.config import to_dict

    run = resolved(*DEMO)
    write_run(tmp_path / "seed0", [(0, 0.1)], status="finished")
    info = json.loads((tmp_path / "seed0/run.json").read_text())
    (tmp_path / "seed0/run.json").write_text(json.dumps({**info, "protocol": 1, "config": to_dict(run)}))
    runs = [(tmp_path / f"seed{k}", run) for k in range(3)]
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed1/checkpoint-000000050.pt").touch()
    dry_run.print_cost(runs, local=True)
    printed = capsys.readouterr().out
    images = (2 * run.iterations - 50) * run.batch_size
    assert f"2 runs to do, 1 finished; {images:,} images; time: unknown" in printed
    assert cost.NO_BENCHMARK in printed
    dry_run.print_cost(runs[:1], local=True)
    assert "nothing to do: 1 of 1 run is finished" in capsys.readouterr().out
    benchmark(ROW, host="elsewhere")
    dry_run.print_cost(runs, local=False)
    printed = capsys.readouterr().out
    assert "one run after another (the launcher decides how many run at once)" in printed
    assert "the benchmark is from another machine, elsewhere" in printed


def test_names_from_outside_are_printed_as_they_are(resolved, benchmark, capsys, tmp_path):
    benchmark(ROW, host="[/red]:node:")
    run = resolved(*DEMO)
    run.curve = "mine/[/bold]:a:"
    dry_run.print_cost([(tmp_path / "seed0", run)], local=True)
    printed = capsys.readouterr().out
    assert "mine/[/bold]:a:" in printed
    assert "another machine, [/red]:node:" in printed


def test_a_run_that_starts_from_a_snapshot_costs_what_follows_it(resolved, tmp_path):
    run = resolved("experiment=fig12a/wd_1e-2", "scale=demo")
    assert dry_run._first_iteration(tmp_path, run) == run.start.iteration > 0
    (tmp_path / f"checkpoint-{run.start.iteration + 5:09d}.pt").touch()
    assert dry_run._first_iteration(tmp_path, run) == run.start.iteration + 5


def test_the_time_of_a_sweep_is_when_its_last_run_ends():
    costs = [cost.Estimate(seconds, 0.0) for seconds in (30.0, 10.0, 20.0, 15.0)]
    assert [dry_run._total_seconds(costs, workers) for workers in (1, 2, 9)] == [75, 45, 30]
    assert dry_run._total_seconds([*costs, cost.Estimate(None, 0.0)], 2) is None
