"""What a sweep will cost, before it is launched: runs, images, time, memory. No torch here.

Time follows from ``bench.json``, the last benchmark of this machine, which ``repro.bench`` leaves in the user's
cache folder, and so does memory where a run of that size was measured:

    {"machine": {"host": ..., "cpu": ..., "cores": ..., "gpu": ...},
     "rows": [{"model": "resnet56_superconv", "blocks": 9, "width": 16, "resolution": 32, "batch_size": 1000,
               "device": "cpu", "threads": 1, "images_per_second": 123.0, "memory_mb": 4567.0}, ...]}
"""

import hashlib
import heapq
import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from repro.config import Config
from repro.config.errors import ReproError
from repro.config.folders import cache_folder
from repro.data import registry
from repro.records import already_finished
from repro.records.files import write_whole
from repro.sweeps.machine import Plan, plan
from repro.training import checkpoints

BENCHMARK = "bench.json"
NONE_YET = "no benchmark of this machine yet: python -m repro.bench --quick makes one"
PROCESS = 600.0  # megabytes of a process that has imported torch and read its data
PER_OUTPUT = 12  # bytes that training keeps for each value that a convolution puts out: itself, normalised, summed
ROW_KEYS = ("model", "blocks", "width", "resolution")  # of a row of the benchmark
TEST_SPEED = 3.0  # times the training speed: forward is a third of forward and backward


@dataclass(frozen=True)
class Shape:
    """What decides how large a network is."""

    model: str
    blocks: int
    width: int
    resolution: int
    channels: int = 3
    classes: int = 10
    options: str = "{}"  # model.options, as JSON

    def asked(self) -> dict[str, Any]:
        """The arguments of ``repro.models.size.size``."""
        own = {"name": self.model, "blocks": self.blocks, "width": self.width, "options": json.loads(self.options)}
        return {
            "model": own,
            "classes": self.classes,
            "channels": self.channels,
            "resolution": self.resolution,
        }


@dataclass(frozen=True)
class Estimate:
    """One run: ``seconds`` on its own share of the machine, ``megabytes``, and how they were come by."""

    seconds: float | None
    megabytes: float
    basis: str | None = None


def benchmark() -> dict[str, Any] | None:
    """The last benchmark of this machine; None where there is none that can be read."""
    try:
        found = json.loads((cache_folder() / BENCHMARK).read_text())
        return found if isinstance(found["rows"], list) and found["rows"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def network_sizes(shapes: Iterable[Shape]) -> dict[Shape, tuple[int, int]]:
    """Multiply-adds of one image's forward pass and the values that its convolutions put out, by shape.

    They are counted by torch, once: in this process if it has torch already, otherwise in one of its own, and
    kept in the user's cache folder. Raises ReproError for a network that cannot be built.
    """
    wanted = dict.fromkeys(shapes)
    if "torch" in sys.modules:
        from repro.models.size import size

        return {shape: size(**shape.asked()) for shape in wanted}
    version = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "models").glob("*.py")):
        version.update(path.read_bytes())
    file = cache_folder() / "sizes.json"
    try:
        kept: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        kept = {}
    keys = {shape: json.dumps([version.hexdigest()[:12], shape.asked()], sort_keys=True) for shape in wanted}
    missing = [shape for shape in wanted if keys[shape] not in kept or ":" in shape.model]  # one's own may change
    if missing:
        asked = json.dumps([shape.asked() for shape in missing])
        command = [sys.executable, "-m", "repro.models.size"]
        own = any(":" in shape.model for shape in missing)  # found from where we are
        home = None if own else Path(__file__).parents[2]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, cwd=home)
        if done.returncode:
            raise ReproError((done.stderr.strip().splitlines() or ["a network's size cannot be counted"])[-1])
        kept |= zip((keys[shape] for shape in missing), json.loads(done.stdout.splitlines()[-1]), strict=True)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(kept))
    return {shape: tuple(kept[key]) for shape, key in keys.items()}


def work(config: Config, start: int = 0) -> float:
    """Images that a run trains from iteration ``start`` on, those that it tests counted by what they cost."""
    tests = (config.iterations - start) // config.test_every
    tested = config.dataset.test_images or registry.get(config.dataset).test
    return (config.iterations - start) * config.batch_size + tests * tested / TEST_SPEED


def estimate(config: Config, planned: Plan, rows: list[dict[str, Any]], start: int = 0) -> Estimate:
    """What one run costs from iteration ``start`` on, by the row of the benchmark that is closest to it.

    A row of another size is scaled by the multiply-adds for time; memory is then what the values put out take.
    """
    wanted = _shape(config)
    device = ("cuda" if config.device == "auto" else config.device.split(":")[0]) if planned.gpus else "cpu"
    rows = [row for row in rows if row["device"].split(":")[0] == device]
    sizes = network_sizes([wanted, *map(_row_shape, rows)])
    needed, outputs = sizes[wanted]
    by_group = device == "cpu" and not config.engine.compile  # repro.training.steps.ByGroup
    at_once = config.batch_size / (config.model.bn_groups if by_group else 1)
    megabytes = PROCESS + at_once * outputs * PER_OUTPUT / 2**20
    if not rows:
        return Estimate(None, megabytes)

    def distance(row: dict[str, Any]) -> tuple[float, ...]:
        return (
            abs(math.log(sizes[_row_shape(row)][0] / needed)) + 0.1 * (row["model"] != wanted.model),
            device == "cpu" and row["threads"] != planned.threads,
            abs(math.log(row["batch_size"] / config.batch_size)),
        )

    row = min(rows, key=distance)
    speed, notes = float(row["images_per_second"]), []
    same = all(row[key] == getattr(wanted, key) for key in ROW_KEYS)
    if not same:
        speed *= sizes[_row_shape(row)][0] / needed
        notes.append("scaled by multiply-adds")
    if device == "cpu" and row["threads"] != planned.threads:
        speed *= planned.threads / row["threads"]
        threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
        notes.append(f"scaled from {threads} to {planned.threads}")
    seconds = work(config, start) / speed * _sharing(planned)
    if same and row["batch_size"] == config.batch_size:
        megabytes = row.get("memory_mb") or megabytes
    basis = "{model}, {blocks} blocks, {resolution}x{resolution} pixels, batch {batch_size}".format(**row)
    return Estimate(seconds, megabytes, ", ".join([f"{basis}, on {device}", *notes]))


def show(runs: Iterable[tuple[Path, Config]], local: bool) -> None:
    """Print what a sweep's runs cost, a line a curve; ``local`` is whether they train on this machine."""
    curves: dict[str, list[tuple[Path, Config]]] = {}
    for folder, config in runs:
        curves.setdefault(config.curve, []).append((folder, config))
    total = sum(map(len, curves.values()))
    found = benchmark()
    rows = found["rows"] if found else []
    todo = [
        (folder, config)
        for group in curves.values()
        for folder, config in group
        if config.force or not already_finished(folder, config)
    ]
    console = Console(width=None if Console().is_terminal else 160, soft_wrap=True, highlight=False)
    if not todo:
        console.print(f"nothing to do: {total} of {total} runs are finished")
        return
    configs = [config for _, config in todo]
    planned = fitting(configs, rows) if local else plan(configs[0], 1)
    table = Table()
    for column in ("curve", "runs to do", "finished", "images", "time", "memory a run"):
        table.add_column(column, justify="left" if column == "curve" else "right", overflow="fold")
    estimates: list[Estimate] = []
    images_left = 0
    for curve, group in curves.items():
        left = [(folder, config, _reached(folder)) for folder, config in group if (folder, config) in todo]
        costs = [estimate(config, planned, rows, start) for _, config, start in left]
        count = sum((config.iterations - start) * config.batch_size for _, config, start in left)
        time = _time(_spread(costs, planned.workers))
        memory = _size(max((cost.megabytes for cost in costs), default=0.0))
        table.add_row(curve, str(len(left)), str(len(group) - len(left)), f"{count:,}", time, memory)
        estimates += costs
        images_left += count
    console.print(table)
    largest = max(cost.megabytes for cost in estimates)
    together = _size(largest * planned.workers)
    console.print(
        f"{len(todo)} runs to do, {total - len(todo)} finished; {images_left:,} images; "
        f"time: {_time(_spread(estimates, planned.workers))}, {_how(planned, local)}; "
        f"memory: about {_size(largest)} a run" + (f", {together} together" if planned.workers > 1 else "")
    )
    if found is None:
        console.print(NONE_YET)
    else:
        host = found.get("machine", {}).get("host")
        if host not in (None, platform.node()):
            console.print(f"the benchmark is of another machine, {host}")
        for basis in dict.fromkeys(cost.basis for cost in estimates if cost.basis):
            console.print(f"from {basis}")
        if any(cost.seconds is None for cost in estimates):
            console.print("the benchmark has no row for this device: python -m repro.bench --quick makes one")


def fitting(configs: list[Config], rows: list[dict[str, Any]] | None = None) -> Plan:
    """The plan for a sweep of these runs, with no more of them at once than the free memory holds."""
    if rows is None:
        found = benchmark()
        rows = found["rows"] if found else []
    planned = plan(configs[0], len(configs))
    if configs[0].workers is not None:
        return planned
    return planned.within(max(estimate(config, planned, rows).megabytes for config in configs))


def _shape(config: Config) -> Shape:
    found, model = registry.get(config.dataset), config.model
    resolution = config.dataset.resolution or found.size
    options = json.dumps(model.options, sort_keys=True)
    return Shape(model.name, model.blocks, model.width, resolution, found.channels, found.classes, options)


def _row_shape(row: dict[str, Any]) -> Shape:
    return Shape(**{key: row[key] for key in ROW_KEYS})


def _sharing(planned: Plan) -> float:
    """How many times slower a run is for those that share its GPU or its cores."""
    if planned.gpus:
        return math.ceil(planned.workers / len(planned.gpus))
    return max(1.0, planned.workers * planned.threads / planned.cores)


def _reached(folder: Path) -> int:
    """The iteration that a run goes on from."""
    saved = checkpoints.find(folder)
    return int(saved[0].stem.split("-")[1]) if saved else 0


def _spread(costs: list[Estimate], workers: int) -> float | None:
    """Seconds until the last of the runs ends, each starting where one has ended."""
    ends = [0.0] * max(1, workers)
    for cost in costs:
        if cost.seconds is None:
            return None
        heapq.heapreplace(ends, ends[0] + cost.seconds)
    return max(ends)


def _how(planned: Plan, local: bool) -> str:
    if not local:
        return "one run after the other (the launcher decides how many run at once)"
    where = f" on {len(planned.gpus)} GPUs" if len(planned.gpus) > 1 else " on the GPU" if planned.gpus else ""
    threads = "" if planned.gpus else f" of {planned.threads} thread{'s' * (planned.threads > 1)}"
    return f"{planned.workers} at once{threads}{where}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def _size(megabytes: float) -> str:
    return f"{megabytes / 1024:,.1f} GB" if megabytes >= 1024 else f"{megabytes:,.0f} MB"
