"""Loops by turns: each trains in a process of its own, and all of them wait for their turn.

What else the machine does strikes them all alike, so that the ratio of two loops is steadier than either speed.
"""

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from repro.bench.table import Results
from repro.config import Config
from repro.config.catalogue import run_of
from repro.config.errors import ReproError
from repro.sweeps import cost, machine
from repro.training import memory


@dataclass(frozen=True)
class Loop:
    """One way to train: a line of the table, and ``at_once`` processes while it is measured."""

    name: str
    kind: str = "ours"  # or "files", "memory": repro.bench.peer's; "testing" and "plain testing" of a network
    experiment: str = "fig5a/clr_3.0"
    batch_size: int = 128
    bn_groups: int = 1
    demo: bool = False  # the demo's network on digits, testing included; otherwise the paper's on 32x32 noise
    threads: int = 1
    at_once: int = 1  # so many of it, each in a process of its own
    workers: int = 0  # of the DataLoader
    device: str = "cpu"
    keep: bool = True  # memory.keep_freed_memory
    overrides: tuple[str, ...] = ()


class Child:
    """A loop in a process of its own, which waits until it is told how many iterations to do."""

    def __init__(self, loop: Loop):
        self.loop = loop
        env = {**os.environ, "OMP_NUM_THREADS": str(loop.threads), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "repro.bench.measure", json.dumps(asdict(loop))]
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


def compare(results: Results, part: str, loops: list[Loop], rounds: int, seconds: float = 1.0) -> None:
    """Measure loops by turns, each turn about ``seconds`` long; the first is what the others' ratios are to.

    A loop that fails is named and left out.
    """
    print(f"measuring {part}: {', '.join(loop.name for loop in loops)}", file=sys.stderr)
    speeds: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        started = [(loop, [stack.enter_context(Child(loop)) for _ in range(loop.at_once)]) for loop in loops]
        warm: list[tuple[Loop, list[Child], int]] = []  # those that work, and their iterations a turn
        for loop, children in started:  # one after the other: warming up is not to disturb the next
            try:
                warm.append((loop, children, max(1, round(seconds / warmed_up(children)))))
            except ReproError as error:
                print(f"note: {error}", file=sys.stderr)
        for _ in range(rounds):
            for loop, children, count in warm:
                clock = time.perf_counter()
                answers = together(children, count)
                taken = time.perf_counter() - clock
                speeds.setdefault(loop.name, []).append(sum(answer["images"] for answer in answers) / taken)
                memory[loop.name] = max(answer["megabytes"] for answer in answers)
    first = statistics.median(speeds[loops[0].name]) if loops[0].name in speeds else 0.0
    for loop in loops:
        if loop.name in speeds:
            where = f"{loop.threads} thread{'s' * (loop.threads > 1)}" if loop.device == "cpu" else loop.device
            note = f"{where}, {memory[loop.name]:,.0f} MB{' each' * (loop.at_once > 1)}"
            results.add(part, loop.name, speeds[loop.name], "images/s", note, first)
            fits = loop.device == "cpu" and loop.at_once * loop.threads <= machine.cores()
            if loop.kind == "ours" and not loop.overrides and loop.keep and (loop.at_once == 1 or fits):
                each = statistics.median(speeds[loop.name]) / loop.at_once
                results.speeds.append(_speed(loop, each, memory[loop.name]))


def together(children: list[Child], iterations: int) -> list[dict[str, float]]:
    """The answers of children that train at the same time."""
    for child in children:
        child.ask(iterations)
    return [child.answer() for child in children]


def warmed_up(children: list[Child]) -> float:
    """Seconds of an iteration of the slowest of several at once, after their first ones."""
    for _ in range(2):
        seconds = max(answer["seconds"] for answer in together(children, 1))
    return seconds


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
        "images_per_second": round(speed * cost.weighted_images(config) / config.iterations / config.batch_size, 1),
        "memory_mb": round(megabytes, 1),
    }


def train(loop: Loop) -> None:
    """The process of ``Child``: for each number on standard input, so many iterations and their time."""
    if loop.keep:
        memory.keep_freed_memory()
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


def _steps(loop: Loop) -> tuple[Iterator[Any], int]:
    """A generator that trains (or tests) an iteration a ``next``, and its images an iteration."""
    import torch

    from repro import models
    from repro.bench import peer
    from repro.data import batches
    from repro.training import loop as training
    from repro.training.state import State

    config = configured(loop)
    loaded = batches.load(config.dataset, loop.device) if loop.demo else noise(loop.device)
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
            state = State(config, network, loop.device)
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

    from repro.data.batches import Data

    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (train + test, size, size, 3), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, classes, (train + test,), generator=rng)
    images, labels = images.to(device), labels.to(device)
    mean = images[:train].float().mean(0)
    return Data(images[:train], labels[:train], images[train:], labels[train:], mean, classes)


def configured(loop: Loop) -> Config:
    """The run that a loop trains: as good as endless, or the demo's, again and again."""
    if loop.demo:
        size = ["scale=demo"]
    else:
        size = [f"batch_size={loop.batch_size}", f"model.bn_groups={loop.bn_groups}"]
        size += ["iterations=1_000_000", "test_every=1_000_000"]
    return run_of(f"experiment={loop.experiment}", *size, "test_at_start=false", *loop.overrides)


def peak_memory() -> float:
    """Megabytes that this process has held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    train(Loop(**{**told, "overrides": tuple(told["overrides"])}))
