"""A sweep on this machine: as many runs at once as it has room for, each in a process of its own."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.data import images
from repro.sweeps import cost
from repro.sweeps.jobs import Composer, Job
from repro.sweeps.progress import Progress


@runtime_checkable
class OnThisMachine(Protocol):
    """What a launcher has, beside Hydra's methods, that trains on the machine that the sweep is launched on.

    The sweeper asks for it by ``isinstance``. Every other launcher gets the overrides of each job by Hydra's
    ``launch``, and what a sweep costs is told without how many of its runs go on at once.
    """

    def start(self) -> None:
        """Begin with what takes a while: the jobs are composed meanwhile."""

    def launch_jobs(self, jobs: list[Job], initial_job_idx: int = 0) -> Sequence[JobReturn]:
        """Hydra's ``launch`` of jobs that are composed and resolved already."""


class Launcher:
    """Trains every job by ``repro.sweeps.workers``, whatever app asks for it."""

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what ``launch`` needs; ``config`` is the sweep's own."""
        self.loader = hydra_context.config_loader
        self.composed = config

    def start(self) -> None:
        """Start the server that runs are forked from: it has its imports done when the jobs are composed."""
        from repro.sweeps import workers

        workers.start_server(self.composed)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Hydra's way to launch: compose and resolve every job, then run it."""
        self.start()
        composer = Composer(self.loader, self.composed)
        return self.launch_jobs([composer.job(list(overrides)) for overrides in job_overrides], initial_job_idx)

    def launch_jobs(self, jobs: list[Job], initial_job_idx: int = 0) -> list[JobReturn]:
        """Run every job, no more at once than fit."""
        from repro.sweeps import workers

        Path(self.composed.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        prepare(job.config.dataset for job in jobs)
        planned = cost.fitting([job.config for job in jobs])
        with Progress([(job.folder, job.config) for job in jobs]):
            return workers.launch(jobs, planned, initial_job_idx)


def prepare(datasets: Iterable[Dataset]) -> None:
    """Download and decode once what several runs at once would all download and decode; they tell what fails."""
    seen = set()
    for dataset in datasets:
        key = (dataset.name, dataset.root, dataset.cache)
        if dataset.digest is None and key not in seen:
            seen.add(key)
            with suppress(ReproError):
                images.load(dataset)
