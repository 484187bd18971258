"""The cores, GPUs and free memory of this machine, and how a sweep shares them. Does not import torch."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace

from repro.config import Config
from repro.config.errors import ReproError
from repro.resources import cores as cores
from repro.resources import free_memory as free_memory
from repro.training import devices

ANSWER_SECONDS = 120.0  # timeout for all GPUs, including torch's import; a broken GPU may never respond


@dataclass(frozen=True)
class Plan:
    """The number of concurrent runs of a sweep, the CPU threads of each, and the GPUs that they share."""

    workers: int
    threads: int
    gpus: list[str]
    cores: int = field(default_factory=lambda: cores())

    def within(self, run_mb: float) -> "Plan":
        """This plan with at most as many concurrent CPU runs as fit free memory, at ``run_mb`` megabytes per run.

        At least one remains.
        """
        free_mb = None if self.gpus else free_memory()
        if free_mb is None:
            return self
        return replace(self, workers=min(self.workers, max(1, int(free_mb // run_mb))))


def plan(config: Config, jobs: int) -> Plan:
    """The plan that ``workers``, ``threads`` and ``device`` give a sweep of ``jobs`` runs on this machine.

    By default every core trains one run with one thread, and every GPU one run. Raises ReproError as ``gpus``
    does.
    """
    gpu_names = gpus(config.device)
    threads = config.threads or 1
    workers = min(config.workers or len(gpu_names) or cores() // threads or 1, jobs)
    if gpu_names and config.threads is None:
        threads = max(1, cores() // workers)  # these only feed the GPU
    return Plan(workers, threads, gpu_names)


def gpus(device: str) -> list[str]:
    """The GPUs that runs with this ``device`` may use, named as in CUDA_VISIBLE_DEVICES.

    Empty for a CPU; a device that the configuration names (``cuda:1``, ``mps``) is "". A GPU that does not respond
    is skipped, with a note. Raises ReproError if no GPU responds, or if there is none for "cuda".
    """
    if device not in ("auto", "cuda"):
        return [] if device == "cpu" else [""]
    if device == "auto" and devices.driver() is None:
        return []
    # Another process asks torch: a process that forks must not start CUDA, and torch takes seconds to import.
    command = [sys.executable, "-c", "from repro.training import devices; devices.print_gpus()"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_SECONDS
        )
        unusable, problems = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        lines = [] if isinstance(error, subprocess.TimeoutExpired) else done.stderr.strip().splitlines()
        reason = (lines or ["timeout"])[-1]
        raise ReproError(
            f"device={device}: the GPU does not respond ({reason}); device=cpu trains without it"
        ) from None
    if not problems and device == "cuda":
        raise ReproError("device=cuda: torch finds no GPU; device=cpu trains without one")
    if unusable:
        print(f"note: {unusable}", file=sys.stderr)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    by_name = dict(zip(visible or map(str, range(len(problems))), problems, strict=False))
    unresponsive = [f"GPU {name} does not respond ({problem})" for name, problem in by_name.items() if problem]
    if unresponsive and len(unresponsive) == len(by_name):
        raise ReproError(f"device={device}: {'; '.join(unresponsive)}; device=cpu trains without them")
    for line in unresponsive:
        print(f"note: {line} and is skipped", file=sys.stderr)
    return [name for name, problem in by_name.items() if not problem]
