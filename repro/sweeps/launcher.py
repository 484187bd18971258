"""A sweep on this machine: as many concurrent runs as fit, each in its own process."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from repro.config.errors import ReproError
from repro.sweeps import _compat, cost, preflight
from repro.sweeps.jobs import Composer, Job, compose_all
from repro.sweeps.progress import Progress
from repro.training import lifecycle


@runtime_checkable
class OnThisMachine(Protocol):
    """The methods that a launcher adds to Hydra's if it trains on the launching machine.

    The sweeper tests for it with ``isinstance``. Any other launcher gets each job's overrides through Hydra's
    ``launch``, and cost estimates assume that it trains one run at a time.
    """

    def start(self) -> None:
        """Start slow preparations, which continue while the jobs are composed."""

    def launch_jobs(self, jobs: list[Job], initial_job_idx: int = 0) -> Sequence[JobReturn]:
        """Hydra's ``launch`` for jobs that are already composed and resolved."""


class Launcher:
    """Trains every job in a process of ``repro.sweeps.workers``, for any Hydra app and sweeper."""

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what ``launch`` needs; ``config`` is the configuration of the sweep itself."""
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
        combinations = [list(overrides) for overrides in job_overrides]
        return self.launch_jobs(compose_all(composer, combinations, initial_job_idx), initial_job_idx)

    def launch_jobs(self, jobs: list[Job], initial_job_idx: int = 0) -> list[JobReturn]:
        """Run every job that can train here, as many at once as fit; their results, in order."""
        from repro.sweeps import workers

        folder = Path(self.composed.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        preflight.note_locks(folder)
        problems = dict(enumerate(preflight.problems([job.config for job in jobs])))
        trainable = [index for index, problem in problems.items() if problem is None]
        if trainable:
            configs = [jobs[index].config for index in trainable]
            planned = cost.plan_within_memory(configs)
            if problem := preflight.lack_of_room(folder, configs, planned.workers):
                problems, trainable = problems | dict.fromkeys(trainable, problem), []
        returns = {}
        for index, problem in problems.items():
            if problem is not None:
                lifecycle.refuse(jobs[index].config, jobs[index].folder, jobs[index].changes, problem)
                returns[index] = _compat.failed_return(jobs[index].overrides, ReproError(problem))
        if trainable:
            for problem in dict.fromkeys(filter(None, problems.values())):
                count = list(problems.values()).count(problem)
                print(f"{count} of {len(jobs)} runs cannot train: {problem}", file=sys.stderr)
            with Progress([(jobs[index].folder, jobs[index].config) for index in trainable]):
                trained = workers.launch([jobs[index] for index in trainable], planned, initial_job_idx)
            returns |= dict(zip(trainable, trained, strict=True))
        return [returns[index] for index in range(len(jobs))]
