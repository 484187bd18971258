"""The processes of a sweep: several concurrent runs, each in its own process.

A server imports torch once and every run is a fork of it, so that a run starts in tens of milliseconds. A killed
worker fails only its own run; a killed server fails the active runs, and the remaining ones are forked from a new
server. The number of concurrent runs does not affect results, because ``threads`` does not depend on it.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from omegaconf import DictConfig, open_dict, read_write

from repro import resources
from repro.config import Mode
from repro.config.errors import ReproError, describe
from repro.records import mark_failed, naming
from repro.sweeps import _compat, machine
from repro.sweeps.jobs import Job
from repro.sweeps.machine import Plan
from repro.tracking import _compat as wandb_compat
from repro.tracking import mirror
from repro.training import devices, lifecycle
from repro.training.interrupts import Interrupted, interruptible

POLL_SECONDS = 0.1  # between two checks for a signal
GRACE_SECONDS = 3.0  # after a second Ctrl-C, for runs to record that they were interrupted
RUN_SIGNALS = [signal.SIGTERM, signal.SIGUSR2]  # a run obeys these from any sender
ABORT = signal.SIGUSR1  # ends a run without a checkpoint
DYING_SECONDS = 0.5  # for which a killed server may appear alive though it no longer responds
SERVER_DIED = (
    "the process that the sweep's runs are forked from was killed, as the system does when memory runs out; run "
    "the same command again to resume, with fewer workers= if memory ran out"
)


def launch(jobs: list[Job], planned: Plan, initial_job_idx: int = 0) -> list[JobReturn]:
    """Run every job, as many at once as planned; returns their results in order.

    A run that fails or is killed does not affect the others; its result holds the error. SIGINT, SIGTERM and
    SIGUSR2 end every run with a checkpoint and then raise Interrupted; a second SIGINT ends them without a
    checkpoint.
    """
    returns = [JobReturn() for _ in jobs]
    waiting = list(range(len(jobs)))
    slots = list(range(planned.workers))
    running: dict[int, _Run] = {}  # by sentinel
    context = multiprocessing.get_context("forkserver")
    silent = _Flag(*context.Pipe(duplex=False))  # repro.tracking.mirror.silent, shared by the runs
    with interruptible() as stop:
        try:
            stopping = False
            while running or (waiting and not stop):
                while waiting and slots and not stop:
                    index, slot = waiting.pop(0), slots.pop(0)
                    job = jobs[index]
                    with read_write(job.composed), read_write(job.composed.hydra), open_dict(job.composed.hydra):
                        job.composed.hydra.job.id = job.composed.hydra.job.num = initial_job_idx + index
                    try:
                        run = _start(context, index, slot, job, planned, silent)
                    except (EOFError, ConnectionError):  # the server was killed, and so was its successor
                        lifecycle.refuse(job.config, job.folder, job.changes, SERVER_DIED)
                        returns[index] = _compat.failed_return(job.overrides, ReproError(SERVER_DIED))
                        slots.append(slot)
                        continue
                    running[run.process.sentinel] = run
                if stop and not stopping:
                    stopping = True
                    for run in running.values():
                        run.send_signal(signal.SIGTERM)
                for sentinel in wait(list(running), timeout=POLL_SECONDS):
                    run = running.pop(sentinel)  # type: ignore[arg-type]
                    returns[run.index] = run.finish()
                    slots.append(run.slot)
            if stop:
                raise Interrupted(stop[0])
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # a third Ctrl-C would orphan the runs
            for run in running.values():
                run.send_signal(ABORT)
            deadline = time.monotonic() + GRACE_SECONDS
            for run in running.values():
                run.process.join(max(0.0, deadline - time.monotonic()))
                run.send_signal(signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return returns


class _Flag:
    """A flag shared by processes: its value is 0 until one of them sets it to 1.

    It is a pipe that is never read. Shared memory would need a writable /dev/shm.
    """

    def __init__(self, receiver: Connection, sender: Connection):
        self.receiver, self.sender = receiver, sender

    @property
    def value(self) -> int:
        return int(self.receiver.poll())

    @value.setter
    def value(self, value: int) -> None:
        if value and not self.value:  # otherwise the pipe fills up
            self.sender.send_bytes(b"1")


class _Run:
    """One job in its process."""

    def __init__(self, context: Any, index: int, slot: int, job: Job, planned: Plan, silent: Any):
        self.index, self.slot, self.job = index, slot, job
        self.receiver, sender = context.Pipe(duplex=False)
        gpu = planned.gpus[slot % len(planned.gpus)] or None if planned.gpus else None
        if not planned.gpus and job.config.device == "auto" and devices.driver() is None:
            gpu = ""  # hides any GPU that torch finds nevertheless: the plan does not include it
        arguments = (job, planned.threads, gpu, _compat.version_base(), silent, sender)
        self.process = context.Process(target=_run_job, args=arguments)
        with _compat.without_main():
            self.process.start()
        sender.close()

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process.exitcode is None:
                os.kill(self.process.pid, number)

    def finish(self) -> JobReturn:
        """Wait for the process to end; returns the job's result."""
        self.process.join()
        if self.process.exitcode == _compat.ORPHANED:  # it may be alive, but its end would go unnoticed
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        error: str | None
        try:
            error = self.receiver.recv() if self.receiver.poll() else _describe_exit(self.process.exitcode)
        except EOFError:
            error = _describe_exit(self.process.exitcode)
        self.receiver.close()
        if self.process.exitcode:  # it may not have recorded its end
            mark_failed(self.job.folder, error or _describe_exit(self.process.exitcode))
        if error is None:
            return JobReturn(self.job.overrides, status=JobStatus.COMPLETED)
        return _compat.failed_return(self.job.overrides, ReproError(error))


def _start(context: Any, index: int, slot: int, job: Job, planned: Plan, silent: Any) -> _Run:
    """A run in a process forked from the server, or from a new server if that was killed.

    A dying server may not be known to be dead although it no longer responds, so a failed start is retried once
    after DYING_SECONDS. Raises EOFError or ConnectionError if the new server dies too.
    """
    start_server(job.composed)
    try:
        return _Run(context, index, slot, job, planned, silent)
    except (EOFError, ConnectionError):
        time.sleep(DYING_SECONDS)
    start_server(job.composed)
    return _Run(context, index, slot, job, planned, silent)


def _describe_exit(code: int) -> str:
    if code == _compat.ORPHANED:
        return SERVER_DIED
    if code == -signal.SIGKILL:
        return (
            "its process was killed by signal 9, as the system does when memory runs out; run the same command "
            "again to resume, with fewer workers= if memory ran out"
        )
    end = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    return f"its process {end}; see train.log, and run the same command again to resume"


def start_server(composed: DictConfig) -> None:
    """Start the server that runs are forked from, unless it is running; it imports modules in the background.

    ``composed`` is the configuration of the sweep itself. The server blocks the signals that stop a sweep: sent to
    the process group, they would end it before its runs. Runs ignore Ctrl-C too, which a terminal sends to the
    whole group; the sweep forwards it to them.
    """
    modules = [
        "torch",
        "repro.training.lifecycle",
        "repro.training.loop",
        "repro.data.batches",
        "repro.tracking.mirror",
    ]
    modules += [wandb_compat.PRELOAD] if composed.tracking.mode is not Mode.disabled else []
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    crowded = (composed.workers or 1) * (composed.threads or 1) > machine.cores()
    # A process that forks must not have other threads.
    variables = {"OPENBLAS_NUM_THREADS": "1", **resources.waiting(os.environ, crowded)}
    added = variables.keys() - os.environ.keys()  # the user's values are kept
    os.environ.update({key: variables[key] for key in added})
    try:
        _compat.start_fork_server(blocked=[signal.SIGINT, *RUN_SIGNALS])
    finally:
        for key in added:
            del os.environ[key]


def _run_job(job: Job, threads: int, gpu: str | None, version_base: Any, silent: Any, sender: Connection) -> None:
    """In a worker process: train one run as Hydra's launcher does; send its error as text, or None."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(ABORT, signal.default_int_handler)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    mirror.silent = silent
    try:
        sender.send(_train(job, threads, version_base))
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", signal.SIGINT)
        sender.send(f"interrupted by signal {number}; run the same command again to resume")
    finally:
        sender.close()


def _train(job: Job, threads: int, version_base: Any) -> str | None:
    import torch

    def task(composed: DictConfig) -> None:
        # job.config, not composed: the environment may differ here, and a run trains what the sweep resolved.
        lifecycle.run(job.config, Path(HydraConfig.get().runtime.output_dir), job.changes)

    with contextlib.suppress(OSError):  # prints and crash reports go to the log
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / lifecycle.LOG, "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
        faulthandler.enable()
    torch.set_num_threads(threads)
    _compat.set_version_base(version_base)
    naming.register()
    setup_globals()
    JobRuntime.instance().set("name", job.composed.hydra.job.name)
    try:
        job_return = run_job(
            hydra_context=_compat.job_context(job.composed),
            task_function=task,
            config=job.composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if (error := _compat.error_of(job_return)) is not None:
            raise error
        return None
    except Exception as error:
        if (line := describe(error)) is not None:
            return line
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"[:10_000]


def _end_with_parent() -> None:
    """Kill this process when the sweep's process ends for any reason, because nothing else would stop it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
