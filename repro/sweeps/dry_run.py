"""The output of ``--dry-run``: a sweep's runs, images, time and memory. Does not import torch."""

import heapq
import math
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table

from repro.config import Config, terminal
from repro.config.terminal import plural
from repro.records import already_finished, starts
from repro.sweeps import cost
from repro.sweeps.machine import Plan, plan


class Cluster(Protocol):
    """A launcher's description of the cluster that it submits runs to."""

    @property
    def gpus_per_run(self) -> float:
        """The number of GPUs that a run requests, a fraction if several runs share one; 0 on CPUs."""

    def describe(self, runs: int) -> str:
        """A description of how the cluster would execute ``runs`` runs."""


def print_cost(runs: Iterable[tuple[Path, Config]], local: bool, cluster: Cluster | None = None) -> None:
    """Print the cost of a sweep, one line per curve; ``local`` says whether its runs train on this machine."""
    curves: dict[str, list[tuple[Path, Config]]] = {}
    for folder, config in runs:
        curves.setdefault(config.curve, []).append((folder, config))
    total = sum(map(len, curves.values()))
    benchmark = cost.read_benchmark()
    rows = benchmark["rows"] if benchmark else []
    unfinished = [
        (folder, config)
        for group in curves.values()
        for folder, config in group
        if config.force or not already_finished(folder, config)
    ]
    console = terminal.console(width=None if sys.stdout.isatty() else 160, soft_wrap=True)
    if not unfinished:
        console.print(f"nothing to do: {finished_already(total, total)}")
        return
    configs = [config for _, config in unfinished]
    if cluster is not None:
        gpus = cluster.gpus_per_run
        planned = Plan(math.ceil(1 / gpus) if gpus else 1, configs[0].threads or 1, [""] if gpus else [])
    else:
        planned = cost.plan_within_memory(configs, rows) if local else plan(configs[0], 1)
    table = Table()
    for column in ("curve", "runs to do", "finished", "images", "time", "memory a run"):
        table.add_column(column, justify="left" if column == "curve" else "right", overflow="fold")
    estimates: list[cost.Estimate] = []
    total_images = 0
    for curve, group in curves.items():
        to_do = [run for run in group if run in unfinished]
        remaining = [(config, _first_iteration(folder, config)) for folder, config in to_do]
        costs = [cost.estimate(config, planned, rows, start) for config, start in remaining]
        images = sum((config.iterations - start) * config.batch_size for config, start in remaining)
        time = _format_time(_total_seconds(costs, planned.workers))
        memory = _format_memory(max((estimate.memory_mb for estimate in costs), default=0.0))
        table.add_row(curve, str(len(remaining)), str(len(group) - len(remaining)), f"{images:,}", time, memory)
        estimates += costs
        total_images += images
    console.print(table)
    largest_mb = max(estimate.memory_mb for estimate in estimates)
    total_memory = _format_memory(largest_mb * planned.workers)
    console.print(
        f"{plural(len(unfinished), 'run')} to do, {total - len(unfinished)} finished; "
        f"{plural(total_images, 'image')}; "
        f"time: {_format_time(_total_seconds(estimates, planned.workers))}, {_format_plan(planned, local)}; "
        f"memory: about {_format_memory(largest_mb)} a run"
        + (f", {total_memory} together" if planned.workers > 1 else "")
    )
    if cluster is not None:
        console.print(_describe_cluster(cluster, estimates, (benchmark or {}).get("machine", {})))
    if benchmark is None:
        console.print(cost.NO_BENCHMARK)
    else:
        host = benchmark.get("machine", {}).get("host")
        if host not in (None, platform.node()):
            console.print(f"the benchmark is from another machine, {host}")
        for basis in dict.fromkeys(estimate.basis for estimate in estimates if estimate.basis):
            console.print(f"from {basis}")
        if any(estimate.seconds is None for estimate in estimates):
            console.print("the benchmark has no row for this device; run python -m repro.bench --quick")


def finished_already(finished: int, runs: int) -> str:
    """How many of a sweep's runs are finished, as a sentence: "1 of 4 runs is finished"."""
    return f"{finished} of {plural(runs, 'run')} {'is' if finished == 1 else 'are'} finished"


def _first_iteration(folder: Path, config: Config) -> int:
    return starts.last_checkpoint(folder) or config.start.iteration or 0


def _total_seconds(costs: list[cost.Estimate], workers: int) -> float | None:
    """Seconds until the last run ends, if each starts as soon as a worker is free; None if any is unknown."""
    ends = [0.0] * max(1, workers)
    for estimate in costs:
        if estimate.seconds is None:
            return None
        heapq.heapreplace(ends, ends[0] + estimate.seconds)
    return max(ends)


def _describe_cluster(cluster: Cluster, costs: list[cost.Estimate], machine: Mapping[str, Any]) -> str:
    """How a cluster would execute the runs, and their GPU-hours or core-hours by the available benchmark."""
    text, gpus = cluster.describe(len(costs)), cluster.gpus_per_run
    unit, device = ("GPU-hours", machine.get("gpu")) if gpus else ("core-hours", machine.get("cpu"))
    seconds = _total_seconds(costs, 1)
    if seconds is None:
        return f"{text}; {unit} unknown: no benchmark of such a machine is in the cache folder"
    longest = _format_time(max(estimate.seconds or 0.0 for estimate in costs))
    hours = seconds / 3600 * (gpus or 1.0)
    return f"{text}; about {hours:.2g} {unit} together, {longest} the longest run, by the benchmark of {device}"


def _format_plan(planned: Plan, local: bool) -> str:
    if not local:
        return "one run after another (the launcher decides how many run at once)"
    device = f" on {len(planned.gpus)} GPUs" if len(planned.gpus) > 1 else " on the GPU" if planned.gpus else ""
    threads = "" if planned.gpus else f", {plural(planned.threads, 'thread')} each"
    return f"{planned.workers} at once{threads}{device}"


def _format_time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def _format_memory(memory_mb: float) -> str:
    return f"{memory_mb / 1024:,.1f} GB" if memory_mb >= 1024 else f"{memory_mb:,.0f} MB"
