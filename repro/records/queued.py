"""``job.json``: the cluster job that a run was last submitted as, and its log. Does not import torch.

A launcher writes it beside the record when it submits the run, so that a queued run can be told from a lost one.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypedDict, cast

from repro.records.files import write_whole

NAME = "job.json"
ANSWER_SECONDS = 30.0  # timeout of Slurm's controller
# Slurm's states of a queued job that is not running
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED", "PREEMPTED")


class Submitted(TypedDict):
    """A cluster job that trains a run."""

    engine: str  # "slurm", "ray"
    id: str  # in the engine
    log: str  # the path of its log on the machine that launched it, or on a shared disk


def write(folder: Path, job: Submitted) -> None:
    """Write ``job.json`` into a run's folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / NAME, json.dumps(job) + "\n")


def read(folder: Path) -> Submitted | None:
    """The job that was last submitted for a run; None if there is none, or if ``job.json`` is broken."""
    with suppress(OSError, ValueError):
        job = json.loads((folder / NAME).read_bytes())
        if isinstance(job, dict) and all(isinstance(job.get(key), str) for key in Submitted.__annotations__):
            return cast(Submitted, job)
    return None


def in_queue() -> dict[str, str] | None:
    """The state of each of this user's jobs in Slurm's queue, such as RUNNING, by id (``7_0`` in an array).

    None if Slurm is not installed, or if its controller does not answer.
    """
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i %T"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {words[0]: words[1] for line in done.stdout.splitlines() if len(words := line.split()) == 2}


def alive(jobs: Iterable[Submitted | None]) -> dict[str, str]:
    """The states of the given jobs in Slurm's queue, by id; Slurm is asked only if one of the jobs is Slurm's."""
    ids = {job["id"] for job in jobs if job is not None and job["engine"] == "slurm"}
    states = (in_queue() or {}) if ids else {}
    return {id: state for id, state in states.items() if id in ids}
