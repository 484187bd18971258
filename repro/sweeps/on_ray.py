"""``hydra/launcher=ray``: every run a task of Ray; each is collected, and tried again where its worker died.

Hydra's plug-in raises where one task failed, and forgets the others.
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

ROOM_SECONDS = 30.0  # that a cluster which can grow has, to bring a node with what a run asks for
LOCK_PATIENCE = 300.0  # seconds that a task which is tried again waits for the lock of its dead predecessor
DIED = 75  # exit code of a worker that was told to end


def train(
    context: HydraContext,
    composed: DictConfig,
    task_function: TaskFunction,
    singleton_state: dict[type, Singleton],
) -> str | None:
    """In a worker of Ray: train one run; its error as text.

    A worker that is told to end leaves a checkpoint and dies, by which Ray tries the task again.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import run_job, setup_globals

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
    """Sends runs to the cluster that ``RAY_ADDRESS`` names, or to one of this machine, and collects every one.

    ``params`` are ``init`` and ``remote`` of ``conf/hydra/launcher/ray.yaml``.
    """

    def __init__(self, params: dict[str, Any]):
        self.init, self.remote = params["init"], params["remote"]

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the tasks need."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    @property
    def gpus_per_run(self) -> float:
        """GPUs that a run asks for, a part where several share one."""
        return float(self.remote.get("num_gpus") or 0)

    def describe(self, runs: int) -> str:
        """What so many runs would be on the cluster, in words."""
        asked = ", ".join(f"{key}={value}" for key, value in self.remote.items())
        return f"{runs} tasks of Ray, as many at once as the cluster has room for, each with {asked}"

    def collect(self, jobs: list[Job], overrides: list[list[str]]) -> list[JobReturn]:
        """Run every job as a task, and judge it by its record."""
        import ray
        from ray.exceptions import RayError

        before = {job.folder: modified_ns(job.folder) for job in jobs}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report this cluster to its makers
        try:
            if not ray.is_initialized():
                ray.init(**{"log_to_driver": False, **self.init})
            if problem := self._lack():
                return [_compat.failed_return(job.overrides, ReproError(problem)) for job in jobs]
            task = ray.remote(**self.remote)(train)
            folders = {}
            for number, (job, own_overrides) in enumerate(zip(jobs, overrides, strict=True)):
                composed = self.context.config_loader.load_sweep_config(self.config, own_overrides)
                with open_dict(composed.hydra.job):
                    composed.hydra.job.num, composed.hydra.job.id = number, str(number)
                state = Singleton.get_state()
                reference = task.remote(self.context, composed, self.task_function, state)
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
            how = f"Ray's cluster does not answer: {first_line(error)}; {elsewhere.AGAIN}"
            endings = dict.fromkeys(before, how)
        except BaseException:
            print("note: the tasks of Ray end with this process; launch again to resume them", file=sys.stderr)
            raise
        return [elsewhere.found(job, before[job.folder], endings[job.folder]) for job in jobs]

    def _lack(self) -> str | None:
        """What a run asks for and no node has, once the cluster had time to grow; None where one has it all."""
        import ray

        asked = {
            name: self.remote[key]
            for key, name in (("num_gpus", "GPU"), ("num_cpus", "CPU"))
            if key in self.remote
        }
        asked |= self.remote.get("resources") or {}
        until = time.monotonic() + ROOM_SECONDS
        while not any(_has(node["Resources"], asked) for node in ray.nodes() if node["Alive"]):
            if time.monotonic() > until:
                wanted = " and ".join(f"{count:g} {name}" for name, count in asked.items())
                advice = (
                    "hydra.launcher.ray.remote.num_gpus=0 trains on CPUs" if asked.get("GPU") else "ask for less"
                )
                return f"no node of Ray's cluster has {wanted}, which a run asks for; {advice}"
            time.sleep(1.0)
        return None


def _has(resources: Mapping[str, float], asked: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= count for name, count in asked.items())


def _ending(reference: Any) -> str:
    """How a task ended, in words."""
    import ray

    try:
        error = ray.get(reference)
    except Exception as died:  # of Ray's many kinds
        error = (str(died).strip().splitlines() or [type(died).__name__])[-1].strip()  # a traceback's cause
    return f"Ray's task {reference.task_id().hex()}: {error or 'completed'}"
