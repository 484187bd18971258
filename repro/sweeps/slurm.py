"""``hydra/launcher=slurm``: every run, or several together, is a Slurm job by submitit; each is collected.

Slurm's queue says whether a job is alive, the run's record how the run ended, and Slurm's accounting, if enabled,
how the job ended. Submitit's plug-in raises when one job dies, and abandons the others.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Plugin
from omegaconf import DictConfig, open_dict, read_write

from repro.config.errors import ReproError, first_line
from repro.records import lock, queued
from repro.sweeps import _compat, elsewhere
from repro.sweeps.jobs import Job
from repro.sweeps.progress import modified_ns

POLL_SECONDS = 2.0  # between two queries of the queue
GONE_SECONDS = 6.0  # without a job in the queue until it counts as ended
RESOURCES = ("nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")
SHARED = ("name", "stderr_to_stdout", *RESOURCES)  # parameters of all submitit executors; the others are Slurm's
LEAST = {"runs_per_job": 1, "array_parallelism": 1, "timeout_min": 1, "max_num_timeout": 0, "gpus_per_node": 0}
HINTS = {"gpus_per_node": "; with null, gres=gpu:a100:2 asks for a kind", "timeout_min": " (minutes)"}
OWN = ("runs_per_job", "submitit_folder", "max_num_timeout")  # not parameters of the executor
ACCESS = ("SLURM_CONF", "SLURM_JWT")  # how its commands reach Slurm, inside a job too
LOCK_PATIENCE = 300.0  # seconds that a requeued job waits for the lock of its dead predecessor


class Task(Plugin):  # type: ignore[misc]
    """The work of a job; submitit pickles it, and requeues it when the job is preempted or times out."""

    def __call__(
        self, runs: list[tuple[list[str], int]], names: list[str], singleton_state: dict[type, Singleton]
    ) -> None:
        """Train runs, given by their overrides; several run concurrently, each in its own process.

        Raises ReproError that names those that failed, so that Slurm marks the job as failed too.
        """
        _name_job(names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""))
        if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            lock.patience = LOCK_PATIENCE
        if len(runs) == 1:
            overrides, number = runs[0]
            returns = [
                super().__call__(overrides, "hydra.sweep.dir", number, "", singleton_state)  # its id is Slurm's
            ]
        else:
            returns = self._train_together([overrides for overrides, _ in runs], runs[0][1], singleton_state)
        errors = [str(error) for job_return in returns if (error := _compat.error_of(job_return)) is not None]
        if errors:
            raise ReproError("; ".join(errors))

    def _train_together(
        self, overrides: list[list[str]], first: int, singleton_state: dict[type, Singleton]
    ) -> list[JobReturn]:
        from hydra.core.utils import setup_globals

        from repro.sweeps.launcher import Launcher

        Singleton.set_state(singleton_state)
        setup_globals()
        with read_write(self.config), open_dict(self.config):
            self.config.workers = self.config.workers or len(overrides)
        launcher = Launcher()
        launcher.setup(self.hydra_context, self.task_function, self.config)
        return launcher.launch(overrides, first)


class Launcher:
    """Submits jobs, waits for them and collects; ``params`` are those of ``conf/hydra/launcher/slurm.yaml``."""

    def __init__(self, params: dict[str, Any]):
        for key, least in LEAST.items():
            value = params[key]
            if not (isinstance(value, int) and value >= least) and not (value is None and key in RESOURCES):
                raise ReproError(
                    f"hydra.launcher.{key}={value}: give a whole number, {least} or more{HINTS.get(key, '')}"
                )
        if not params["submitit_folder"]:
            raise ReproError("hydra.launcher.submitit_folder: give the folder of the scripts and logs")
        self.params = params

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what the jobs need."""
        arguments = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        self.task, self.plugin = Task(), Plugin(**{k: v for k, v in self.params.items() if k != "runs_per_job"})
        self.task.setup(**arguments)
        self.plugin.setup(**arguments)
        self.sweep_dir = Path(config.hydra.sweep.dir).absolute()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's interface, for other sweepers: that of the plug-in, which ends at the first dead job."""
        returns: Sequence[JobReturn] = self.plugin.launch(job_overrides, initial_job_idx)
        return returns

    @property
    def gpus_per_run(self) -> float:
        """The number of GPUs that a run requests, a fraction if several runs share one."""
        gpus = self.params["gpus_per_node"] or self.params["gpus_per_task"] or _gpus_of(self.params["gres"] or "")
        return float(gpus) / int(self.params["runs_per_job"])

    def describe(self, runs: int) -> str:
        """A description of how the cluster would execute ``runs`` runs."""
        runs_per_job = self.params["runs_per_job"]
        names = ("partition", "gres", *RESOURCES)
        requested = {key: value for key in names if (value := self.params[key]) is not None}
        jobs, at_once = -(-runs // runs_per_job), self.params["array_parallelism"]
        each = f" of {runs_per_job} runs" if runs_per_job > 1 else ""
        return (
            f"an array of {jobs} job{'s' * (jobs > 1)}{each}, at most {min(jobs, at_once)} at once, "
            f"each with {', '.join(f'{key}={value}' for key, value in requested.items())}"
        )

    def collect(self, jobs: list[Job], overrides: list[list[str]]) -> list[JobReturn]:
        """Submit the runs that no living job trains and wait for all; their results by their records, in order."""
        before = {job.folder: modified_ns(job.folder) for job in jobs}
        ids = self._living_jobs(jobs)
        to_submit = [index for index, job in enumerate(jobs) if job.folder not in ids]
        refusal = None
        try:
            ids |= self._submit([jobs[i] for i in to_submit], [overrides[i] for i in to_submit])
        except ReproError as error:
            refusal = error
        except (subprocess.SubprocessError, OSError, RuntimeError) as error:
            refusal = ReproError(f"Slurm does not accept the jobs: {_reason(error)}")
        try:
            self._wait([job for job in jobs if job.folder in ids], ids, before)
        except BaseException:
            self._print_living_jobs(ids)
            raise
        return [
            elsewhere.found(job, before[job.folder], _ending(job.folder, ids[job.folder]))
            if refusal is None or job.folder in ids
            else _compat.failed_return(job.overrides, refusal)
            for job in jobs
        ]

    def _living_jobs(self, jobs: list[Job]) -> dict[Path, str]:
        """The ids of an earlier launch's jobs that are still queued or running, by run folder; prints them."""
        earlier = {job.folder: queued.read(job.folder) for job in jobs}
        states = queued.alive(earlier.values())
        ids = {folder: job["id"] for folder, job in earlier.items() if job and job["id"] in states}
        if ids:
            named = ", ".join(f"{id} {states[id]}" for id in dict.fromkeys(ids.values()))
            summary = f"{len(ids)} of {len(jobs)} runs have jobs that are queued or running"
            print(f"{summary}; waiting for them: {named}")
        return ids

    def _submit(self, jobs: list[Job], overrides: list[list[str]]) -> dict[Path, str]:
        """Submit an array of jobs, each of ``runs_per_job`` runs; returns each run's job id, by folder."""
        import submitit

        if not jobs:
            return {}
        folder = self.params["submitit_folder"]
        executor = submitit.AutoExecutor(
            folder=str(Path(folder).absolute()),
            cluster="slurm",
            slurm_max_num_timeout=self.params["max_num_timeout"],
        )
        parameters = {key: value for key, value in self.params.items() if key not in OWN and value is not None}
        try:
            executor.update_parameters(**{k if k in SHARED else f"slurm_{k}": v for k, v in parameters.items()})
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise ReproError(f"hydra.launcher: {' '.join(str(error).split())}") from error
        state, count = Singleton.get_state(), self.params["runs_per_job"]
        groups = [range(start, min(start + count, len(jobs))) for start in range(0, len(jobs), count)]
        with _outside_a_job():
            submitted = executor.map_array(
                self.task,
                [[(overrides[i], i) for i in group] for group in groups],
                [[f"{jobs[i].config.curve}/seed{jobs[i].config.seed}" for i in group] for group in groups],
                [state] * len(groups),
            )
        ids: dict[Path, str] = {}
        unwritten = None
        for group, job in zip(groups, submitted, strict=True):
            for index in group:
                ids[jobs[index].folder] = job.job_id
                record = queued.Submitted(engine="slurm", id=job.job_id, log=str(job.paths.stdout))
                try:
                    queued.write(jobs[index].folder, record)
                except OSError as error:
                    unwritten = error
        print(
            f"{len(jobs)} runs are {len(groups)} Slurm jobs, {submitted[0].job_id} to {submitted[-1].job_id}; "
            f"logs: {submitted[0].paths.stdout.parent.parent}; "
            f"python -m repro.status {shlex.quote(f'output={self.sweep_dir}')}"
        )
        if unwritten is not None:
            problem = f"{unwritten.filename}: {unwritten.strerror}"
            print(
                f"note: {problem}; launching again before the jobs end would submit such runs twice",
                file=sys.stderr,
            )
        return ids

    def _wait(self, jobs: list[Job], ids: dict[Path, str], before: dict[Path, int | None]) -> None:
        """Wait until every job has left the queue or all its runs are finished, even if Slurm does not respond."""
        missing: dict[str, float] = {}  # id -> since when it is not in the queue
        waiting = set(ids.values())
        folders: dict[str, list[Job]] = {}
        for job in jobs:
            folders.setdefault(ids[job.folder], []).append(job)
        while waiting:
            time.sleep(POLL_SECONDS)
            states = queued.in_queue()
            for id in list(waiting):
                if all(elsewhere.has_ended(job, before[job.folder]) for job in folders[id]):
                    waiting.discard(id)
                elif states is None or id in states:
                    missing.pop(id, None)
                elif time.monotonic() - missing.setdefault(id, time.monotonic()) > GONE_SECONDS:
                    waiting.discard(id)

    def _print_living_jobs(self, ids: dict[Path, str]) -> None:
        states = queued.in_queue()
        living = [id for id in dict.fromkeys(ids.values()) if states is None or id in states]
        if living:
            arrays = " ".join(dict.fromkeys(id.partition("_")[0] for id in living))
            print(
                f"note: {len(living)} Slurm jobs are still queued or running: {' '.join(living)}; launch again to "
                f"wait for them, or cancel them: scancel {arrays}",
                file=sys.stderr,
            )


def _ending(folder: Path, id: str) -> str:
    """A description of how a job ended, by Slurm's accounting, and where its log is."""
    job = queued.read(folder)
    command = ["sacct", "-j", id, "-X", "-n", "-P", "-o", "State,ExitCode"]
    words: list[str] = []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", check=True, timeout=queued.ANSWER_SECONDS
        )
        words = done.stdout.strip().splitlines()[-1].split("|") if done.stdout.strip() else []
    state = f"{words[0]}, exit code {words[1]}" if len(words) == 2 else "no longer in the queue"
    return f"Slurm job {id}: {state}; log {job['log'] if job else 'unknown'}"


@contextlib.contextmanager
def _outside_a_job() -> Iterator[None]:
    """While entered, the environment lacks the variables of the Slurm job that this process is, if it is one.

    Jobs submitted from it would inherit them, and srun refuses some beside those of their own (as of memory).
    """
    prefixes = ("SLURM_", "SRUN_", "SUBMITIT_") if "SLURM_JOB_ID" in os.environ else ()
    own = {key: os.environ.pop(key) for key in [*os.environ] if key.startswith(prefixes) and key not in ACCESS}
    try:
        yield
    finally:
        os.environ.update(own)


def _gpus_of(gres: str) -> int:
    """The number of GPUs that ``gres`` names, as in gpu, gpu:2, gpu:a100 and gpu:a100:2."""
    counts = [parts[-1] for entry in gres.split(",") if (parts := entry.split(":"))[0] == "gpu"]
    return sum(int(count) if count.isdigit() else 1 for count in counts)


def _reason(error: Exception) -> str:
    """What sbatch says last of why it fails, without the warnings before it."""
    said = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
    return said[-1].removeprefix("sbatch: ") if said else first_line(error)


def _name_job(name: str) -> None:
    """Set the name under which squeue shows the job of this process; errors are ignored."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{key}_ID") for key in ("JOB", "TASK"))
    id = os.environ.get("SLURM_JOB_ID") if array is None else f"{array}_{task}"
    if id is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                ["scontrol", "update", f"JobId={id}", f"JobName={name[:200]}"], capture_output=True, timeout=30
            )
