"""The training speed of this machine, and that of commonly used loops: ``python -m repro.bench [--quick]``.

Every loop runs in its own process, with its own threads and allocator. They take turns, a few iterations at a
time, so that other load on the machine affects them all: read the ratios, and the range beside each median.
``--fidelity`` measures the errors of the fast settings instead. After each part the table so far is written to
``--to`` as CSV and markdown, and to ``bench.json`` in the user's cache folder, from which ``repro.train
--dry-run`` estimates costs.
"""

import argparse
import importlib.util
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from repro.bench import measure, overheads
from repro.bench.measure import Loop
from repro.bench.table import Part, Results, show, write
from repro.config import Precision
from repro.config.errors import ReproError
from repro.sweeps import cost, machine

CNN3 = "table1-cnn3/1cycle_cm_0.95-0.85"  # batches of 128
QUICK_MINUTES = 3.0  # --minutes with --quick, which takes under two on two idle cores


def list_parts(results: Results, device: str, quick: bool, rounds: int | None = None) -> list[Part]:
    """All parts except fidelity, in the order in which they are measured.

    ``rounds`` is the number of turns of each loop (by default 3 if ``quick``, else 7).
    """
    from repro.bench import floor
    from repro.training.precision import emulated

    parts: list[Part] = []
    bf16_emulated = emulated(Precision.bf16, device)
    if bf16_emulated:
        print(f"note: {device} only emulates bf16; it is not measured", file=sys.stderr)
    cores = machine.cores()
    gpu = device != "cpu"
    rounds, seconds = rounds or (3 if quick else 7), 0.6 if quick or gpu else 3.0
    base = Loop("", device=device, threads=cores)
    bf16, compiled = ("engine.precision=bf16",), ("engine.compile=true",)
    files = replace(base, name="peer, DataLoader in the process", kind="files", keep_freed=False)
    memory = replace(base, name="plain loop over tensors", kind="memory", keep_freed=False)
    plain = ("engine.compile=false", "engine.cuda_graph=false")

    def compare(part: str, loops: list[Loop], rounds: int, seconds: float) -> None:
        supported = [loop for loop in loops if not (bf16_emulated and "engine.precision=bf16" in loop.overrides)]
        action = partial(measure.compare, results, part, supported, rounds, seconds)
        parts.append(Part(part, action))

    def our_loops(large: bool) -> list[Loop]:
        loops = [replace(base, name="ours"), replace(base, name="ours, bf16", overrides=bf16)]
        if gpu:
            loops.append(replace(base, name="ours, graph alone", overrides=("engine.compile=false",)))
            loops.append(replace(base, name="ours, plain", overrides=plain))
            loops.append(replace(base, name="ours, plain bf16", overrides=(*plain, *bf16)))
            loops.append(replace(base, name="ours, tf32", overrides=("engine.precision=tf32",)))
        elif not (large or quick):
            loops.append(replace(base, name="ours, one thread", threads=1))
            loops.append(replace(base, name="ours, default allocator", keep_freed=False))
        return loops

    def on_demo(loops: list[Loop]) -> list[Loop]:
        return [replace(loop, demo=True) for loop in loops if "bf16" not in loop.name]

    def compare_training(name: str, experiment: str, batch_size: int, groups: int) -> None:
        # For large batches fewer loops, to save memory, and fewer rounds, to save time.
        large = batch_size > 128 and name.startswith("resnet") and not gpu
        peers = [files]
        if not (quick or large):
            peers += [replace(files, name="peer, 2 processes", loader_workers=2), memory]
        peers = [replace(loop, bn_groups=1) for loop in peers]
        loops = [*peers, *(replace(loop, bn_groups=groups) for loop in our_loops(large))]
        if not (quick or gpu or large) and name == "resnet56_superconv":
            loops.append(replace(base, name="ours, compiled", overrides=compiled))
            loops.append(replace(base, name="ours, compiled bf16", overrides=compiled + bf16))
        loops = [replace(loop, experiment=experiment, batch_size=batch_size) for loop in loops]
        compare(f"{name}, batch {batch_size}", loops, 3 if large else rounds, seconds)

    small = [("cnn3", CNN3, 128), ("lenet", "table2-lenet/1cycle_12ep", 512)]
    for name, experiment, batch_size in small[: 1 if quick else 2]:
        compare_training(name, experiment, batch_size, 1)
    superconv = [(1000, 8)] if gpu else [(128, 1), (1000, 8)]  # batch size, normalisation groups
    hyperparam = [(512, 4), (1024, 4)] if gpu else [(128, 4), (512, 4), (1024, 4)]
    count = 1 if quick and not gpu else None
    for batch_size, groups in superconv[:count]:
        compare_training("resnet56_superconv", "fig5a/clr_3.0", batch_size, groups)
    for batch_size, groups in hyperparam[:count]:
        compare_training("resnet56_hyperparam", "fig8b/tbs512", batch_size, groups)
    compare("demo network, with its tests", on_demo([memory, *our_loops(False)]), rounds + 2, seconds / 2)
    four_seeds = seed_loops(base, files, quick)
    if gpu:
        four_seeds = [
            replace(loop, batch_size=1000, bn_groups=8 if loop.kind == "ours" else 1) for loop in four_seeds
        ]
    compare(f"four seeds, resnet56_superconv, batch {four_seeds[0].batch_size}", four_seeds, rounds, 2 * seconds)
    if not (quick or gpu):
        ours = replace(base, experiment="fig8b/tbs512", batch_size=512, bn_groups=4)
        four_seeds = seed_loops(ours, replace(files, experiment=ours.experiment, batch_size=512), quick)
        compare("four seeds, resnet56_hyperparam, batch 512", four_seeds, 3, 2 * seconds)
    if not quick:
        ours = replace(base, experiment=CNN3)
        compare(
            "four seeds, cnn3, batch 128",
            seed_loops(ours, replace(files, experiment=CNN3), quick),
            rounds,
            seconds,
        )
    part = "four seeds, demo network, with its tests"
    compare(part, on_demo(seed_loops(base, memory, quick)), rounds + 2, seconds)
    if not quick:
        part = f"{overheads.COMMAND_SEEDS} seeds, demo network, as a command"
        plain_demo = replace(memory, demo=True)
        parts.append(Part(part, partial(overheads.measure_commands, results, part, plain_demo, rounds)))
        loops = [replace(memory, name="plain, 100 images at once", kind="plain testing")]
        loops += [replace(base, name="ours", kind="testing")]
        loops += [replace(base, name="ours, bf16", kind="testing", overrides=bf16)]
        compare("testing, resnet56_superconv", loops, rounds, seconds)
    wandb = importlib.util.find_spec("wandb") is not None
    floor_rounds, overhead_rounds, start_rounds = (3, 20, 1) if quick else (7, 100, 5)
    bf16_floor = not bf16_emulated
    parts.append(Part("floor", lambda _: floor.measure(results, device, cores, floor_rounds, bf16=bf16_floor)))
    parts.append(Part("overhead", lambda _: overheads.measure(results, overhead_rounds, wandb and not quick)))
    parts.append(Part("start-up", partial(overheads.measure_start_up, results, start_rounds, wandb)))
    return parts


def seed_loops(base: Loop, peer: Loop, quick: bool) -> list[Loop]:
    """Loops for four seeds: the peer's, one after the other, and ours, one after the other and concurrently."""
    loops = [replace(peer, name=f"{peer.name}, one after the other")]
    if not quick:
        loops.append(replace(base, name="ours, one after the other"))
    for count in [base.threads] if base.device == "cpu" else [2, 4]:
        ours = replace(base, threads=max(1, base.threads // count), at_once=count)
        loops.append(replace(ours, name=f"ours, {count} at once"))
        if not quick:
            loops.append(replace(ours, name=f"ours, bf16, {count} at once", overrides=("engine.precision=bf16",)))
    return loops


def describe_machine(device: str) -> dict[str, Any]:
    """The value of ``machine`` in ``bench.json``."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    # The GPU too where the CPU is measured: the rows of both belong to one machine.
    gpu = (
        torch.cuda.get_device_name(device if device.startswith("cuda") else 0)
        if torch.cuda.is_available()
        else None
    )
    return {"host": platform.node(), "cpu": cpu, "cores": machine.cores(), "gpu": gpu}


def main() -> None:
    """The console script ``repro-bench``."""
    parser = argparse.ArgumentParser(prog="repro-bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes on two idle cores")
    parser.add_argument(
        "--fidelity", action="store_true", help="measure the errors of the fast settings, not their speed"
    )
    parser.add_argument("--rounds", type=int, help="turns of each loop (default: 7, with --quick 3)")
    parser.add_argument(
        "--to", type=Path, default=Path("benchmarks"), help="folder for the tables (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--only", metavar="PART", action="append", help="measure only the parts whose names contain this"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"start no part or further turn after this (default: no limit; {QUICK_MINUTES:.0f} with --quick)",
    )
    arguments = parser.parse_args()
    for name in ("rounds", "minutes"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            parser.error(f"argument --{name}: {value} is not positive")
    import torch

    from repro.bench import fidelity
    from repro.training import loop

    clock = time.monotonic()
    minutes = arguments.minutes or (QUICK_MINUTES if arguments.quick else math.inf)
    device = loop.device(arguments.device)
    machine_info = describe_machine(device)
    instructions = torch.backends.cpu.get_cpu_capability()  # it may differ between processors of the same name
    processor = machine_info["gpu" if device.startswith("cuda") else "cpu"]
    hardware = f"{processor}, {machine_info['cores']} cores, {instructions}"
    load = os.getloadavg()[0]
    if load > 0.5:
        hardware += f", busy at the start (load {load:.1f})"
        print(f"note: this machine is busy (load {load:.1f}); measure again when it is idle", file=sys.stderr)
    command = " ".join(["python -m repro.bench", *sys.argv[1:]])
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    results = Results()
    if arguments.fidelity:
        parts = fidelity.list_parts(results, device, arguments.quick)
        name, title = "fidelity", "Fast settings against the reference"
    else:
        parts = list_parts(results, device, arguments.quick, arguments.rounds)
        name, title = "bench", "Speed"
    parts = choose_parts(parts, arguments.only)
    arguments.to.mkdir(parents=True, exist_ok=True)  # an impossible folder is an error before anything is measured

    def describe_setting() -> str:
        return f"`{command}` on {hardware}; {versions}; {(time.monotonic() - clock) / 60:.1f} min"

    def write_results() -> None:
        write(results, title, name, arguments.to, describe_setting())
        if results.speeds:
            cost.write_benchmark(machine_info, results.speeds)

    try:
        measure_parts(parts, clock + 60 * minutes, write_results)
    finally:
        show(results, title, describe_setting())


def choose_parts(parts: list[Part], only: list[str] | None) -> list[Part]:
    """The parts whose names contain one of ``only`` (None: all). Raises ReproError if none does."""
    chosen = [part for part in parts if only is None or any(text in part.name for text in only)]
    if not chosen:
        names = "; ".join(part.name for part in parts)
        raise ReproError(f"--only {' --only '.join(only or [])}: no such part; choose from: {names}")
    return chosen


def measure_parts(parts: list[Part], until: float, keep: Callable[[], None]) -> None:
    """Measure the parts in order and call ``keep`` after each; none starts after ``until`` (monotonic clock).

    A part that fails is reported on standard error and skipped.
    """
    for index, part in enumerate(parts):
        if index and time.monotonic() > until:
            names = "; ".join(part.name for part in parts[index:])
            print(f"note: the time is over (--minutes); not measured: {names}", file=sys.stderr)
            return
        print(f"measuring {part.name}", file=sys.stderr)
        try:
            part.measure(until)
        except (ReproError, subprocess.CalledProcessError) as error:
            print(f"note: {part.name}: {error}", file=sys.stderr)
        keep()
