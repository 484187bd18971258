"""The cores, GPUs and free memory of this machine, and how a sweep shares them. No torch here."""

import contextlib
import ctypes
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro.config import Config
from repro.resources import cores as cores
from repro.resources import free_memory as free_memory

DEVICES = Path("/dev")
DRIVERS = ["nvidia[0-9]*", "nvidiactl", "dxg", "kfd"]  # device files of the NVIDIA, WSL and AMD drivers
EXCLUSIVE = "exclusive"  # printed in place of free memory
RUNS_PER_GPU = 2  # where memory allows: one starts, compiles or tests while the other trains


@dataclass(frozen=True)
class Plan:
    """How many runs of a sweep train at once, the CPU threads of each, and the GPUs that they share in turn."""

    workers: int
    threads: int
    gpus: list[str]
    cores: int = field(default_factory=lambda: cores())
    free_mb: float | None = None  # the least that a GPU has; None: unknown, or a GPU is exclusive

    def within(self, run_mb: float) -> "Plan":
        """This plan with no more runs at once than free memory holds, at ``run_mb`` megabytes a run.

        At least one run, or one a GPU, remains.
        """
        free_mb, devices = (self.free_mb, len(self.gpus)) if self.gpus else (free_memory(), 1)
        if free_mb is None:
            return self
        return replace(self, workers=min(self.workers, devices * max(1, int(free_mb // run_mb))))


def plan(config: Config, jobs: int) -> Plan:
    """The plan that ``workers``, ``threads`` and ``device`` give a sweep of ``jobs`` runs on this machine.

    By default every core trains one run with one thread; every GPU trains two runs if its free memory is known.
    """
    memory_by_gpu = gpus(config.device)
    known = [memory for memory in memory_by_gpu.values() if memory is not None]
    free_mb = min(known) if known and len(known) == len(memory_by_gpu) else None
    threads = config.threads or 1
    if memory_by_gpu:
        default_workers = len(memory_by_gpu) * (1 if free_mb is None else RUNS_PER_GPU)
    else:
        default_workers = cores() // threads
    workers = min(config.workers or default_workers or 1, jobs)
    if memory_by_gpu and config.threads is None:
        threads = max(1, cores() // workers)  # they only feed the GPU
    return Plan(workers, threads, list(memory_by_gpu), free_mb=free_mb)


def gpus(device: str) -> dict[str, float | None]:
    """The GPUs that runs with this ``device`` may use, and the free megabytes of each, None where unknown.

    GPUs are named as in CUDA_VISIBLE_DEVICES. There are none on a CPU; a device that the configuration names
    (``cuda:1``, ``mps``) is "", its memory unknown.
    """
    if device not in ("auto", "cuda"):
        return {} if device == "cpu" else {"": None}
    if not any(list(DEVICES.glob(pattern)) for pattern in DRIVERS):
        return {}
    # Another process asks torch, only if there is a driver: a process that forks must not start CUDA, and torch
    # takes seconds to import.
    command = [sys.executable, "-c", "from repro.sweeps import machine; machine.print_free_memory()"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    words = done.stdout.split() if done.returncode == 0 else []
    free_mb = [None if word == EXCLUSIVE else float(word) for word in words]
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return dict(zip(names or map(str, range(len(free_mb))), free_mb, strict=False))


def print_free_memory() -> None:
    """Print the free megabytes of every GPU, or "exclusive": some clusters limit a GPU to one process."""
    import torch

    compute_mode = 20  # cuda.h, CUdevice_attribute
    for index in range(torch.cuda.device_count()):
        mode = ctypes.c_int(0)
        with contextlib.suppress(OSError):  # AMD has neither this library nor this mode
            driver = ctypes.CDLL("libcuda.so.1")
            driver.cuInit(0)
            driver.cuDeviceGetAttribute(ctypes.byref(mode), compute_mode, index)
        print(EXCLUSIVE if mode.value else torch.cuda.mem_get_info(index)[0] / 2**20)
