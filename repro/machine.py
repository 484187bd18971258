"""What this machine has for training, how a sweep shares it, how a process uses its memory. No torch here."""

import ctypes
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro.config import Config

DEVICES = Path("/dev")
DRIVERS = ["nvidia[0-9]*", "nvidiactl", "dxg", "kfd"]  # what NVIDIA's, Windows' and AMD's leave there


@dataclass(frozen=True)
class Plan:
    """How many runs of a sweep at once, the CPU threads of each, and the GPUs that they take in turn."""

    workers: int
    threads: int
    gpus: list[str]
    cores: int = field(default_factory=lambda: cores())

    def within(self, megabytes: float) -> "Plan":
        """With no more runs of that size than the free memory holds, but one. On GPUs it stays as it is."""
        free = free_memory()
        if self.gpus or free is None:
            return self
        return replace(self, workers=max(1, min(self.workers, int(free // megabytes))))


def plan(config: Config, jobs: int) -> Plan:
    """What ``workers``, ``threads`` and ``device`` mean for a sweep of so many jobs on this machine.

    By default a run on a CPU has one thread and every core a run; every GPU has one.
    """
    found = gpus(config.device)
    threads = config.threads or 1
    workers = min(config.workers or (len(found) if found else cores() // threads) or 1, jobs)
    if found and config.threads is None:
        threads = max(1, cores() // workers)  # they only feed the GPU
    return Plan(workers, threads, found)


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(device: str) -> list[str]:
    """The GPUs that runs on ``device`` (a configuration's) may use, by the names that CUDA_VISIBLE_DEVICES knows.

    None on a CPU; for one that is named (``cuda:1``, ``mps``) a single "". Another process asks torch, and only
    where there is a driver: CUDA must not be started in a process that forks, and torch takes seconds.
    """
    if device not in ("auto", "cuda"):
        return [] if device == "cpu" else [""]
    if not any(list(DEVICES.glob(pattern)) for pattern in DRIVERS):
        return []
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    count = int(done.stdout) if done.returncode == 0 else 0
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (names or [str(k) for k in range(count)])[:count]


def free_memory() -> float | None:
    """Megabytes that processes can still take without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def keep_freed_memory() -> bool:
    """Have glibc keep what this process frees; whether it does.

    Every iteration allocates the same large tensors. By default glibc gives them back to the system and faults
    them in again, page by page. What the environment says of the allocator wins; another C library is left alone.
    """
    chosen = any(k.startswith("MALLOC_") for k in os.environ) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_max = -1, -4  # malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))
