"""The checks before a sweep trains on this machine: data, device, W&B key, disk space.

Does not import torch.
"""

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro.config import Config, Dataset, Tracking
from repro.config.errors import ReproError
from repro.data import images
from repro.sweeps import cost
from repro.tracking import mirror
from repro.training import checkpoints

TRY_DEVICE = "import sys, torch; torch.zeros(1, device=sys.argv[1]).item()"
RUN_BYTES = 300_000  # size of a run's folder without weights and rows: record, log, Hydra's and W&B's files
ROW_BYTES = 1_000  # size of a row in the history, the log and W&B's file together


def problems(configs: Sequence[Config]) -> list[str | None]:
    """For each run, why it cannot train here; None if it can.

    Image sets that are not cached yet are downloaded and decoded here, so that concurrent runs do not all do it.
    """
    devices: dict[str, str | None] = {}
    places: dict[tuple[Any, ...], str | None] = {}
    for config in configs:
        if config.device not in devices:
            devices[config.device] = _device_problem(config.device)
        if _place(config) not in places:
            places[_place(config)] = _tracking_problem(config.tracking)
    return [
        problem or devices[config.device] or places[_place(config)]
        for problem, config in zip(data_problems(configs), configs, strict=True)
    ]


def data_problems(configs: Sequence[Config]) -> list[str | None]:
    """For each run, why its images cannot be loaded, or None; they are downloaded and decoded here, only once."""
    data: dict[str, str | None] = {}
    keys = [repr(config.dataset) for config in configs]  # all of it: a run may want more images than there are
    for key, config in zip(keys, configs, strict=True):
        if key not in data:
            data[key] = _data_problem(config.dataset)
    return [data[key] for key in keys]


def lack_of_room(folder: Path, configs: Sequence[Config], workers: int) -> str | None:
    """The line for a lack of disk space for these runs, ``workers`` of them at once; None if there is enough."""
    sizes = [_run_bytes(config) for config in configs]
    needed = sum(kept for kept, _ in sizes) + workers * max(saved for _, saved in sizes)
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    runs = f"{len(configs)} runs take" if len(configs) > 1 else "a run takes"
    return (
        f"output={folder}: {free / 2**20:,.1f} MB are free, and {runs} about {needed / 2**20:,.1f} MB; "
        "make room, or choose another folder"
    )


def note_locks(folder: Path) -> None:
    """Print a note if files in ``folder`` cannot be locked: once per sweep, not once per run."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            reason = error.strerror or str(error)
            advice = "make sure that no two jobs train the same run"
            print(f"note: {folder} does not support locks ({reason}): {advice}", file=sys.stderr)


def _data_problem(dataset: Dataset) -> str | None:
    if dataset.digest is None:
        try:
            images.load(dataset)
        except ReproError as error:
            return str(error)
    return None


def _place(config: Config) -> tuple[Any, ...]:
    return config.tracking.mode, config.tracking.base_url


def _tracking_problem(tracking: Tracking) -> str | None:
    try:
        mirror.require(tracking)
    except ReproError as error:
        return str(error)
    return None


def _device_problem(device: str) -> str | None:
    if device in ("auto", "cpu"):
        return None
    # Another process, because a process that forks must not start CUDA.
    command = [sys.executable, "-c", TRY_DEVICE, device]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode == 0:
        return None
    return f"device={device}: {(done.stderr.strip().splitlines() or ['it does not respond'])[-1]}"


def _run_bytes(config: Config) -> tuple[int, int]:
    """Bytes of a finished run's files, and of its checkpoints while it trains."""
    try:
        parameters = cost.parameters(config)
    except ReproError:  # an unknown network: its run fails with the reason
        parameters = 0
    rows = config.iterations // config.test_every + 2
    checkpoint = 2 * 4 * parameters  # weights and velocities, in float32
    kept = RUN_BYTES + rows * ROW_BYTES + 4 * parameters + len(config.snapshots) * checkpoint
    return kept, (checkpoints.KEPT + 1) * checkpoint
