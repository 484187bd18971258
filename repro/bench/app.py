"""How fast this machine trains, and how fast the loops that people use do: ``python -m repro.bench [--quick]``.

Every loop runs in a process of its own, with its own threads and allocator. They take turns, a few iterations at
a time, so that what else the machine does strikes them all: read the ratios, and the range beside each median.
``--fidelity`` compares the numbers of the fast settings instead. ``--to`` (default ``benchmarks``) gets the table
as CSV and markdown; the user's cache folder gets ``bench.json``, by which ``repro.train --dry-run`` estimates.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro.bench import measure
from repro.bench.measure import Child, Loop, configured
from repro.bench.table import Results, write
from repro.config import Precision
from repro.config.folders import cache_folder
from repro.records import Info, Row
from repro.sweeps import machine

GOAL = 167_000.0  # images/s: at that speed what a test or a checkpoint costs is the largest share of a run


def benchmark(device: str, quick: bool, rounds: int | None = None) -> Results:
    """Everything but fidelity."""
    from repro.bench import floor
    from repro.training import steps

    results = Results()
    no_bf16 = steps.emulated(Precision.bf16, device)
    if no_bf16:
        print(f"note: {device} has no arithmetic for bf16; its lines are left out", file=sys.stderr)
    cores = machine.cores()
    gpu = device != "cpu"
    rounds, seconds = rounds or (3 if quick else 7), 0.6 if quick else 3.0
    base = Loop("", device=device, threads=cores)
    bf16, compiled = ("engine.precision=bf16",), ("engine.compile=true",)
    files = replace(base, name="peer, DataLoader in the process", kind="files", keep=False)
    memory = replace(base, name="plain loop over tensors", kind="memory", keep=False)
    plain = ("engine.compile=false", "engine.cuda_graph=false")

    def compare(part: str, loops: list[Loop], rounds: int, seconds: float) -> None:
        kept = [loop for loop in loops if not (no_bf16 and "engine.precision=bf16" in loop.overrides)]
        measure.compare(results, part, kept, rounds, seconds)

    def variants(large: bool) -> list[Loop]:
        loops = [replace(base, name="ours"), replace(base, name="ours, bf16", overrides=bf16)]
        if gpu:
            loops.append(replace(base, name="ours, plain", overrides=plain))
            loops.append(replace(base, name="ours, plain bf16", overrides=(*plain, *bf16)))
            loops.append(replace(base, name="ours, tf32", overrides=("engine.precision=tf32",)))
        elif not (large or quick):
            loops.append(replace(base, name="ours, one thread", threads=1))
            loops.append(replace(base, name="ours, default allocator", keep=False))
        return loops

    def demo(loops: list[Loop]) -> list[Loop]:
        return [replace(loop, demo=True) for loop in loops if "bf16" not in loop.name]

    def train(name: str, experiment: str, batch: int, groups: int) -> None:
        """Large batches on a CPU in fewer ways, for the memory, and in fewer rounds, for the time."""
        large = batch > 128 and not gpu
        peers = [files] if quick or large else [files, replace(files, name="peer, 2 processes", workers=2), memory]
        peers = [replace(loop, bn_groups=1) for loop in peers]
        loops = [*peers, *(replace(loop, bn_groups=groups) for loop in variants(large))]
        if not (quick or gpu or large) and name == "resnet56_superconv":
            loops.append(replace(base, name="ours, compiled", overrides=compiled))
            loops.append(replace(base, name="ours, compiled bf16", overrides=compiled + bf16))
        loops = [replace(loop, experiment=experiment, batch_size=batch) for loop in loops]
        compare(f"{name}, batch {batch}", loops, 3 if large else rounds, seconds)

    superconv = [(1000, 8)] if gpu else [(128, 1), (1000, 8)]  # batch size, normalisation groups
    hyperparam = [(512, 4), (1024, 4)] if gpu else [(128, 4), (512, 4), (1024, 4)]
    first = 1 if quick and not gpu else None
    for batch, groups in superconv[:first]:
        train("resnet56_superconv", "fig5a/clr_3.0", batch, groups)
    for batch, groups in hyperparam[:first]:
        train("resnet56_hyperparam", "fig8b/tbs512", batch, groups)
    compare("demo network, with its tests", demo([memory, *variants(False)]), rounds + 2, seconds / 2)
    four = sweeps(base, files, quick)
    if gpu:
        four = [replace(loop, batch_size=1000, bn_groups=8 if loop.kind == "ours" else 1) for loop in four]
    compare(f"four seeds, resnet56_superconv, batch {four[0].batch_size}", four, rounds, 2 * seconds)
    if not (quick or gpu):
        own = replace(base, experiment="fig8b/tbs512", batch_size=512, bn_groups=4)
        four = sweeps(own, replace(files, experiment=own.experiment, batch_size=512), quick)
        compare("four seeds, resnet56_hyperparam, batch 512", four, 3, 2 * seconds)
    part = "four seeds, demo network, with its tests"
    compare(part, demo(sweeps(base, memory, quick)), rounds + 2, seconds)
    if not quick:
        commands(results, replace(memory, demo=True), rounds)
        loops = [replace(memory, name="plain, 100 images at once", kind="plain testing")]
        loops += [replace(base, name="ours", kind="testing")]
        loops += [replace(base, name="ours, bf16", kind="testing", overrides=bf16)]
        compare("testing, resnet56_superconv", loops, rounds, seconds)
    print("measuring floor, overheads, start-up", file=sys.stderr)
    floor.measure(results, device, cores, rounds=3 if quick else 7, bf16=not no_bf16)
    overheads(results, 20 if quick else 100, wandb=not quick)
    start_up(results, 1 if quick else 5)
    return results


def sweeps(base: Loop, other: Loop, quick: bool) -> list[Loop]:
    """Four seeds as another loop trains them, and as ours does: one after the other and several at once."""
    loops = [replace(other, name=f"{other.name}, one after the other")]
    if not quick:
        loops.append(replace(base, name="ours, one after the other"))
    at_once = [base.threads] if base.device == "cpu" else [2, 4]
    for count in at_once:
        ours = replace(base, threads=max(1, base.threads // count), at_once=count)
        loops.append(replace(ours, name=f"ours, {count} at once"))
        if not quick:
            loops.append(replace(ours, name=f"ours, bf16, {count} at once", overrides=("engine.precision=bf16",)))
    return loops


def commands(results: Results, plain: Loop, rounds: int, seeds: int = 8) -> None:
    """A sweep of the demo as a user launches it, start and end included, beside a loop that has neither."""
    part = f"{seeds} seeds, demo network, as a command"
    config = configured(plain)
    images = seeds * config.iterations * config.batch_size
    sweep = ["-m", "repro.train", "-m", f"experiment={config.curve}", "scale=demo", f"seed=range({seeds})"]
    sweep += ["test_at_start=false", "tracking=disabled", f"device={plain.device}"]
    print(f"measuring {part}", file=sys.stderr)
    counts = sorted({1, 2, machine.cores()})
    speeds: dict[str, list[float]] = {plain.name: [], **{f"ours, workers={count}": [] for count in counts}}
    with Child(plain) as child:
        measure.warmed_up([child])
        for _ in range(rounds):
            child.ask(seeds * config.iterations)
            speeds[plain.name].append(images / child.answer()["seconds"])
            for count in counts:
                speeds[f"ours, workers={count}"].append(images / lasting([*sweep, f"workers={count}"]))
    for name, values in speeds.items():
        results.add(part, name, values, "images/s", first=statistics.median(speeds[plain.name]))


def lasting(arguments: list[str]) -> float:
    """Seconds of ``python`` with these arguments; a ``repro.train`` leaves its runs in a folder that goes away."""
    with tempfile.TemporaryDirectory() as place:
        more = [f"output={place}"] if "repro.train" in arguments else []
        clock = time.perf_counter()
        subprocess.run([sys.executable, *arguments, *more], check=True, capture_output=True)
        return time.perf_counter() - clock


def overheads(results: Results, rounds: int, wandb: bool) -> None:
    """Of a row, of W&B, of a checkpoint: what it takes, and its share of a run at the goal's speed."""
    from repro import models
    from repro.records import Record
    from repro.training import checkpoints, loop
    from repro.training.state import State

    quiet = () if wandb else ("tracking=disabled",)
    config = configured(Loop("", overrides=quiet))
    state = State(config, models.from_config(config.model, 10, 3, 0), "cpu")
    saved = state.state_dict()
    row: Row = {
        "iteration": 1,
        "lr": 0.1,
        "momentum": 0.9,
        "train_loss": 1.0,
        "test_loss": 1.0,
        "test_accuracy": 0.5,
        "images_per_second": None,
    }
    between = 100 * 1000 / GOAL  # seconds from test to test in Figure 5, whose short runs have a hundred of them

    def timed(action: Callable[[], object]) -> list[float]:
        found = []
        for _ in range(rounds):
            clock = time.perf_counter()
            action()
            found.append(1e3 * (time.perf_counter() - clock))
        return found

    def told(what: str, values: list[float], every: float) -> None:
        share = statistics.median(values) / 1e3 / every
        results.add("overhead", what, values, "ms", f"{share:.3%} of a run at {GOAL:,.0f} images/s")

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        record = Record(folder, config, loop.environment("cpu"))
        told("a row of the record", timed(lambda: record.append(row)), between)
        if wandb:
            ends = [mirrored(record.info, []) for _ in range(3)]
            rows = [mirrored(record.info, [row] * 1000) for _ in range(3)]
            told("W&B, offline, processor time: start and end of a run", ends, 100 * between)
            each = [(value - statistics.median(ends)) / 1000 for value in rows]
            told("W&B, offline, processor time: a row", each, between)
        every = config.checkpoint_seconds
        told("a checkpoint: the copy", timed(lambda: copy.deepcopy(state.state_dict())), every)
        told("a checkpoint: writing it, in its thread", timed(lambda: checkpoints.save(folder, saved)), every)
        record.finish("finished")


def mirrored(info: Info, rows: list[Row]) -> float:
    """Milliseconds of processor time that a W&B run of these rows takes, here and in wandb's own processes."""
    import wandb
    import wandb.sdk.launch  # as a sweep does, before its runs begin

    from repro.tracking.mirror import Mirror

    before = sum(os.times()[:4])
    with tempfile.TemporaryDirectory() as place:
        mirror = Mirror(info, Path(place))
        for i, row in enumerate(rows):
            mirror.row({**row, "iteration": i})
        mirror.finish({**info, "status": "finished"})
        wandb.teardown()  # its process ends, and is counted
    return 1e3 * (sum(os.times()[:4]) - before)


def start_up(results: Results, rounds: int) -> None:
    """Seconds from a command to the end of a run of one iteration, or to torch alone."""
    run = ["-m", "repro.train", "experiment=fig5a/clr_3.0", "scale=smoke", "iterations=1", "device=cpu"]
    ways = {
        "python -c 'import torch'": ["-c", "import torch"],
        "python -m repro.train, a run of one iteration": [*run, "tracking=disabled"],
        "the same with W&B, offline": [*run, "tracking=offline"],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, arguments in ways.items():
            times[name].append(lasting(arguments))
    for name, values in times.items():
        results.add("start-up", name, values, "s", first=statistics.median(next(iter(times.values()))))


def described(device: str) -> dict[str, Any]:
    """The machine, in the words of ``bench.json``."""
    import torch

    try:
        cpu = next(s.split(":")[1].strip() for s in open("/proc/cpuinfo") if s.startswith("model name"))  # noqa: SIM115
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {"host": platform.node(), "cpu": cpu, "cores": machine.cores(), "gpu": gpu}


def main() -> None:
    """The console script ``repro-bench``."""
    parser = argparse.ArgumentParser(prog="repro-bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes on two cores")
    parser.add_argument(
        "--fidelity", action="store_true", help="compare the fast settings' numbers, not their speed"
    )
    parser.add_argument("--rounds", type=int, help="turns of each loop (7, or 3 when quick)")
    parser.add_argument("--to", type=Path, default=Path("benchmarks"), help="folder of the tables")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    import torch

    from repro.bench import fidelity
    from repro.training import loop

    clock = time.monotonic()
    device = loop.device(arguments.device)
    found = described(device)
    instructions = torch.backends.cpu.get_cpu_capability()  # processors of one name may differ in it, and by much
    where = f"{found['gpu'] or found['cpu']}, {found['cores']} cores, {instructions}"
    busy = os.getloadavg()[0]
    if busy > 0.5:
        where += f" that were busy when it began (load {busy:.1f})"
        print(f"note: this machine is busy (load {busy:.1f}); measure again when it is not", file=sys.stderr)
    results = Results()
    if arguments.fidelity:
        fidelity.compare(results, device, arguments.quick)
        name, title = "fidelity", "Fast settings against the reference"
    else:
        results = benchmark(device, arguments.quick, arguments.rounds)
        name, title = "bench", "Speed"
        cache = cache_folder(None) / "bench.json"
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({"machine": found, "rows": results.speeds}, indent=1) + "\n")
    minutes = (time.monotonic() - clock) / 60
    command = " ".join(["python -m repro.bench", *sys.argv[1:]])
    setting = (
        f"`{command}` on {where}; Python {platform.python_version()}, torch {torch.__version__}; {minutes:.1f} min"
    )
    write(results, title, name, arguments.to, setting)
