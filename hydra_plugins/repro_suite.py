"""The sweeper and the launcher, where Hydra discovers plug-ins: the namespace package ``hydra_plugins``.

Hydra imports this module in every app of the environment and accepts only classes defined here. They import the
suite when they are instantiated, so other apps pay nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from repro.sweeps.jobs import Job


class ReproSweeper(Sweeper):
    """``hydra/sweeper=repro``: ``repro.sweeps.sweeper.Sweeper``."""

    def __init__(self, params: dict[str, Any] | None = None, show: str | None = None):
        from repro.sweeps import sweeper

        self.sweeper = sweeper.Sweeper(params, show)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook before ``sweep``."""
        self.sweeper.setup(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every unfinished job of the sweep."""
        return self.sweeper.sweep(arguments)


class LocalLauncher(Launcher):
    """``hydra/launcher=local``: ``repro.sweeps.launcher.Launcher``, an ``OnThisMachine``."""

    def __init__(self) -> None:
        from repro.sweeps import launcher

        self.launcher = launcher.Launcher()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook before ``launch``."""
        self.launcher.setup(hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job, given by its overrides; their returns in order."""
        return self.launcher.launch(job_overrides, initial_job_idx)

    def start(self) -> None:
        """Start slow preparations that run while the jobs are composed."""
        self.launcher.start()

    def launch_jobs(self, jobs: "list[Job]", initial_job_idx: int = 0) -> Sequence[JobReturn]:
        """``launch`` for jobs that are already composed and resolved."""
        return self.launcher.launch_jobs(jobs, initial_job_idx)
