"""Measure loops in turns: each trains in its own process while the others wait.

Other load on the machine affects all of them equally, so the ratio of two loops varies less than either speed.
"""

import contextlib
import json
import math
import os
import resource
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from repro import resources
from repro.bench.table import Results
from repro.config import Config, Dataset
from repro.config.catalogue import run_of
from repro.config.errors import ReproError
from repro.data import registry
from repro.sweeps import cost, machine
from repro.training import memory

GRACE_SECONDS = 30.0  # that a loop may take beyond the time limit to finish its turn


@dataclass(frozen=True)
class Loop:
    """One way to train, a line of the table."""

    name: str
    kind: str = "ours"  # or repro.bench.peer's "files", "memory"; or without training "testing", "plain testing"
    experiment: str = "fig5a/clr_3.0"
    batch_size: int = 128
    bn_groups: int = 1
    demo: bool = False  # the demo's network on digits, with its tests; otherwise the paper's on 32x32 noise
    threads: int = 1
    at_once: int = 1  # concurrent processes
    loader_workers: int = 0  # processes of the DataLoader
    device: str = "cpu"
    keep_freed: bool = True  # whether to call memory.keep_freed_memory
    overrides: tuple[str, ...] = ()


class Child:
    """A loop in its own process, which trains when asked."""

    def __init__(self, loop: Loop):
        self.loop = loop
        env = {**os.environ, "OMP_NUM_THREADS": str(loop.threads), "PYTHONWARNINGS": "ignore"}
        env |= resources.waiting(os.environ) if loop.kind in ("ours", "testing") else {}
        command = [sys.executable, "-m", "repro.bench.measure", json.dumps(asdict(loop))]
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )

    def start(self, iterations: int) -> None:
        """Start training ``iterations`` iterations; ``wait`` waits for their end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ``wait`` raises the reason
            print(iterations, file=self.process.stdin, flush=True)

    def wait(self, until: float = math.inf) -> dict[str, float]:
        """The measurement: ``seconds``, ``images`` and the peak ``memory_mb``.

        Raises ReproError with the last error line of a child that died, and for one that does not respond in time.
        """
        assert self.process.stdout is not None
        timeout = None if until == math.inf else max(0.0, until - time.monotonic()) + GRACE_SECONDS
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            raise ReproError(f"{self.loop.name}: no response in time")
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            last_line = self.process.stderr.read().strip().splitlines()[-1:]
            raise ReproError(f"{self.loop.name}: {''.join(last_line) or 'ended early'}")
        measured: dict[str, float] = json.loads(line)
        return measured

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()


def compare(
    results: Results,
    part: str,
    loops: list[Loop],
    rounds: int,
    seconds: float = 1.0,
    until: float = math.inf,
) -> None:
    """Measure loops in turns of about ``seconds`` each, and add their speeds, with ratios to the first.

    A loop that fails is reported on standard error and skipped. After ``until`` no loop and no further turn
    starts.
    """
    speeds: dict[str, list[float]] = {}
    memory_mb: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        started = [(loop, [stack.enter_context(Child(loop)) for _ in range(loop.at_once)]) for loop in loops]
        warm: list[tuple[Loop, list[Child], int]] = []  # loop, processes, iterations of a turn
        for loop, children in started:  # a GPU's loops compile on the CPU, all of them at the same time
            for child in children if loop.device != "cpu" else []:
                child.start(1)
        for loop, children in started:  # a CPU's loops warm up in turn, so as not to disturb each other
            try:
                if warm and time.monotonic() > until:
                    raise ReproError(f"{loop.name}: skipped, the time is over")
                turn = warm_up(children, until, begun=loop.device != "cpu")
                warm.append((loop, children, max(1, round(seconds / turn))))
            except ReproError as error:
                print(f"note: {error}", file=sys.stderr)
        for index in range(rounds):
            if index and time.monotonic() > until:
                break
            for loop, children, count in warm:
                clock = time.perf_counter()
                measured = run_together(children, count, until)
                elapsed = time.perf_counter() - clock
                speeds.setdefault(loop.name, []).append(sum(child["images"] for child in measured) / elapsed)
                memory_mb[loop.name] = max(child["memory_mb"] for child in measured)
    baseline = statistics.median(speeds[loops[0].name]) if loops[0].name in speeds else 0.0
    for loop in loops:
        if loop.name in speeds:
            placement = f"{loop.threads} thread{'s' * (loop.threads > 1)}" if loop.device == "cpu" else loop.device
            note = f"{placement}, {memory_mb[loop.name]:,.0f} MB{' each' * (loop.at_once > 1)}"
            results.add(part, loop.name, speeds[loop.name], "images/s", note, baseline)
            # A row of bench.json is the speed of a run that shares neither its cores nor its GPU.
            fits = loop.device == "cpu" and loop.at_once * loop.threads <= machine.cores()
            if loop.kind == "ours" and not loop.overrides and loop.keep_freed and (loop.at_once == 1 or fits):
                per_run = statistics.median(speeds[loop.name]) / loop.at_once
                results.speeds.append(_speed_row(loop, per_run, memory_mb[loop.name]))


def run_together(children: list[Child], iterations: int, until: float = math.inf) -> list[dict[str, float]]:
    """Train ``iterations`` iterations in all children at the same time; returns each child's measurement."""
    for child in children:
        child.start(iterations)
    return [child.wait(until) for child in children]


def warm_up(children: list[Child], until: float = math.inf, *, begun: bool = False) -> float:
    """Train two iterations, of which the first may have ``begun``; returns the slowest child's second time."""
    if begun:
        for child in children:
            child.wait(until)
    else:
        run_together(children, 1, until)
    return max(child["seconds"] for child in run_together(children, 1, until))


def _speed_row(loop: Loop, speed: float, memory_mb: float) -> dict[str, Any]:
    config = compose_config(loop)
    return {
        "model": config.model.name,
        "blocks": config.model.blocks,
        "width": config.model.width,
        "resolution": 8 if loop.demo else registry.get(config.dataset).size,
        "channels": registry.get(config.dataset).channels,
        "batch_size": config.batch_size,
        "device": loop.device,
        "threads": loop.threads,
        "images_per_second": round(
            speed * cost.weighted_images(config) / config.iterations / config.batch_size, 1
        ),
        "memory_mb": round(memory_mb, 1),
    }


def train(loop: Loop) -> None:
    """In a ``Child`` process: for each number on standard input, train that many iterations and print the time."""
    if loop.keep_freed:
        memory.keep_freed_memory()
    import torch

    torch.set_num_threads(loop.threads)
    iterations, images = _iterations(loop)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to standard error
    for line in sys.stdin:
        clock = time.perf_counter()
        for _ in range(int(line)):
            next(iterations)
        if loop.device != "cpu":
            torch.cuda.synchronize(loop.device)
        seconds = time.perf_counter() - clock
        peak_mb = peak_memory_mb()
        if loop.device != "cpu":  # memory unavailable to others: also torch's cache and the context
            peak_mb = torch.cuda.max_memory_reserved(loop.device) / 2**20 + cost.PROCESS_MB
        measured = {"seconds": seconds, "images": int(line) * images, "memory_mb": peak_mb}
        print(json.dumps(measured), file=output, flush=True)


def _iterations(loop: Loop) -> tuple[Iterator[Any], int]:
    """A generator that trains (or tests) one iteration per ``next``, and the number of images per iteration."""
    import torch

    from repro import models
    from repro.bench import peer
    from repro.data import batches
    from repro.training import loop as training
    from repro.training.state import State

    config = compose_config(loop)
    dataset = batches.load(config.dataset, loop.device) if loop.demo else make_noise(config.dataset, loop.device)
    network = models.from_config(config.model, dataset.classes, dataset.mean.shape, 0).to(loop.device)
    batch_size = config.batch_size
    if loop.kind == "files":
        images, labels = dataset.train_images.cpu().numpy(), dataset.train_labels.cpu().numpy()
        network = network.to(memory_format=torch.contiguous_format)
        return peer.from_files(network, images, labels, batch_size, loop.device, loop.loader_workers), batch_size
    if loop.kind in ("memory", "plain testing"):
        network = network.to(memory_format=torch.contiguous_format)
        train_images, test_images = (
            dataset.network_input(images).contiguous() for images in (dataset.train_images, dataset.test_images)
        )
        if loop.kind == "memory":
            test = (test_images, dataset.test_labels, config.test_every)
            return peer.from_memory(network, train_images, dataset.train_labels, batch_size, test), batch_size
        network = network.eval()
        return _repeat(lambda: peer.accuracy(network, test_images, dataset.test_labels)), len(test_images)
    if loop.kind == "testing":
        precision = config.engine.precision
        return _repeat(lambda: training.test(network, dataset, precision)), len(dataset.test_labels)

    def train_endlessly() -> Iterator[None]:
        while True:
            state = State(config, network, loop.device)
            for _ in training.train(config, dataset, state):
                yield

    return train_endlessly(), batch_size


def _repeat(action: Callable[[], object]) -> Iterator[None]:
    while True:
        action()
        yield


def make_noise(dataset: Dataset, device: str, train: int = 5000, test: int = 1000) -> Any:
    """Random images with the shape of an image set's; speed does not depend on their content."""
    import torch

    from repro.data.batches import Data

    image_set = registry.get(dataset)
    rng = torch.Generator().manual_seed(0)
    shape = (train + test, image_set.size, image_set.size, image_set.channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, image_set.classes, (train + test,), generator=rng)
    images, labels = images.to(device), labels.to(device)
    mean = images[:train].float().mean(0) * dataset.mean_image
    levels = image_set.levels if dataset.unit_pixels else 1.0
    return Data(images[:train], labels[:train], images[train:], labels[train:], mean, image_set.classes, levels)


def compose_config(loop: Loop) -> Config:
    """The configuration that a loop trains: a practically endless run, or the demo's run, which is repeated."""
    if loop.demo:
        overrides = ["scale=demo"]
    else:
        overrides = [f"batch_size={loop.batch_size}", f"model.bn_groups={loop.bn_groups}"]
        overrides += ["iterations=1_000_000", "test_every=1_000_000"]
    return run_of(f"experiment={loop.experiment}", *overrides, "test_at_start=false", *loop.overrides)


def peak_memory_mb() -> float:
    """The peak memory of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    train(Loop(**{**fields, "overrides": tuple(fields["overrides"])}))
