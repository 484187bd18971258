"""``hydra/launcher=ray``: every run is a Ray task; each is collected, and retried if its worker died.

Hydra's plug-in raises when one task fails, and abandons the others.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from repro.config.errors import ReproError, first_line
from repro.records import lock, queued
from repro.sweeps import _compat, elsewhere
from repro.sweeps.jobs import Job
from repro.sweeps.progress import modified_ns

ROOM_SECONDS = 30.0  # for an autoscaling cluster to add a node with the resources that a run requests
LOCK_PATIENCE = 300.0  # seconds that a retried task waits for the lock of its dead predecessor
DIED = 75  # exit code of a worker that was told to end


def train(
    context: HydraContext,
    composed: DictConfig,
    task_function: TaskFunction,
    singleton_state: dict[type, Singleton],
    environment: Mapping[str, str],
) -> str | None:
    """In a Ray worker: train one run; returns its error as text, or None.

    ``environment`` has the variables that it takes over from the process that launched it. A worker that is told
    to end writes a checkpoint and exits, so that Ray retries the task.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import run_job, setup_globals

    os.environ.update(environment)
    lock.patience = LOCK_PATIENCE
    setup_globals()
    Singleton.set_state(singleton_state)
    HydraConfig.instance().set_config(composed)
    try:
        job_return = run_job(
            hydra_context=context,
            task_function=task_function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except KeyboardInterrupt:
        os._exit(DIED)
    error = _compat.error_of(job_return)
    return None if error is None else str(error) or type(error).__name__


class Launcher:
    """Submits runs to the cluster at ``RAY_ADDRESS``, or to one on this machine, and collects every one.

    ``params`` are ``init`` and ``remote`` of ``conf/hydra/launcher/ray.yaml``.
    """

    def __init__(self, params: dict[str, Any]):
        self.init, self.remote = params["init"], params["remote"]

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what the tasks need."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    @property
    def gpus_per_run(self) -> float:
        """The number of GPUs that a run requests, a fraction if several runs share one."""
        return float(self.remote.get("num_gpus") or 0)

    def describe(self, runs: int) -> str:
        """A description of how the cluster would execute ``runs`` runs."""
        requested = ", ".join(f"{key}={value}" for key, value in self.remote.items())
        return f"{runs} Ray tasks, as many at once as the cluster has room for, each with {requested}"

    def collect(self, jobs: list[Job], overrides: list[list[str]]) -> list[JobReturn]:
        """Run every job as a task; their results by their records, in order."""
        import ray
        from ray.exceptions import RayError

        before = {job.folder: modified_ns(job.folder) for job in jobs}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # by default Ray sends usage data to its developers
        try:
            if not ray.is_initialized():
                ray.init(**{"log_to_driver": False, **self.init})
            if problem := self._missing_resources():
                return [_compat.failed_return(job.overrides, ReproError(problem)) for job in jobs]
            task = ray.remote(**self.remote)(train)
            folders = {}
            environment = {key: value for key, value in os.environ.items() if key.startswith("WANDB_")}
            for number, (job, job_overrides) in enumerate(zip(jobs, overrides, strict=True)):
                composed = self.context.config_loader.load_sweep_config(self.config, job_overrides)
                with open_dict(composed.hydra.job):
                    composed.hydra.job.num, composed.hydra.job.id = number, str(number)
                state = Singleton.get_state()
                reference = task.remote(self.context, composed, self.task_function, state, environment)
                folders[reference] = job.folder
                id = reference.task_id().hex()
                queued.write(
                    job.folder,
                    queued.Submitted(engine="ray", id=id, log=str((job.folder / "train.log").absolute())),
                )
            endings = {}
            waiting = list(folders)
            while waiting:
                done, waiting = ray.wait(waiting)
                for reference in done:
                    endings[folders[reference]] = _ending(reference)
        except (RayError, ConnectionError, OSError) as error:
            ending = f"the Ray cluster does not respond: {first_line(error)}; {elsewhere.AGAIN}"
            endings = dict.fromkeys(before, ending)
        except BaseException:
            print("note: the Ray tasks end with this process; launch again to resume them", file=sys.stderr)
            raise
        return [elsewhere.found(job, before[job.folder], endings[job.folder]) for job in jobs]

    def _missing_resources(self) -> str | None:
        """The line for resources that a run requests and no node has after ROOM_SECONDS; None if one has them."""
        import ray

        requested = {
            name: self.remote[key]
            for key, name in (("num_gpus", "GPU"), ("num_cpus", "CPU"))
            if self.remote.get(key) is not None
        }
        requested |= self.remote.get("resources") or {}
        deadline = time.monotonic() + ROOM_SECONDS
        while not any(_has_resources(node["Resources"], requested) for node in ray.nodes() if node["Alive"]):
            if time.monotonic() > deadline:
                missing = " and ".join(f"{count:g} {name}" for name, count in requested.items())
                advice = (
                    "hydra.launcher.ray.remote.num_gpus=0 trains on CPUs"
                    if requested.get("GPU")
                    else "request less"
                )
                return f"no node of the Ray cluster has {missing}, which a run requests; {advice}"
            time.sleep(1.0)
        return None


def _has_resources(resources: Mapping[str, float], requested: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= count for name, count in requested.items())


def _ending(reference: Any) -> str:
    """A description of how a task ended."""
    import ray

    try:
        error = ray.get(reference)
    except Exception as exception:  # Ray has many exception types
        # The last line of a remote traceback is its cause.
        error = (str(exception).strip().splitlines() or [type(exception).__name__])[-1].strip()
    return f"Ray task {reference.task_id().hex()}: {error or 'completed'}"
