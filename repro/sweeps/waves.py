"""Runs of a sweep that start from a snapshot of another come after it. No torch here."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn

from repro.config import fingerprint
from repro.config.errors import ReproError
from repro.records import starts
from repro.sweeps import _compat
from repro.sweeps.jobs import Job
from repro.training import checkpoints, lifecycle


def link(jobs: list[Job]) -> None:
    """Let each job that starts from another of the sweep look for its snapshot where that one lies.

    Raises ReproError where that one does not keep the snapshot.
    """
    if not any(job.config.start.curve for job in jobs):
        return
    by_fingerprint = {fingerprint(job.config, images=False): job for job in jobs}
    for job in jobs:
        start = job.config.start
        source = by_fingerprint.get(start.fingerprint or "")
        if source is None or start.iteration is None:
            continue
        start.folder = str(source.folder)
        kept = source.config.snapshots
        if start.iteration not in kept and not starts.snapshot(source.folder, start.iteration).exists():
            factor = job.config.scale.iterations
            raise ReproError(
                f"{described([job])[0]}, which keeps {[round(i / factor) for i in kept] or 'no snapshot'}; "
                "add it to snapshots there"
            )


def in_waves(jobs: list[Job]) -> list[list[Job]]:
    """The jobs, those that start from another of them in a later wave than that one."""
    waiting, waves = list(jobs), []
    while waiting:
        folders = {str(job.folder) for job in waiting}
        waves.append([job for job in waiting if job.config.start.folder not in folders])
        if not waves[-1]:
            raise ReproError(f"start.folder={waiting[0].config.start.folder}: these runs start from each other")
        waiting = [job for job in waiting if job.config.start.folder in folders]
    return waves


def launch(jobs: list[Job], launch_jobs: Callable[[list[Job]], Sequence[JobReturn]]) -> list[JobReturn]:
    """Launch wave after wave by ``launch_jobs``; the returns in the order of ``jobs``.

    A job whose source has left no snapshot is not launched: its record and its return say why.
    """
    returns: dict[Path, JobReturn] = {}
    for wave in in_waves(jobs):
        problems = refused(wave)
        for job in wave:
            if (problem := problems.get(job.folder)) is not None:
                lifecycle.refuse(job.config, job.folder, job.changes, problem)
                returns[job.folder] = _compat.failed_return(job.overrides, ReproError(problem))
        trainable = [job for job in wave if job.folder not in problems]
        if trainable:
            returns |= dict(zip((job.folder for job in trainable), launch_jobs(trainable), strict=True))
    return [returns[job.folder] for job in jobs]


def refused(jobs: list[Job]) -> dict[Path, str]:
    """By folder, why jobs whose source has had its turn cannot start; those that have begun need none."""
    problems = {}
    for job in jobs:
        if checkpoints.find(job.folder):
            continue
        try:
            if problem := starts.problem(job.config):
                problems[job.folder] = problem
        except ReproError as error:
            problems[job.folder] = str(error)
    return problems


def described(jobs: list[Job]) -> list[str]:
    """A line a curve that starts from another's snapshot."""
    factor = {job.config.curve: job.config.scale.iterations for job in jobs}
    starting = {job.config.curve: job.config.start for job in jobs if job.config.start.curve}
    return [
        f"{curve} starts from iteration {round((start.iteration or 0) / factor[curve])} of {start.curve}"
        for curve, start in starting.items()
    ]
