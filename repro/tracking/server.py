"""A project on a Weights & Biases server: its location, signing in, and queries.

wandb is imported only where it is used.
"""

import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from repro.config.errors import ReproError
from repro.tracking import _compat

PROJECT = "disciplined-repro"
NOTICE = 10.0  # seconds without a response until a note is printed
_noticed = {"at": -math.inf}  # when a note was last printed
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Project:
    """A project on W&B; an entity or base URL of None is wandb's default."""

    entity: str | None
    name: str
    base_url: str | None

    def __str__(self) -> str:
        return f"{self.entity}/{self.name}" if self.entity else self.name

    def settings(self, **more: Any) -> Any:
        """``wandb.Settings`` of this server, without console output. Raises ReproError if wandb is too old."""
        url: dict[str, Any] = {"base_url": self.base_url} if self.base_url else {}
        return _compat.settings(console="off", silent=True, **url, **more)

    def sign_in(self, verify: bool = False) -> None:
        """Find the API key without prompting; ``verify`` lets the server check it. ReproError if there is none."""
        # wandb's core must give up before wandb's timeout of 10 s for this request: an abandoned request can keep
        # the core, and with it the process, from ending.
        signing = self.settings(mode="online", **_compat.patience(2 if verify else None))
        if not _compat.sign_in(signing, verify):
            raise ReproError(f"no W&B API key for {self.server}: run `wandb login` or set WANDB_API_KEY")

    @property
    def server(self) -> str:
        """The server, as messages name it."""
        return self.base_url or "W&B's own server"


def find_project(entity: str | None = None, project: str | None = None, base_url: str | None = None) -> Project:
    """The project by the arguments, else WANDB_ENTITY, WANDB_PROJECT and WANDB_BASE_URL, else the defaults."""
    return Project(
        entity or os.environ.get("WANDB_ENTITY"),
        project or os.environ.get("WANDB_PROJECT") or PROJECT,
        base_url or os.environ.get("WANDB_BASE_URL"),
    )


def listed(project: Project, filters: Mapping[str, Any], missing_ok: bool = False) -> list[Any]:
    """The runs of a project that match W&B's ``filters``, with configuration and summary.

    Raises ReproError if the server cannot be queried; a missing project has no runs with ``missing_ok``.
    """
    _compat.require()
    import wandb  # noqa: F401  # takes seconds, which must not count as waiting for the server

    def runs() -> list[Any]:
        api = _api(project)
        entity = project.entity or api.default_entity
        try:
            return list(api.runs(f"{entity}/{project.name}", dict(filters), per_page=200, lazy=False))
        except ValueError as error:
            if "Could not find project" not in str(error):
                raise
            if missing_ok:
                return []
            raise ReproError(
                f"tracking.project={project.name}: {entity} has no such project on {project.server}, "
                "or your API key has no access to it"
            ) from None

    return asked(project, "the list of runs", runs)


def _api(project: Project) -> Any:
    import wandb

    project.sign_in(verify=True)
    setup = project.settings(mode="online", **_compat.patience(4))  # about 30 s, within the 60
    wandb.setup(settings=setup)
    return wandb.Api(overrides={"base_url": project.base_url} if project.base_url else None, timeout=60)


def asked(project: Project, what: str, query: Callable[[], Answer]) -> Answer:
    """The result of ``query``; wandb's errors are raised as ReproError. ``what`` names the query in messages.

    wandb retries by itself, except after a broken connection: that is retried here.
    """
    for attempt in range(3):
        try:
            with noticed(project, what):
                return query()
        except ReproError:
            raise
        except Exception as error:
            line = first_line(error) or type(error).__name__
            if attempt == 2 or not re.search("EOF|reset by peer", line):
                raise ReproError(f"W&B, {project} on {project.server}: {what}: {line}") from error
            time.sleep(1 + attempt)
    raise AssertionError("unreachable")


@contextmanager
def noticed(project: Project, what: str) -> Iterator[None]:
    """While entered, print a note if the server has not responded for NOTICE seconds: one for all queries."""

    def print_notice() -> None:
        now = time.monotonic()
        if now - _noticed["at"] >= NOTICE:
            _noticed["at"] = now
            problem = f"no response for {NOTICE:.0f} s; still waiting"
            print(f"note: W&B, {project} on {project.server}: {what}: {problem}", file=sys.stderr, flush=True)

    timer = threading.Timer(NOTICE, print_notice)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return (str(error).strip().splitlines() or [""])[0]
