"""A sweep on this machine: as many runs at once as fit, each in its own process."""

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
    """What a launcher that trains on the launching machine adds to Hydra's methods.

    The sweeper tests for it with ``isinstance``. Any other launcher gets each job's overrides through Hydra's
    ``launch``, and cost estimates assume that it trains one run at a time.
    """

    def start(self) -> None:
        """Start slow preparations that run while the jobs are composed."""

    def launch_jobs(self, jobs: list[Job], initial_job_idx: int = 0) -> Sequence[JobReturn]:
        """Hydra's ``launch`` for jobs that are already composed and resolved."""


class Launcher:
    """Trains every job in a process of ``repro.sweeps.workers``, for any Hydra app and sweeper."""

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what ``launch`` needs; ``config`` is the configuration of the sweep itself."""
        self.loader = hydra_context.config_loader
        self.composed = config

    def start(self) -> None:
        """Start the server that runs are forked from; it imports while the jobs are composed."""
        from repro.sweeps import workers

        workers.start_server(self.composed)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Hydra's interface: compose and resolve every job, then run them."""
        self.start()
        composer = Composer(self.loader, self.composed)
        numbered = enumerate(job_overrides, start=initial_job_idx)
        return self.launch_jobs([composer.job(list(overrides), n) for n, overrides in numbered], initial_job_idx)

    def launch_jobs(self, jobs: list[Job], initial_job_idx: int = 0) -> list[JobReturn]:
        """Run every job, no more at once than fit; their returns in order."""
        from repro.sweeps import workers

        Path(self.composed.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        prepare_datasets(job.config.dataset for job in jobs)
        planned = cost.plan_within_memory([job.config for job in jobs])
        with Progress([(job.folder, job.config) for job in jobs]):
            return workers.launch(jobs, planned, initial_job_idx)


def prepare_datasets(datasets: Iterable[Dataset]) -> None:
    """Download and decode each data set once, before several runs at once would; errors are left to the runs."""
    seen = set()
    for dataset in datasets:
        key = (dataset.name, dataset.root, dataset.cache)
        if dataset.digest is None and key not in seen:
            seen.add(key)
            with suppress(ReproError):
                images.load(dataset)
