"""What the suite uses of Hydra and multiprocessing without their promise to keep it, and nowhere else.

``tests/test_compat.py`` fails first where they move. No torch here.
"""

import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from types import ModuleType
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

ORPHANED = 255  # multiprocessing's exit code of a process whose fork server died


def start_fork_server(blocked: Iterable[int]) -> None:
    """Start the fork server of this process, if it does not run; it and what it forks begin with these blocked."""
    resource_tracker.ensure_running()  # first: it would unblock them again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep multiprocessing from running the app's module again in a process that is started meanwhile."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def version_base() -> Any:
    """The version of Hydra that the app asks it to behave like, for ``set_version_base`` in another process."""
    return version.getbase()


def set_version_base(base: Any) -> None:
    """Have Hydra behave like another process's."""
    version.VersionBase.instance().setbase(base)


def job_context(composed: DictConfig) -> HydraContext:
    """What Hydra's ``run_job`` needs of a context: the callbacks of the job's configuration."""
    return HydraContext(config_loader=None, callbacks=Callbacks(composed))  # type: ignore[arg-type]


def failed(overrides: list[str], error: Exception) -> JobReturn:
    """The return of a job that raised ``error``."""
    return JobReturn(overrides, status=JobStatus.FAILED, _return_value=error)


def error_of(done: JobReturn) -> Any:
    """What a failed job raised; None of one that completed. (Reading ``return_value`` would print it.)"""
    return None if done.status is JobStatus.COMPLETED else done._return_value
