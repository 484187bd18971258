"""The cores, GPUs and free memory of this machine, and how a sweep shares them. No torch here."""

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

ANSWER_SECONDS = 120.0  # for all GPUs, torch's import included; a broken one may never answer


@dataclass(frozen=True)
class Plan:
    """How many runs of a sweep train at once, the CPU threads of each, and the GPUs that they share in turn."""

    workers: int
    threads: int
    gpus: list[str]
    cores: int = field(default_factory=lambda: cores())

    def within(self, run_mb: float) -> "Plan":
        """This plan with no more runs on a CPU at once than free memory holds, at ``run_mb`` megabytes a run.

        At least one remains.
        """
        free_mb = None if self.gpus else free_memory()
        if free_mb is None:
            return self
        return replace(self, workers=min(self.workers, max(1, int(free_mb // run_mb))))


def plan(config: Config, jobs: int) -> Plan:
    """The plan that ``workers``, ``threads`` and ``device`` give a sweep of ``jobs`` runs on this machine.

    By default every core trains one run with one thread, every GPU one run.
    """
    gpu_names = gpus(config.device)
    threads = config.threads or 1
    workers = min(config.workers or len(gpu_names) or cores() // threads or 1, jobs)
    if gpu_names and config.threads is None:
        threads = max(1, cores() // workers)  # they only feed the GPU
    return Plan(workers, threads, gpu_names)


def gpus(device: str) -> list[str]:
    """The GPUs that runs with this ``device`` may use, named as in CUDA_VISIBLE_DEVICES.

    There are none on a CPU; a device that the configuration names (``cuda:1``, ``mps``) is "". A GPU that does not
    answer is left out, with a note. Raises ReproError if none of several answers, or if "cuda" is none.
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
        reason = (lines or ["no answer"])[-1]
        raise ReproError(f"device={device}: the GPU does not answer ({reason}); device=cpu does without") from None
    if not problems and device == "cuda":
        raise ReproError("device=cuda: torch finds no GPU; device=cpu does without")
    if unusable:
        print(f"note: {unusable}", file=sys.stderr)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    by_name = dict(zip(visible or map(str, range(len(problems))), problems, strict=False))
    silent = [f"GPU {name} does not answer ({problem})" for name, problem in by_name.items() if problem]
    if silent and len(silent) == len(by_name):
        raise ReproError(f"device={device}: {'; '.join(silent)}; device=cpu does without")
    for line in silent:
        print(f"note: {line} and is left out", file=sys.stderr)
    return [name for name, problem in by_name.items() if not problem]
