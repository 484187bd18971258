"""The processes that a sweep trains in: several runs at once, each in one of its own.

A server imports torch once, and every run is a fork of it: it starts in tens of milliseconds, and what kills it
kills nothing else. How many run at once changes no result: ``threads`` a run does not depend on it.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from omegaconf import DictConfig, open_dict, read_write

from repro.config import Mode
from repro.config.errors import ReproError
from repro.records import mark_failed
from repro.sweeps import _compat, machine
from repro.sweeps.jobs import Job
from repro.sweeps.machine import Plan
from repro.tracking import mirror
from repro.training import lifecycle
from repro.training.interrupts import Interrupted, interruptible

SECONDS = 0.1  # between two looks for a signal
GRACE = 3.0  # seconds that a second Ctrl-C leaves a run to say that it was interrupted
FORWARDED = [signal.SIGTERM, signal.SIGUSR2]  # what a run may hear by itself too
AT_ONCE = signal.SIGUSR1  # tells a run to end without a checkpoint


def launch(jobs: list[Job], planned: Plan, initial_job_idx: int = 0) -> list[JobReturn]:
    """Run every job, so many at once as planned; what became of each, in their order.

    A run that fails or dies is reported in its place, the others go on. SIGINT, SIGTERM and SIGUSR2 end every
    run with a checkpoint and then raise Interrupted, a second SIGINT at once.
    """
    returns = [JobReturn() for _ in jobs]
    waiting = list(range(len(jobs)))
    slots = list(range(planned.workers))
    running: dict[int, _Run] = {}  # by sentinel
    context = multiprocessing.get_context("forkserver")
    start_server(jobs[0].composed)
    silent = context.RawValue("b", 0)  # what one run learns of W&B, the later ones need not wait for
    with interruptible() as stop:
        try:
            told = False
            while running or (waiting and not stop):
                while waiting and slots and not stop:
                    number, slot = waiting.pop(0), slots.pop(0)
                    job = jobs[number]
                    with read_write(job.composed), read_write(job.composed.hydra), open_dict(job.composed.hydra):
                        job.composed.hydra.job.id = job.composed.hydra.job.num = initial_job_idx + number
                    run = _Run(context, number, slot, job, planned, silent)
                    running[run.process.sentinel] = run
                if stop and not told:
                    told = True
                    for run in running.values():
                        run.tell(signal.SIGTERM)
                for sentinel in wait(list(running), timeout=SECONDS):
                    run = running.pop(sentinel)  # type: ignore[arg-type]
                    returns[run.number] = run.over()
                    slots.append(run.slot)
            if stop:
                raise Interrupted(stop[0])
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # a third Ctrl-C would leave some behind
            for run in running.values():
                run.tell(AT_ONCE)
            end = time.monotonic() + GRACE
            for run in running.values():
                run.process.join(max(0.0, end - time.monotonic()))
                run.tell(signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return returns


class _Run:
    """One job in its process."""

    def __init__(self, context: Any, number: int, slot: int, job: Job, planned: Plan, silent: Any):
        self.number, self.slot, self.job = number, slot, job
        self.result, theirs = context.Pipe(duplex=False)
        gpu = planned.gpus[slot % len(planned.gpus)] if planned.gpus else ""
        arguments = (job, planned.threads, gpu, _compat.version_base(), silent, theirs)
        self.process = context.Process(target=_job, args=arguments)
        with _compat.without_main():
            self.process.start()
        theirs.close()

    def tell(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process.exitcode is None:
                os.kill(self.process.pid, number)

    def over(self) -> JobReturn:
        """What became of it, once its process has ended."""
        self.process.join()
        if self.process.exitcode == _compat.ORPHANED:  # it may be alive, but nobody would know when it ends
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        error: str | None
        try:
            error = self.result.recv() if self.result.poll() else _death(self.process.exitcode)
        except EOFError:
            error = _death(self.process.exitcode)
        self.result.close()
        if self.process.exitcode:  # it may have had no time to write its end
            mark_failed(self.job.folder, error or _death(self.process.exitcode))
        if error is None:
            return JobReturn(self.job.overrides, status=JobStatus.COMPLETED)
        return _compat.failed(self.job.overrides, ReproError(error))


def _death(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "its process was killed by signal 9, as the system does when memory runs out; launch again, with "
            "fewer workers= if that was it"
        )
    what = f"was killed by signal {-code}" if code < 0 else f"ended by itself with code {code}"
    return f"its process {what}; train.log has its last words, the same command goes on"


def start_server(composed: DictConfig) -> None:
    """Start what runs are forked from, if it is not there: it imports what they need while we go on.

    ``composed`` is the sweep's own configuration. The server hears no signal: those to a whole group of processes
    would end it before its runs. Nor do they hear Ctrl-C, which a terminal tells all of us: we tell them.
    """
    modules = [
        "torch",
        "repro.training.lifecycle",
        "repro.training.loop",
        "repro.data.batches",
        "repro.tracking.mirror",
    ]
    modules += ["wandb.sdk.launch"] if composed.tracking.mode is not Mode.disabled else []
    # (wandb.init itself imports wandb.sdk.launch, and all of wandb with it)
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    # No thread may run where processes are forked from; and where more threads than cores are asked for, none may
    # spin while it waits.
    settings = {"OPENBLAS_NUM_THREADS": "1"}
    if (composed.workers or 1) * (composed.threads or 1) > machine.cores():
        settings["OMP_WAIT_POLICY"] = "passive"
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings | {key: value for key, value in before.items() if value is not None})
    try:
        _compat.start_fork_server(blocked=[signal.SIGINT, *FORWARDED])
    finally:
        for key in [key for key, value in before.items() if value is None]:
            del os.environ[key]


def _job(job: Job, threads: int, gpu: str, base: Any, silent: Any, result: Connection) -> None:
    """In its own process: train one run as Hydra's own launcher does, and tell what went wrong, or None."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    threading.Thread(target=_follow, daemon=True).start()
    signal.signal(AT_ONCE, signal.default_int_handler)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    mirror.silent = silent
    try:
        result.send(_train(job, threads, base))
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", signal.SIGINT)
        result.send(f"interrupted by signal {number}; the same command goes on")
    finally:
        result.close()


def _train(job: Job, threads: int, base: Any) -> str | None:
    import torch

    def task(composed: DictConfig) -> None:
        """What the sweep resolved is what is trained, though the environment be another here."""
        lifecycle.run(job.config, Path(HydraConfig.get().runtime.output_dir))

    with contextlib.suppress(OSError):  # what is printed, or said in dying, is not for the terminal
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / "train.log", "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        faulthandler.enable()
    torch.set_num_threads(threads)
    _compat.set_version_base(base)
    setup_globals()
    JobRuntime.instance().set("name", job.composed.hydra.job.name)
    try:
        done = run_job(
            hydra_context=_compat.job_context(job.composed),
            task_function=task,
            config=job.composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if (error := _compat.error_of(done)) is not None:
            raise error
        return None
    except ReproError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"[:10_000]


def _follow() -> None:
    """End when the sweep's own process does, however it does: nobody would launch or stop this run again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
