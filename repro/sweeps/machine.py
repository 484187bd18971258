"""What this machine has for training, how a sweep shares it, how a process uses its memory. No torch here."""

import contextlib
import ctypes
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro.config import Config

DEVICES = Path("/dev")
DRIVERS = ["nvidia[0-9]*", "nvidiactl", "dxg", "kfd"]  # what NVIDIA's, Windows' and AMD's leave there
ON_A_GPU = 2  # runs of a sweep, where both have room: one starts, compiles or tests while the other trains


@dataclass(frozen=True)
class Plan:
    """How many runs of a sweep at once, the CPU threads of each, and the GPUs that they take in turn."""

    workers: int
    threads: int
    gpus: list[str]
    cores: int = field(default_factory=lambda: cores())
    room: float | None = None  # megabytes that are free on each GPU

    def within(self, megabytes: float) -> "Plan":
        """With no more runs of that size than the free memory holds, but one, or one a GPU."""
        free, places = (self.room, len(self.gpus)) if self.gpus else (free_memory(), 1)
        if free is None:
            return self
        return replace(self, workers=min(self.workers, places * max(1, int(free // megabytes))))


def plan(config: Config, jobs: int) -> Plan:
    """What ``workers``, ``threads`` and ``device`` mean for a sweep of so many jobs on this machine.

    By default a run on a CPU has one thread and every core a run; every GPU has two, where it tells its memory.
    """
    found = gpus(config.device)
    told = [free for free in found.values() if free is not None]
    room = min(told) if told and len(told) == len(found) else None
    threads = config.threads or 1
    by_itself = len(found) * (1 if room is None else ON_A_GPU) if found else cores() // threads
    workers = min(config.workers or by_itself or 1, jobs)
    if found and config.threads is None:
        threads = max(1, cores() // workers)  # they only feed the GPU
    return Plan(workers, threads, list(found), room=room)


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(device: str) -> dict[str, float | None]:
    """The GPUs that runs on ``device`` (a configuration's) may use, and the megabytes that are free on each.

    They go by the names that CUDA_VISIBLE_DEVICES knows. None on a CPU; one that is named (``cuda:1``, ``mps``) is
    "", and its memory nobody asks for. Another process asks torch, and only where there is a driver: CUDA must
    not be started in a process that forks, and torch takes seconds.
    """
    if device not in ("auto", "cuda"):
        return {} if device == "cpu" else {"": None}
    if not any(list(DEVICES.glob(pattern)) for pattern in DRIVERS):
        return {}
    command = [sys.executable, "-c", "from repro.sweeps import machine; machine.tell()"]
    done = subprocess.run(command, capture_output=True, text=True)
    told = done.stdout.split() if done.returncode == 0 else []
    room = [None if free == "alone" else float(free) for free in told]
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return dict(zip(names or map(str, range(len(room))), room, strict=False))


def tell() -> None:
    """Print the free megabytes of every GPU, or "alone": some clusters let one process alone use it."""
    import torch

    compute_mode = 20  # cuda.h, CUdevice_attribute
    for k in range(torch.cuda.device_count()):
        mode = ctypes.c_int(0)
        with contextlib.suppress(OSError):  # AMD's have no such library, and no such mode
            driver = ctypes.CDLL("libcuda.so.1")
            driver.cuInit(0)
            driver.cuDeviceGetAttribute(ctypes.byref(mode), compute_mode, k)
        print("alone" if mode.value else torch.cuda.mem_get_info(k)[0] / 2**20)


def free_memory() -> float | None:
    """Megabytes that processes can still take without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
