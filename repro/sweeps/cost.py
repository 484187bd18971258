"""Estimates of the time and memory of a run. Does not import torch.

Time is estimated from ``bench.json``, the last benchmark of this machine, which ``repro.bench`` writes to the
user's cache folder; so is memory if a run of that size was measured:

    {"machine": {"host": ..., "cpu": ..., "cores": ..., "gpu": ...},
     "rows": [{"model": "resnet56_superconv", "blocks": 9, "width": 16, "resolution": 32, "channels": 3,
               "batch_size": 1000, "device": "cpu", "threads": 1, "images_per_second": 123.0,
               "memory_mb": 4567.0}, ...]}
"""

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from repro.config import Config
from repro.config.errors import ReproError
from repro.config.folders import cache_folder
from repro.config.terminal import plural
from repro.data import images, registry
from repro.records.files import write_whole
from repro.sweeps.machine import Plan, plan

BENCHMARK_FILE = "bench.json"
NO_BENCHMARK = "no benchmark of this machine yet; run python -m repro.bench --quick"
PROCESS_MB = 600.0  # a process that has imported torch and read its data; on a GPU its context, not yet measured
BYTES_PER_OUTPUT = 12  # stored for each output value of a convolution: the value, normalised, summed
SHAPE_KEYS = ("model", "blocks", "width", "resolution", "channels")  # of a row of the benchmark
TEST_SPEEDUP = 3.0  # over training: forward is a third of forward and backward


@dataclass(frozen=True)
class Shape:
    """The settings that determine the size of a network."""

    model: str
    blocks: int
    width: int
    resolution: int
    channels: int = 3
    classes: int = 10
    options: str = "{}"  # model.options, as JSON
    columns: int | None = None  # pixels of a row if the images are not square; then resolution is that of a column

    def size_arguments(self) -> dict[str, Any]:
        """The arguments of ``repro.models.size.size``."""
        model = {
            "name": self.model,
            "blocks": self.blocks,
            "width": self.width,
            "options": json.loads(self.options),
        }
        return {
            "model": model,
            "classes": self.classes,
            "channels": self.channels,
            "resolution": self.resolution,
            **({} if self.columns is None else {"columns": self.columns}),
        }


@dataclass(frozen=True)
class Estimate:
    """The cost of one run."""

    seconds: float | None  # on its share of the machine; None without a benchmark of the device
    memory_mb: float
    basis: str | None = None  # a description of the measurement that the estimate is based on


def read_benchmark() -> dict[str, Any] | None:
    """The last benchmark of this machine, with the rows that can be read; None if there is none."""
    try:
        benchmark = json.loads((cache_folder() / BENCHMARK_FILE).read_text(encoding="utf-8"))
        rows = [row for row in benchmark["rows"] if _is_row(row)]
        return {**benchmark, "machine": benchmark.get("machine") or {}, "rows": rows} if rows else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_row(row: Any) -> bool:
    """Whether a row of a benchmark has every key, and a speed."""
    keys = {*SHAPE_KEYS, "batch_size", "device", "threads", "images_per_second"}
    keys.remove("channels")  # earlier rows lack it
    return isinstance(row, dict) and keys <= row.keys() and (row["images_per_second"] or 0) > 0


def write_benchmark(machine: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the rows measured on this machine, replacing earlier rows of the same settings. Raises OSError.

    Of several ``rows`` of the same settings the slowest is kept: a run alone is faster than beside others on other
    cores, as those of a sweep are.
    """
    previous = read_benchmark()
    earlier = previous["rows"] if previous and previous.get("machine") == machine else []

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in (*SHAPE_KEYS, "batch_size", "device", "threads"))

    fastest_first = sorted(rows, key=lambda row: -row["images_per_second"])
    measured = {key(row): row for row in fastest_first}
    kept = [row for row in earlier if key(row) not in measured]
    file = cache_folder() / BENCHMARK_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps({"machine": machine, "rows": [*kept, *measured.values()]}, indent=1) + "\n")


def network_sizes(shapes: Iterable[Shape]) -> dict[Shape, tuple[int, int, int]]:
    """Multiply-adds of one image's forward pass, output values of its convolutions, and parameters, by shape.

    They are counted with torch: in this process if it has imported torch already; otherwise once, in another
    process, and cached in the user's cache folder. Raises ReproError for a network that cannot be built.
    """
    wanted = dict.fromkeys(shapes)
    if unknown := [shape for shape in wanted if shape not in _SIZES]:
        _SIZES.update(_count_sizes(unknown))
    return {shape: _SIZES[shape] for shape in wanted}


_SIZES: dict[Shape, tuple[int, int, int]] = {}  # cache of this process: the runs of a sweep share a few shapes


def _count_sizes(wanted: list[Shape]) -> dict[Shape, tuple[int, int, int]]:
    if "torch" in sys.modules:
        from repro.models.size import size

        return {shape: size(**shape.size_arguments()) for shape in wanted}
    version = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "models").glob("*.py")):
        version.update(path.read_bytes())
    file = cache_folder() / "sizes.json"
    try:
        cached: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        cached = {}
    cached = cached if isinstance(cached, dict) else {}
    keys = {
        shape: json.dumps([version.hexdigest()[:12], shape.size_arguments()], sort_keys=True) for shape in wanted
    }
    # A network of the user's own module may change, so its size is not taken from the cache.
    missing = [shape for shape in wanted if keys[shape] not in cached or ":" in shape.model]
    if missing:
        arguments = json.dumps([shape.size_arguments() for shape in missing])
        command = [sys.executable, "-m", "repro.models.size"]
        user_module = any(":" in shape.model for shape in missing)  # imported from the current folder
        folder = None if user_module else Path(__file__).parents[2]
        done = subprocess.run(
            command, input=arguments, capture_output=True, encoding="utf-8", errors="replace", cwd=folder
        )
        if done.returncode:
            raise _sizing_error(done.stderr, missing)
        cached |= zip((keys[shape] for shape in missing), json.loads(done.stdout.splitlines()[-1]), strict=True)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(cached))
    return {shape: tuple(cached[key]) for shape, key in keys.items()}


def _sizing_error(stderr: str, shapes: list[Shape]) -> ReproError:
    """The error of a process that could not count sizes; the traceback of an unexpected one is printed."""
    line = (stderr.strip().splitlines() or ["its process ended without a message"])[-1]
    if "Traceback (most recent call last)" not in stderr and stderr.strip():
        return ReproError(line)
    print(stderr, file=sys.stderr)
    names = ", ".join(dict.fromkeys(shape.model for shape in shapes))
    return ReproError(f"model.name={names}: the size of the network cannot be counted: {line}")


def weighted_images(config: Config, start: int = 0) -> float:
    """Images that a run trains on from iteration ``start``, plus those it tests on, weighted by their cost."""
    tests = (config.iterations - start) // config.test_every
    test_images = config.dataset.test_images or registry.get(config.dataset).test
    return (config.iterations - start) * config.batch_size + tests * test_images / TEST_SPEEDUP


def estimate(config: Config, planned: Plan, rows: list[dict[str, Any]], start: int = 0) -> Estimate:
    """The cost of one run from iteration ``start`` on, estimated from the closest row of the benchmark.

    If that row has another size, its time is scaled by multiply-adds, and memory is estimated from the
    convolutions' outputs. Raises ReproError for an unknown network or image set.
    """
    shape = _shape(config)
    device = ("cuda" if config.device == "auto" else config.device.split(":")[0]) if planned.gpus else "cpu"
    channels = {"channels": shape.channels}  # default for rows of earlier versions, which lack the key
    rows = [channels | row for row in rows if row["device"].split(":")[0] == device]
    try:
        sizes = network_sizes([shape, *map(_row_shape, rows)])  # at once: a process counts all that are new
    except ReproError:
        sizes = network_sizes([shape])  # else a row is of a network that this version does not have
        rows = [row for row in rows if _has_size(_row_shape(row))]
        sizes |= network_sizes(map(_row_shape, rows))
    multiply_adds, outputs, _ = sizes[shape]
    by_group = device == "cpu" and not config.engine.compile  # repro.training.steps.ByGroup
    images = config.batch_size / (config.model.bn_groups if by_group else 1)  # in memory at once
    memory_mb = PROCESS_MB + images * outputs * BYTES_PER_OUTPUT / 2**20
    if not rows:
        return Estimate(None, memory_mb)

    def distance(row: dict[str, Any]) -> tuple[float, ...]:
        return (
            abs(math.log(sizes[_row_shape(row)][0] / multiply_adds)) + 0.1 * (row["model"] != shape.model),
            device == "cpu" and row["threads"] != planned.threads,
            abs(math.log(row["batch_size"] / config.batch_size)),
        )

    row = min(rows, key=distance)
    speed, notes = float(row["images_per_second"]), []
    same_shape = _row_shape(row) == replace(shape, classes=Shape.classes, options=Shape.options)
    if not same_shape:
        speed *= sizes[_row_shape(row)][0] / multiply_adds
        notes.append("scaled by multiply-adds")
    if device == "cpu" and row["threads"] != planned.threads:
        speed *= planned.threads / row["threads"]
        notes.append(f"scaled from {plural(row['threads'], 'thread')} to {planned.threads}")
    seconds = weighted_images(config, start) / speed * _slowdown(planned)
    if same_shape and row["batch_size"] == config.batch_size:
        memory_mb = row.get("memory_mb") or memory_mb
    pixels = "{resolution}x{resolution} pixels, batch {batch_size}".format(**row)
    basis = f"{row['model']}, {plural(row['blocks'], 'block')}, {pixels}"
    return Estimate(seconds, memory_mb, ", ".join([f"{basis}, on {device}", *notes]))


def plan_within_memory(configs: list[Config], rows: list[dict[str, Any]] | None = None) -> Plan:
    """The plan for a sweep of these runs, limited to as many at once as fit free memory unless ``workers`` is set.

    ``rows`` are the benchmark's; by default those of the last benchmark of this machine.
    """
    if rows is None:
        benchmark = read_benchmark()
        rows = benchmark["rows"] if benchmark else []
    planned = plan(configs[0], len(configs))
    if configs[0].workers is not None:
        return planned
    memory_mb: list[float] = []
    distinct = {repr((c.model, c.dataset, c.batch_size, c.engine)): c for c in configs}  # seeds do not matter
    for config in distinct.values():
        with suppress(ReproError):  # an unknown network or image set: its run fails with the reason
            memory_mb.append(estimate(config, planned, rows).memory_mb)
    return planned.within(max(memory_mb)) if memory_mb else planned


def parameters(config: Config) -> int:
    """The number of parameters of a run's network. Raises ReproError if it cannot be built."""
    shape = _shape(config)
    return network_sizes([shape])[shape][2]


def _shape(config: Config) -> Shape:
    dataset, model = registry.get(config.dataset), config.model
    resolution = max(config.dataset.resolution or dataset.size, config.dataset.min_resolution or 0)
    options = json.dumps(model.options or {}, sort_keys=True)
    shape = Shape(model.name, model.blocks, model.width, resolution, dataset.channels, dataset.classes, options)
    height, width = (images.shape(config.dataset) or (0, 0))[:2]
    is_resized = config.dataset.resolution or min(height, width) < (config.dataset.min_resolution or 0)
    if height == width or is_resized:
        return shape
    return replace(shape, resolution=height, columns=width)


@cache
def _has_size(shape: Shape) -> bool:
    try:
        return bool(network_sizes([shape]))
    except ReproError:
        return False


def _row_shape(row: dict[str, Any]) -> Shape:
    return Shape(**{key: row[key] for key in SHAPE_KEYS})


def _slowdown(planned: Plan) -> float:
    """The factor by which a run takes longer because others share its GPU or its cores."""
    if planned.gpus:
        return math.ceil(planned.workers / len(planned.gpus))
    return max(1.0, planned.workers * planned.threads / planned.cores)
