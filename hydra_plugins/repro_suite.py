"""The sweeper and the launcher, where Hydra discovers plug-ins: the namespace package ``hydra_plugins``.

Hydra imports this module in every app of the environment and accepts only classes defined here. They import the
suite when instantiated, so that other apps pay nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from repro.sweeps.jobs import Job


@contextmanager
def _require_extra(name: str) -> Iterator[None]:
    """While entered, an ImportError becomes a ReproError that says to install the extra ``name``."""
    from repro.config.errors import ReproError, no_launcher

    try:
        yield
    except ImportError:
        raise ReproError(no_launcher(name)) from None


def _to_containers(params: dict[str, Any]) -> dict[str, Any]:
    return {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in params.items()}


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


class _Launcher(Launcher):
    """Delegates Hydra's methods to ``launcher``."""

    launcher: Any

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook before ``launch``."""
        self.launcher.setup(hydra_context, task_function, config)


class _Cluster(_Launcher):
    """Delegates the methods of ``repro.sweeps.elsewhere.Collects``, too."""

    def collect(self, jobs: "list[Job]", overrides: list[list[str]]) -> Sequence[JobReturn]:
        """Train the jobs with these overrides and return their results, in order."""
        returns: Sequence[JobReturn] = self.launcher.collect(jobs, overrides)
        return returns

    @property
    def gpus_per_run(self) -> float:
        """The number of GPUs that one run requests."""
        return float(self.launcher.gpus_per_run)

    def describe(self, runs: int) -> str:
        """A description of how the cluster would execute ``runs`` runs."""
        return str(self.launcher.describe(runs))


class SlurmLauncher(_Cluster):
    """``hydra/launcher=slurm`` and ``slurm-cpu``: ``repro.sweeps.slurm.Launcher``."""

    def __init__(self, **params: Any) -> None:
        with _require_extra("slurm"):
            from repro.sweeps import slurm
        self.launcher = slurm.Launcher(_to_containers(params))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's interface, for sweepers other than ours."""
        returns: Sequence[JobReturn] = self.launcher.launch(job_overrides, initial_job_idx)
        return returns


class RayLauncher(_Cluster):
    """``hydra/launcher=ray``: ``repro.sweeps.on_ray.Launcher``."""

    def __init__(self, ray: DictConfig) -> None:
        with _require_extra("ray"):
            import ray as _  # noqa: F401

            from repro.sweeps import on_ray
        self.launcher = on_ray.Launcher(_to_containers(dict(ray)))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Not supported: Hydra's interface for other sweepers. Raises ReproError."""
        from repro.config.errors import ReproError

        raise ReproError("hydra/launcher=ray: it works only with hydra/sweeper=repro, the default")


class LocalLauncher(_Launcher):
    """``hydra/launcher=local``: ``repro.sweeps.launcher.Launcher``, an ``OnThisMachine``."""

    def __init__(self) -> None:
        from repro.sweeps import launcher

        self.launcher = launcher.Launcher()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job, given by its overrides; returns their results in order."""
        returns: Sequence[JobReturn] = self.launcher.launch(job_overrides, initial_job_idx)
        return returns

    def start(self) -> None:
        """Start slow preparations, which continue while the jobs are composed."""
        self.launcher.start()

    def launch_jobs(self, jobs: "list[Job]", initial_job_idx: int = 0) -> Sequence[JobReturn]:
        """``launch`` for jobs that are already composed and resolved."""
        returns: Sequence[JobReturn] = self.launcher.launch_jobs(jobs, initial_job_idx)
        return returns
