"""The cost of a run beyond its iterations: whole commands, rows, W&B, checkpoints, start-up."""

import copy
import importlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from repro.bench.measure import Child, Loop, compose_config, warm_up
from repro.bench.table import Results
from repro.records import Info, Row
from repro.sweeps import machine

COMMAND_SEEDS = 8
GOAL_SPEED = 167_000.0  # images/s, at which overheads take the largest share of a run


def measure_commands(
    results: Results, part: str, plain: Loop, rounds: int, until: float = math.inf, seeds: int = COMMAND_SEEDS
) -> None:
    """Add the speed of the demo's sweep as a command, including start and end, and of a plain loop without."""
    config = compose_config(plain)
    images = seeds * config.iterations * config.batch_size
    sweep = ["-m", "repro.train", "-m", f"experiment={config.curve}", "scale=demo", f"seed=range({seeds})"]
    sweep += ["test_at_start=false", "tracking=disabled", f"device={plain.device}"]
    counts = sorted({1, 2, machine.cores()})
    speeds: dict[str, list[float]] = {plain.name: [], **{f"ours, workers={count}": [] for count in counts}}
    with Child(plain) as child:
        warm_up([child])
        for index in range(rounds):
            if index and time.monotonic() > until:
                break
            child.start(seeds * config.iterations)
            speeds[plain.name].append(images / child.wait()["seconds"])
            for count in counts:
                speeds[f"ours, workers={count}"].append(images / time_command([*sweep, f"workers={count}"]))
    for name, values in speeds.items():
        results.add(part, name, values, "images/s", baseline=statistics.median(speeds[plain.name]))


def time_command(arguments: list[str]) -> float:
    """The seconds of ``python`` with these arguments; runs of ``repro.train`` go to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        output = [f"output={folder}"] if "repro.train" in arguments else []
        clock = time.perf_counter()
        subprocess.run([sys.executable, *arguments, *output], check=True, capture_output=True)
        return time.perf_counter() - clock


def measure(results: Results, rounds: int, wandb: bool) -> None:
    """Add the times of a row, of W&B and of a checkpoint, and their shares of a run at ``GOAL_SPEED``."""
    from repro import models
    from repro.records import Record
    from repro.training import checkpoints, loop
    from repro.training.state import State

    config = compose_config(Loop("", overrides=() if wandb else ("tracking=disabled",)))
    state = State(config, models.from_config(config.model, 10, (32, 32, 3), 0), "cpu")
    checkpoint = state.state_dict()
    row: Row = {
        "iteration": 1,
        "lr": 0.1,
        "momentum": 0.9,
        "train_loss": 1.0,
        "test_loss": 1.0,
        "test_accuracy": 0.5,
        "images_per_second": None,
    }
    row_seconds = 100 * 1000 / GOAL_SPEED  # between the tests of Figure 5, a hundred in its short runs

    def milliseconds(action: Callable[[], object]) -> list[float]:
        times = []
        for _ in range(rounds):
            clock = time.perf_counter()
            action()
            times.append(1e3 * (time.perf_counter() - clock))
        return times

    def add(name: str, values: list[float], interval: float) -> None:
        share = statistics.median(values) / 1e3 / interval
        results.add("overhead", name, values, "ms", f"{share:.3%} of a run at {GOAL_SPEED:,.0f} images/s")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        record = Record(folder, config, loop.environment("cpu"))
        add("a row of the record", milliseconds(lambda: record.append(row)), row_seconds)
        if wandb:
            empty = [mirror_milliseconds(record.info, []) for _ in range(3)]
            full = [mirror_milliseconds(record.info, [row] * 1000) for _ in range(3)]
            add("W&B, offline, processor time: start and end of a run", empty, 100 * row_seconds)
            per_row = [(value - statistics.median(empty)) / 1000 for value in full]
            add("W&B, offline, processor time: a row", per_row, row_seconds)
        interval = config.checkpoint_seconds
        add("a checkpoint: the copy", milliseconds(lambda: copy.deepcopy(state.state_dict())), interval)
        add(
            "a checkpoint: writing it, in its thread",
            milliseconds(lambda: checkpoints.save(folder, checkpoint)),
            interval,
        )
        record.finish("finished")


def mirror_milliseconds(info: Info, rows: list[Row]) -> float:
    """Processor time of a W&B run of these rows, in this process and in wandb's process."""
    import wandb

    from repro.tracking import _compat
    from repro.tracking.mirror import Mirror

    importlib.import_module(_compat.PRELOAD)  # a sweep imports it before its runs start
    before = sum(os.times()[:4])
    with tempfile.TemporaryDirectory() as folder:
        mirror = Mirror(info, Path(folder))
        for iteration, row in enumerate(rows):
            mirror.row({**row, "iteration": iteration})
        mirror.finish({**info, "status": "finished"})
        wandb.teardown()  # ends wandb's process, so that its time is counted
    return 1e3 * (sum(os.times()[:4]) - before)


def measure_start_up(results: Results, rounds: int, wandb: bool, until: float = math.inf) -> None:
    """Add the seconds of a run of one iteration as a command, and of importing torch alone."""
    run = ["-m", "repro.train", "experiment=fig5a/clr_3.0", "scale=smoke", "iterations=1", "device=cpu"]
    commands = {
        "python -c 'import torch'": ["-c", "import torch"],
        "python -m repro.train, a run of one iteration": [*run, "tracking=disabled"],
    }
    if wandb:
        commands["the same with W&B, offline"] = [*run, "tracking=offline"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for index in range(rounds):
        if index and time.monotonic() > until:
            break
        for name, arguments in commands.items():
            times[name].append(time_command(arguments))
    for name, values in times.items():
        results.add("start-up", name, values, "s", baseline=statistics.median(next(iter(times.values()))))
