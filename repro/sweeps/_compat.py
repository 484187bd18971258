"""The only file that uses undocumented parts of Hydra and multiprocessing.

``tests/sweeps/test_compat.py`` fails first when they change. Does not import torch.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver, resource_tracker, util
from types import ModuleType
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from repro.config.errors import ReproError

LONGEST = 70  # bytes of TMPDIR: a socket's path has at most 103 (macOS; Linux 107), of which its name takes 32
SHORT = ["/tmp", "/var/tmp", "/dev/shm"]
ORPHANED = 255  # the exit code that multiprocessing gives a process whose fork server died


def start_fork_server(blocked: Iterable[int]) -> None:
    """Start this process's fork server unless it is running; it and its forks start with these signals blocked.

    Raises ReproError if no folder is suitable for its socket.
    """
    _shorten_socket()
    resource_tracker.ensure_running()  # first, because it unblocks them again
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _shorten_socket() -> None:
    """Put the fork server's socket into another folder if the path of TMPDIR is too long for a socket."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if len(os.fsencode(tempfile.gettempdir())) <= LONGEST or "tempdir" in config:
        return
    previous = tempfile.tempdir
    try:
        for tempfile.tempdir in SHORT:
            with contextlib.suppress(OSError):
                util.get_temp_dir()  # caches the folder for this process
                return
    finally:
        tempfile.tempdir = previous
    raise ReproError(f"TMPDIR={previous}: longer than {LONGEST} bytes, the limit for sockets; set another")


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """While entered, a started process does not run the app's module again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def version_base() -> Any:
    """The app's ``version_base``, for ``set_version_base`` in another process."""
    return version.getbase()


def set_version_base(base: Any) -> None:
    """Give Hydra the ``version_base`` of another process."""
    version.VersionBase.instance().setbase(base)


def job_context(composed: DictConfig) -> HydraContext:
    """The context that Hydra's ``run_job`` needs: the callbacks of the job's configuration."""
    return HydraContext(config_loader=None, callbacks=Callbacks(composed))  # type: ignore[arg-type]


def instantiate_sweeper(config_name: str, task: TaskFunction, overrides: list[str]) -> Sweeper:
    """The sweeper of ``conf/<config_name>.yaml`` with these overrides, inside a Hydra app of another config.

    Raises what Hydra raises.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None, "only inside a Hydra app"
    composed = hydra.compose_config(config_name, overrides, RunMode.MULTIRUN, with_log_configuration=False)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(composed))
    return Plugins.instance().instantiate_sweeper(config=composed, hydra_context=context, task_function=task)


def failed_return(overrides: list[str], error: Exception) -> JobReturn:
    """The return of a job that raised ``error``."""
    return JobReturn(overrides, status=JobStatus.FAILED, _return_value=error)


def error_of(job_return: JobReturn) -> Any:
    """The exception of a failed job; None if it completed."""
    # the property return_value would print the error
    return None if job_return.status is JobStatus.COMPLETED else job_return._return_value
