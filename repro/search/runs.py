"""The runs of a search: composed as variations of a base, trained as a sweep, and read from their records."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from repro.config import Config, catalogue, fingerprint
from repro.config.errors import ReproError
from repro.data import images, registry
from repro.records import Info, last_row, read_history, read_info
from repro.sweeps import _compat, cost, machine, task
from repro.sweeps.jobs import Job
from repro.sweeps.sweeper import Sweeper

COLUMNS = ["iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy"]
LAST = 3  # number of last tests whose mean is a run's final value
SHORTAGE = ("out of memory", "killed by signal 9")  # in the reason of a run that lacked memory
CYCLE = 0.9  # share of a 1cycle run; the rest is annealing. The paper's figures have 0.84 to 0.99


@dataclass(frozen=True)
class Base:
    """The run that a command line describes, of which every run of a search is a variation."""

    overrides: tuple[str, ...]
    iterations: int  # before the scale, like all numbers of iterations on a command line
    config: Config  # resolved
    images: int  # number of training images
    name: str  # <data set>-<network>-<fingerprint>

    @property
    def folder(self) -> Path:
        """The folder for the files of a search."""
        return Path(self.config.output) / "search" / self.config.scale.name / self.name

    def length(self, epochs: float | None, share: float) -> int:
        """The iterations (before the scale) of ``epochs``, or if that is None of a share of the run."""
        if epochs is None:
            return max(1, round(share * self.iterations))
        return max(1, round(epochs * self.images / self.config.batch_size / self.config.scale.iterations))

    def epochs(self, iterations: int) -> float:
        """The epochs of ``iterations`` (before the scale)."""
        return iterations * self.config.scale.iterations * self.config.batch_size / self.images


@dataclass(frozen=True)
class Run:
    """One trained run."""

    overrides: tuple[str, ...]
    config: Config
    folder: Path
    info: Info
    rows: pd.DataFrame  # COLUMNS

    @property
    def epochs(self) -> float:
        """The epochs that it trained."""
        iterations = self.rows["iteration"].max() - (self.config.start.iteration or 0)
        return float(iterations * self.config.batch_size / _images(self.config)) if len(self.rows) else 0.0

    @property
    def speed(self) -> float | None:
        """Training images per second, without tests; None if not recorded."""
        row = last_row(self.folder)
        return None if row is None else row["images_per_second"]

    @property
    def tests(self) -> int:
        """The number of tests of the whole run, if it does not end early."""
        return -(-self.config.iterations // self.config.test_every)

    def final(self, column: str) -> float:
        """Mean of a column over the last tests; for a run that did not finish an infinite loss, or 0."""
        if self.info["status"] != "finished":
            return float("inf") if column.endswith("loss") else 0.0
        return float(self.rows[column].tail(LAST).mean())


def base_of(overrides: Sequence[str]) -> Base:
    """The run of a command line of ``repro.train``. Raises ReproError, and what Hydra raises."""
    job = _sweeper(overrides).composer.job(list(overrides))
    config = job.config
    if config.dataset.digest is None:  # decode and check all images before anything trains
        config.dataset.digest = images.load(config.dataset)[1]
    cost.parameters(config)  # build and check the network
    parts = (config.dataset.name, config.model.name.rpartition(":")[2], fingerprint(replace(config, seed=0))[:6])
    name = "-".join(re.sub(r"[^\w.]+", "_", part, flags=re.ASCII) for part in parts)
    return Base(tuple(overrides), job.composed.iterations, config, _images(config), name)


def _images(config: Config) -> int:
    return config.dataset.train_images or registry.get(config.dataset).train


def merged(*parts: Iterable[str]) -> list[str]:
    """Overrides, of which a later part's replace an earlier part's of the same key, and a group those of its keys.

    Within a part, which is a command line, a group and its keys may stand in any order.
    """
    kept: dict[str, str] = {}
    for part in parts:
        new = {override.lstrip("+~").partition("=")[0]: override for override in part}
        kept = {k: v for k, v in kept.items() if not any(k == key or k.startswith(f"{key}.") for key in new)} | new
    return list(kept.values())


def train(base: Base, variations: Sequence[Sequence[str]], seeds: int, quiet: bool = False) -> list[list[Run]]:
    """Train every variation of the base with ``seeds`` seeds, as one sweep; returns a list of runs per variation.

    Finished runs are kept, unfinished ones resume. ``quiet``: no notes on schedules that are cut short. Raises
    ReproError that names every run that failed.
    """
    first = base.config.seed
    combinations = [
        merged(base.overrides, variation, [f"seed={seed}"])
        for variation in variations
        for seed in range(first, first + seeds)
    ]
    if len(combinations) == 1 and not any(o.startswith("threads=") for o in base.overrides):
        combinations[0].append(f"threads={machine.cores()}")  # as for a single run
    sweeper = _sweeper(base.overrides)
    jobs = sweeper.jobs(combinations, quiet)
    sweeper.launch(jobs)
    runs = [_run(job) for job in jobs]
    return [runs[i : i + seeds] for i in range(0, len(runs), seeds)]


def trial(base: Base, variation: Sequence[str]) -> Run:
    """Train a variation of the base; its status is "failed" if it ran out of memory, or was killed for that.

    Raises ReproError if it fails for another reason.
    """
    sweeper = _sweeper(base.overrides)
    [job] = sweeper.jobs([merged(base.overrides, variation)], quiet=True)
    try:
        sweeper.launch([job])
    except ReproError:
        info = read_info(job.folder)
        lacked_memory = info is not None and any(words in info.get("reason", "") for words in SHORTAGE)
        if info is None or info["status"] != "failed" or not lacked_memory:
            raise
    return _run(job)


def onecycle(max_lr: float, min_lr: float, momentum: Sequence[float], iterations: int) -> list[str]:
    """The overrides of a 1cycle run of ``iterations``; two values of ``momentum`` cycle, one is constant."""
    lr = [f"schedule.lr.base_lr={min_lr:.6g}", f"schedule.lr.max_lr={max_lr:.6g}"]
    lr += [
        f"schedule.lr.final_lr={min_lr / 1000:.6g}",
        f"schedule.lr.step_size={max(1, int(CYCLE * iterations / 2))}",
    ]
    return [
        f"iterations={iterations}",
        f"schedule=onecycle{_cyclical(momentum)}",
        *lr,
        *momentum_overrides(momentum),
    ]


def momentum_overrides(momentum: Sequence[float]) -> list[str]:
    """The overrides of a schedule's momentum: constant, or cyclical from the first value to the second."""
    if len(momentum) == 1:
        return [f"schedule.momentum.value={momentum[0]:.6g}"]
    return [
        f"schedule.momentum.max_momentum={momentum[0]:.6g}",
        f"schedule.momentum.min_momentum={momentum[1]:.6g}",
    ]


def momentum_words(momentum: Sequence[float]) -> str:
    """A momentum, as printed."""
    return f"constant {momentum[0]:g}" if len(momentum) == 1 else f"cyclical {momentum[0]:g}-{momentum[1]:g}"


def often(iterations: int, tests: int) -> str:
    """The override that tests a run ``tests`` times."""
    return f"test_every={max(1, iterations // tests)}"


def watched(iterations: int, tests: int, divergence: float | None) -> list[str]:
    """The overrides that test a run ``tests`` times, and end it early by ``divergence`` (``Config``)."""
    return [often(iterations, tests), *([] if divergence is None else [f"divergence={divergence:.6g}"])]


def _cyclical(momentum: Sequence[float]) -> str:
    return "_cm" if len(momentum) == 2 else ""


def range_test(low: float, high: float, momentum: Sequence[float], iterations: int, shape: str) -> list[str]:
    """The overrides of an LR range test from ``low`` to ``high``."""
    return [
        f"iterations={iterations}",
        "test_at_start=false",  # nothing has been trained there
        f"schedule=lr_range{_cyclical(momentum)}",
        f"schedule.lr.shape={shape}",
        f"schedule.lr.base_lr={low:.6g}",
        f"schedule.lr.max_lr={high:.6g}",
        *momentum_overrides(momentum),
    ]


def _sweeper(overrides: Sequence[str]) -> Sweeper:
    plugin: Any = _compat.instantiate_sweeper(
        "train", task.train, ["hydra.mode=MULTIRUN", *catalogue.search_path(), *overrides]
    )
    sweeper = getattr(plugin, "sweeper", None)
    if not isinstance(sweeper, Sweeper):
        raise ReproError("hydra/sweeper: a search needs the default sweeper; remove it")
    return sweeper


def _run(job: Job) -> Run:
    info = read_info(job.folder)
    if info is None:
        raise ReproError(f"{job.folder}: its run left no record; run the same command again to resume")
    rows = pd.DataFrame(read_history(job.folder), columns=COLUMNS).astype(float)
    return Run(tuple(job.changes), job.config, job.folder, info, rows)
