"""How fast this machine trains, and how fast the loops that people use do: ``python -m repro.bench [--quick]``.

Every loop runs in a process of its own, with its own threads and allocator. They take turns, a few iterations at
a time, so that what else the machine does strikes them all: read the ratios, and the range beside each median.
``--fidelity`` compares the numbers of the fast settings instead. ``--to`` (default ``benchmarks``) gets the table
as CSV and markdown; the user's cache folder gets ``bench.json``, by which ``repro.train --dry-run`` estimates.
"""

import argparse
import contextlib
import csv
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from repro import machine
from repro.config import CONF, Config, ReproError, cache_folder

GOAL = 167_000.0  # images/s: at that speed what a test or a checkpoint costs is the largest share of a run
COLUMNS = ["part", "what", "median", "low", "high", "unit", "ratio", "note"]


@dataclass(frozen=True)
class Loop:
    """One way to train: a line of the table, and a process while it is measured."""

    name: str
    kind: str = "ours"  # or "files", "memory": repro.peer's; "testing" and "plain testing" of a network
    experiment: str = "fig5a/clr_3.0"
    batch_size: int = 128
    bn_groups: int = 1
    demo: bool = False  # the demo's network on digits, testing included; otherwise the paper's on 32x32 noise
    threads: int = 1
    workers: int = 0  # of the DataLoader
    device: str = "cpu"
    keep: bool = True  # machine.keep_freed_memory
    overrides: tuple[str, ...] = ()


@dataclass
class Line:
    """One measurement: the median of its rounds, their range, the ratio to the first of its part."""

    part: str
    what: str
    median: float
    low: float
    high: float
    unit: str
    ratio: float | None = None
    note: str = ""


@dataclass
class Results:
    """What a benchmark found; ``speeds`` are the rows of ``bench.json``."""

    lines: list[Line] = field(default_factory=list)
    speeds: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: str, what: str, values: list[float], unit: str, note: str = "", first: float = 0) -> None:
        """A line from the values of its rounds; ``first`` is the median that its ratio is to."""
        median = statistics.median(values)
        self.lines.append(
            Line(part, what, median, min(values), max(values), unit, median / first if first else None, note)
        )


class Child:
    """A loop in a process of its own, which waits until it is told how many iterations to do."""

    def __init__(self, loop: Loop):
        self.loop = loop
        env = {**os.environ, "OMP_NUM_THREADS": str(loop.threads), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "repro.bench", "--child", json.dumps(asdict(loop))]
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(self, iterations: int) -> None:
        """Begin; ``answer`` waits for the end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # answer says why
            print(iterations, file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, float]:
        """Seconds, images and peak megabytes. Raises ReproError with the last line of a child that died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            last = self.process.stderr.read().strip().splitlines()[-1:]
            raise ReproError(f"{self.loop.name}: {''.join(last) or 'ended early'}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()


def child(loop: Loop) -> None:
    """The process of ``Child``: for each number on standard input, so many iterations and their time."""
    if loop.keep:
        machine.keep_freed_memory()
    import torch

    torch.set_num_threads(loop.threads)
    steps, images = _steps(loop)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        clock = time.perf_counter()
        for _ in range(int(line)):
            next(steps)
        if loop.device != "cpu":
            torch.cuda.synchronize(loop.device)
        seconds = time.perf_counter() - clock
        peak = torch.cuda.max_memory_allocated(loop.device) / 2**20 if loop.device != "cpu" else peak_memory()
        print(json.dumps({"seconds": seconds, "images": int(line) * images, "megabytes": peak}), file=answers)
        answers.flush()


def peak_memory() -> float:
    """Megabytes that this process has held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def configured(loop: Loop) -> Config:
    """The run that a loop trains, long enough never to end."""
    if loop.demo:  # at the demo's pace of testing, every 16 iterations
        size = ["scale=demo", "iterations=40_000"]
    else:
        size = [f"batch_size={loop.batch_size}", f"model.bn_groups={loop.bn_groups}"]
        size += ["iterations=1_000_000", "test_every=1_000_000"]
    return run_of(f"experiment={loop.experiment}", *size, "test_at_start=false", *loop.overrides)


def run_of(*overrides: str) -> Config:
    """The run that a command line of ``repro.train`` describes."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from repro import sweeper
    from repro.config import resolve

    sweeper.register()
    begun = GlobalHydra.instance().is_initialized()
    with contextlib.nullcontext() if begun else initialize_config_dir(str(CONF), version_base="1.3"):
        composed: Any = compose("train", [*overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        del composed._content["hydra"]
        return resolve(composed)


def _steps(loop: Loop) -> tuple[Iterator[Any], int]:
    """A generator that trains (or tests) an iteration a ``next``, and its images an iteration."""
    import torch

    from repro import data, models, peer, training

    config = configured(loop)
    loaded = data.load(config.dataset, loop.device) if loop.demo else noise(loop.device)
    network = models.from_config(config.model, loaded.classes, loaded.mean.shape[2], 0).to(loop.device)
    batch = config.batch_size
    if loop.kind == "files":
        images, labels = loaded.train_images.cpu().numpy(), loaded.train_labels.cpu().numpy()
        plain = network.to(memory_format=torch.contiguous_format)
        return peer.from_files(plain, images, labels, batch, loop.device, loop.workers), batch
    if loop.kind in ("memory", "plain testing"):
        network = network.to(memory_format=torch.contiguous_format)
        train, test = (
            loaded.network_input(images).contiguous() for images in (loaded.train_images, loaded.test_images)
        )
        if loop.kind == "memory":
            tested = (test, loaded.test_labels, config.test_every)
            return peer.from_memory(network, train, loaded.train_labels, batch, tested), batch
        return _testing(lambda: peer.accuracy(network.eval(), test, loaded.test_labels)), len(test)
    if loop.kind == "testing":
        precision = config.engine.precision
        return _testing(lambda: training.test(network, loaded, precision)), len(loaded.test_labels)

    def forever() -> Iterator[None]:
        while True:
            state = training.State(config, network, loop.device)
            for _ in training.train(config, loaded, state):
                yield

    return forever(), batch


def _testing(test: Callable[[], object]) -> Iterator[None]:
    while True:
        test()
        yield


def noise(device: str, train: int = 5000, test: int = 1000, classes: int = 10, size: int = 32) -> Any:
    """Random images of CIFAR's shape: speed does not depend on what they show."""
    import torch

    from repro.data import Data

    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (train + test, size, size, 3), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, classes, (train + test,), generator=rng)
    images, labels = images.to(device), labels.to(device)
    mean = images[:train].float().mean(0)
    return Data(images[:train], labels[:train], images[train:], labels[train:], mean, classes)


def compare(results: Results, part: str, loops: list[Loop], rounds: int, seconds: float = 1.0) -> None:
    """Measure loops by turns, each turn about ``seconds`` long; the first is what the others' ratios are to."""
    print(f"measuring {part}: {', '.join(loop.name for loop in loops)}", file=sys.stderr)
    children = [Child(loop) for loop in loops]
    counts: dict[str, int] = {}
    speeds: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    try:
        for this in children:  # one after the other: warming up is not to disturb the next
            try:
                for count in (1, 1, 1):
                    this.ask(count)
                    warm = this.answer()
            except ReproError as error:
                print(f"note: {error}", file=sys.stderr)
                continue
            counts[this.loop.name] = max(1, round(seconds / warm["seconds"]))
        for _ in range(rounds):
            for this in children:
                if this.loop.name in counts:
                    this.ask(counts[this.loop.name])
                    answer = this.answer()
                    speeds.setdefault(this.loop.name, []).append(answer["images"] / answer["seconds"])
                    memory[this.loop.name] = answer["megabytes"]
    finally:
        for this in children:
            this.__exit__()
    first = statistics.median(speeds[loops[0].name]) if loops[0].name in speeds else 0.0
    for loop in loops:
        if loop.name in speeds:
            where = f"{loop.threads} thread{'s' * (loop.threads > 1)}" if loop.device == "cpu" else loop.device
            note = f"{where}, {memory[loop.name]:,.0f} MB"
            results.add(part, loop.name, speeds[loop.name], "images/s", note, first)
            if loop.kind == "ours" and not loop.overrides and loop.keep:
                results.speeds.append(_speed(loop, statistics.median(speeds[loop.name]), memory[loop.name]))


def _speed(loop: Loop, speed: float, megabytes: float) -> dict[str, Any]:
    config = configured(loop)
    return {
        "model": config.model.name,
        "blocks": config.model.blocks,
        "width": config.model.width,
        "resolution": 8 if loop.demo else 32,
        "batch_size": config.batch_size,
        "device": loop.device,
        "threads": loop.threads,
        "images_per_second": round(speed, 1),
        "memory_mb": round(megabytes, 1),
    }


def compare_sweeps(results: Results, part: str, ways: dict[str, list[Loop]], rounds: int, seconds: float) -> None:
    """Four equal runs in several ways: loops that run at once and share them."""
    print(f"measuring {part}: {', '.join(ways)}", file=sys.stderr)
    children = {name: [Child(loop) for loop in loops] for name, loops in ways.items()}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for these in children.values():
            for this in these:
                for _ in range(2):
                    this.ask(1)
                    warm = this.answer()
        count = 4 * max(1, round(seconds / warm["seconds"] / 4))
        for _ in range(rounds):
            for name, these in children.items():
                clock = time.perf_counter()
                for this in these:
                    this.ask(count // len(these))
                images = sum(this.answer()["images"] for this in these)
                speeds[name].append(images / (time.perf_counter() - clock))
    finally:
        for this in itertools.chain(*children.values()):
            this.__exit__()
    first = statistics.median(speeds[next(iter(ways))])
    for name, values in speeds.items():
        results.add(part, name, values, "images/s", f"{len(ways[name])} at once", first)


def needs(network: Any, images: int = 8) -> tuple[float, float]:
    """Of one 32x32 image's training: floating-point operations, and bytes of the values that backward needs.

    Those are written once and read once at least, in float32.
    """
    import torch
    from torch.nn import functional as F
    from torch.utils.flop_counter import FlopCounterMode

    kept: dict[int, int] = {}
    x, y = torch.randn(images, 3, 32, 32), torch.randint(0, 10, (images,))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    network = network.to(memory_format=torch.channels_last)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        F.cross_entropy(network(x), y).backward()
    weights = {p.data_ptr() for p in network.parameters()}
    moved = 2 * sum(size for pointer, size in kept.items() if pointer not in weights)
    return counter.get_total_flops() / images, moved / images


def sweeps(
    results: Results, ours: Loop, others: dict[str, Loop], rounds: int, seconds: float, quick: bool
) -> None:
    """Four seeds as other loops train them, and as ours do."""
    ways = {f"{name} loops, one after the other": [replace(loop, demo=ours.demo)] for name, loop in others.items()}
    if not quick:
        ways["ours, one after the other"] = [ours]
    ways[f"ours, {ours.threads} at once, a thread each"] = [replace(ours, threads=1)] * ours.threads
    if not (quick or ours.demo):
        bf16 = replace(ours, threads=1, overrides=("engine.precision=bf16",))
        ways[f"ours, bf16, {ours.threads} at once"] = [bf16] * ours.threads
    network = "demo network, with its tests" if ours.demo else f"resnet56_superconv, batch {ours.batch_size}"
    compare_sweeps(results, f"four seeds, {network}", ways, rounds, seconds)


def floor(results: Results, device: str, threads: int) -> None:
    """What the machine could do at best: its rates, what an image needs of them, and how much of each is used."""
    import torch
    from torch.nn import functional as F

    from repro import models

    torch.set_num_threads(threads)

    def rate(action: Callable[[], object], amount: float, rounds: int = 7) -> list[float]:
        found = []
        for _ in range(rounds + 2):
            clock = time.perf_counter()
            action()
            if device != "cpu":
                torch.cuda.synchronize()
            found.append(amount / (time.perf_counter() - clock))
        return found[2:]

    n, images = (8192, 512) if device != "cpu" else (2048, 32)
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        product = rate(lambda a=a, b=b: a @ b, 2 * n**3 / 1e9)  # type: ignore[misc]
        results.add("floor", f"matrix product, {name}", product, "GFLOP/s")
        x, w = (torch.randn(shape, device=device).to(dtype) for shape in ((images, 256, 16, 16), (256, 256, 3, 3)))
        x, w = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, w))
        amount = 2 * images * 256 * 256 * 9 * 16 * 16 / 1e9
        wide = rate(lambda x=x, w=w: F.conv2d(x, w, padding=1), amount)  # type: ignore[misc]
        results.add("floor", f"a convolution of 256 channels, {name}", wide, "GFLOP/s")
        rates[name] = max(statistics.median(product), statistics.median(wide))
    source, target = (torch.ones(2**28 if device != "cpu" else 2**26, device=device) for _ in range(2))
    values = rate(lambda: target.copy_(source), 2 * source.nbytes / 1e9)
    bandwidth = statistics.median(values)
    results.add("floor", "memory, read and write", values, "GB/s")
    for name in models.NETWORKS:
        flops, moved = (amount / 1e9 for amount in needs(models.build(name, 10)))
        results.add("floor", f"{name}: arithmetic of an image", [flops], "GFLOP")
        results.add("floor", f"{name}: values kept for backward, written and read", [moved * 1e3], "MB an image")
        for line in [
            line for line in results.lines if line.part.startswith(name) and line.what in ("ours", "ours, bf16")
        ]:
            bf16 = "bf16" in line.what
            use = line.median * flops / rates["bfloat16" if bf16 else "float32"]
            traffic = line.median * moved / (2 if bf16 else 1) / bandwidth
            note = f"at least {traffic:.0%} of the memory's rate"
            results.add("floor", f"{line.part}, {line.what}: of the better rate above", [100 * use], "%", note)


def overheads(results: Results, rounds: int, wandb: bool) -> None:
    """Seconds of a row, of its mirror, of a checkpoint; their share of a run at the goal's speed."""
    from repro import checkpoints, models, training
    from repro.records import Record
    from repro.tracking import Mirror

    quiet = () if wandb else ("tracking=disabled",)
    config = configured(Loop("", overrides=quiet))
    state = training.State(config, models.from_config(config.model, 10, 3, 0), "cpu")
    row = {"iteration": 1, "lr": 0.1, "momentum": 0.9, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": 0.5}
    between = 100 * 1000 / GOAL  # seconds from test to test in Figure 5

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
        record = Record(folder, config, training.environment("cpu"))
        told("a row of the record", timed(lambda: record.append(row)), between)
        if wandb:
            clock = time.process_time()
            mirror = Mirror(record.info, folder)
            for i in range(rounds):
                mirror.row({**row, "iteration": i})
            mirror.finish({**record.info, "status": "finished"})
            each = 1e3 * (time.process_time() - clock) / rounds
            told(f"a row of W&B, offline, in its thread; its start and end over {rounds} rows", [each], between)
        told(
            "a checkpoint", timed(lambda: checkpoints.save(folder, state.state_dict())), config.checkpoint_seconds
        )
        record.finish("finished")


def start_up(results: Results, rounds: int) -> None:
    """Seconds from a command to the end of a run of one iteration, or to torch alone."""
    run = ["experiment=fig5a/clr_3.0", "scale=smoke", "iterations=1", "tracking=disabled", "device=cpu"]
    ways = {
        "python -c 'import torch'": ["-c", "import torch"],
        "python -m repro.train, a run of one iteration": ["-m", "repro.train", *run],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, arguments in ways.items():
            with tempfile.TemporaryDirectory() as place:
                more = [f"output={place}"] if "repro.train" in arguments else []
                clock = time.perf_counter()
                subprocess.run([sys.executable, *arguments, *more], check=True, capture_output=True)
                times[name].append(time.perf_counter() - clock)
    for name, values in times.items():
        results.add("start-up", name, values, "s", first=statistics.median(next(iter(times.values()))))


def benchmark(device: str, quick: bool, rounds: int | None = None) -> Results:
    """Everything but fidelity."""
    results = Results()
    cores = machine.cores()
    gpu = device != "cpu"
    rounds, seconds = rounds or (3 if quick else 7), 0.6 if quick else 3.0
    base = Loop("", device=device, threads=cores)
    bf16, compiled = ("engine.precision=bf16",), ("engine.compile=true",)
    files = replace(base, name="peer, DataLoader in the process", kind="files", keep=False)
    memory = replace(base, name="plain loop over tensors", kind="memory", keep=False)
    plain = ("engine.compile=false", "engine.cuda_graph=false")

    def variants(large: bool) -> list[Loop]:
        loops = [replace(base, name="ours"), replace(base, name="ours, bf16", overrides=bf16)]
        if gpu:
            loops.append(replace(base, name="ours, plain", overrides=plain))
            loops.append(replace(base, name="ours, plain bf16", overrides=(*plain, *bf16)))
            loops.append(replace(base, name="ours, tf32", overrides=("engine.precision=tf32",)))
        elif not large:
            loops.append(replace(base, name="ours, one thread", threads=1))
            if not quick:
                loops.append(replace(base, name="ours, default allocator", keep=False))
        return loops

    def measure(name: str, experiment: str, batch: int, groups: int) -> None:
        """Large batches on a CPU in fewer ways, for the memory, and in fewer rounds, for the time."""
        large = batch > 128 and not gpu
        peers = [files] if quick or large else [files, replace(files, name="peer, 2 processes", workers=2), memory]
        peers = [replace(loop, bn_groups=1) for loop in peers]
        loops = [*peers, *(replace(loop, bn_groups=groups) for loop in variants(large))]
        if not (quick or gpu or large) and name == "resnet56_superconv":
            loops.append(replace(base, name="ours, compiled", overrides=compiled))
            loops.append(replace(base, name="ours, compiled bf16", overrides=compiled + bf16))
        loops = [replace(loop, experiment=experiment, batch_size=batch) for loop in loops]
        compare(results, f"{name}, batch {batch}", loops, 3 if large else rounds, seconds)

    small = [] if gpu else [(128, 1)]
    for batch, groups in small if quick and small else [*small, (1000, 8)]:
        measure("resnet56_superconv", "fig5a/clr_3.0", batch, groups)
    for batch, groups in small if quick and small else [*small, (512, 4), (1024, 4)]:
        measure("resnet56_hyperparam", "fig8b/tbs512", batch, groups)
    demo = [replace(loop, demo=True) for loop in (memory, *variants(False)) if "bf16" not in loop.name]
    compare(results, "demo network, with its tests", demo, rounds + 2, seconds / 2)
    if not gpu:
        sweeps(results, replace(base, name="ours"), {"peer": files}, rounds, 4 * seconds, quick)
        sweeps(results, replace(base, name="ours", demo=True), {"plain": memory}, rounds + 2, 2 * seconds, quick)
    if not quick:
        loops = [replace(memory, name="plain, 100 images at once", kind="plain testing")]
        loops += [replace(base, name="ours", kind="testing")]
        loops += [replace(base, name="ours, bf16", kind="testing", overrides=bf16)]
        compare(results, "testing, resnet56_superconv", loops, rounds, seconds)
    print("measuring floor, overheads, start-up", file=sys.stderr)
    floor(results, device, cores)
    overheads(results, 20 if quick else 100, wandb=not quick)
    start_up(results, 2 if quick else 5)
    return results


def fidelity(results: Results, device: str, quick: bool) -> None:
    """Every fast setting against float64, one step each; and a short training against float32, over four seeds.

    A setting passes where the spread of its errors is the rounding that it asks for, and where its mean after
    training lies within the seeds' own spread of float32's.
    """
    import torch
    from torch.nn import functional as F

    from repro import data, engine, models, training
    from repro.config import Precision

    settings: dict[str, tuple[Precision, bool, bool]] = {
        "float32 (reference)": (Precision.float32, False, False),
        "bf16": (Precision.bf16, False, False),
    }
    if device != "cpu":
        settings["tf32"] = (Precision.tf32, False, False)
        for precision in (Precision.float32, Precision.bf16):
            settings[f"{precision.value}, graph"] = (precision, False, True)
            settings[f"{precision.value}, compiled, graph"] = (precision, True, True)
    elif not quick:
        settings["float32, compiled"] = (Precision.float32, True, False)
        settings["bf16, compiled"] = (Precision.bf16, True, False)
    batch = 64 if quick else 128
    source = noise(device)
    images, labels = source.network_input(source.train_images[:batch]), source.train_labels[:batch]
    blocks = 1 if quick else 9
    for name in models.NETWORKS:
        start = models.build(name, 10, blocks=blocks).to(device).to(memory_format=torch.channels_last)
        exact = models.build(name, 10, blocks=blocks).double().to(device)
        loss = F.cross_entropy(exact(images.double()), labels)
        loss.backward()
        # One update at LR 1 without momentum: its velocity is the gradient. A bias without gradient is zero.
        truth = torch.cat([(p if p.grad is None else p.grad).flatten() for p in exact.parameters()]).detach()
        for what, (precision, compiled, graph) in settings.items():
            network = models.build(name, 10, blocks=blocks).to(device).to(memory_format=torch.channels_last)
            network.load_state_dict(start.state_dict())
            rule = training.SGD({(1.0, 1.0): list(network.parameters())}, weight_decay=0.0)
            step: Any = engine.Plain(network, rule, precision)
            if compiled or graph:
                step = engine.Fast(network, rule, images, labels, precision, compiled=compiled, graph=graph)
                step.adopt(network, rule)
            found = step(images, labels, 1.0, 0.0).item()
            gradient = torch.cat([v.reshape(-1) for group in rule.velocities() for v in group]).double()
            error = ((gradient - truth).norm() / truth.norm()).item()
            note = f"loss off by {abs(found / loss.item() - 1):.1e}"
            results.add(f"gradient of {name}, relative error", what, [error], "", note)
    share = 0.01 if quick else 0.05  # of the paper's iterations: 93 or 464
    ends: dict[str, list[float]] = {}
    for what, (precision, compiled, graph) in settings.items():
        for seed in range(4):
            config = run_of("experiment=fig8b/tbs512", "scale=demo", f"scale.iterations={share}", f"seed={seed}")
            config.engine.precision, config.engine.compile = precision, compiled
            config.engine.cuda_graph = graph
            loaded = data.load(config.dataset, device)
            network = models.from_config(config.model, loaded.classes, 1, seed).to(device)
            rows = [r for r in training.train(config, loaded, training.State(config, network, device)) if r]
            ends.setdefault(what, []).append(statistics.mean(float(r["test_loss"] or 0) for r in rows[-3:]))
    reference = ends["float32 (reference)"]
    spread = statistics.stdev(reference)
    for what, values in ends.items():
        away = statistics.mean(values) - statistics.mean(reference)
        verdict = "within" if abs(away) <= spread else "NOT within"
        note = f"mean {away:+.4f} away, {verdict} the seeds' standard deviation of {spread:.4f}"
        results.add("final test loss of four demo runs, Figure 8b's tbs512", what, values, "", note)


def described(device: str) -> dict[str, Any]:
    """The machine, in the words of ``bench.json``."""
    import torch

    try:
        cpu = next(s.split(":")[1].strip() for s in open("/proc/cpuinfo") if s.startswith("model name"))  # noqa: SIM115
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {"host": platform.node(), "cpu": cpu, "cores": machine.cores(), "gpu": gpu}


def written(results: Results, title: str, name: str, folder: Path, setting: str) -> None:
    """The table on the terminal, and as ``<name>.csv`` and ``<name>.md`` in ``folder``."""
    table = Table(title=title, caption=setting)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in ("median", "low", "high", "ratio") else "left")
    cells = []
    part = None
    for line in results.lines:
        numbers = [_number(v) for v in (line.median, line.low, line.high)]
        ratio = f"{line.ratio:.2f}" if line.ratio else ""
        if part not in (None, line.part):
            table.add_section()
        table.add_row("" if line.part == part else line.part, line.what, *numbers, line.unit, ratio, line.note)
        cells.append([line.part, line.what, *numbers, line.unit, ratio, line.note])
        part = line.part
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([[getattr(line, c) for c in COLUMNS] for line in results.lines])
    text = [f"# {title}", "", setting, "", f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    text += [f"| {' | '.join(row)} |" for row in cells]
    (folder / f"{name}.md").write_text("\n".join(text) + "\n")


def _number(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        told = json.loads(arguments.child)
        child(Loop(**{**told, "overrides": tuple(told["overrides"])}))
        return
    import torch

    from repro import training

    clock = time.monotonic()
    device = training.device(arguments.device)
    found = described(device)
    where = f"{found['gpu'] or found['cpu']}, {found['cores']} cores"
    busy = os.getloadavg()[0]
    if busy > 0.5:
        where += f" that were busy when it began (load {busy:.1f})"
        print(f"note: this machine is busy (load {busy:.1f}); measure again when it is not", file=sys.stderr)
    results = Results()
    if arguments.fidelity:
        fidelity(results, device, arguments.quick)
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
    written(results, title, name, arguments.to, setting)


if __name__ == "__main__":
    main()
