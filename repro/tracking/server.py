"""A project on a Weights & Biases server: which, the way in, and what it answers.

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
NOTICE = 10.0  # seconds until a server that does not answer is spoken of
_said = {"at": -math.inf}  # when it was last spoken of
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Project:
    """A project on W&B; an entity or base URL of None is wandb's own default."""

    entity: str | None
    name: str
    base_url: str | None

    def __str__(self) -> str:
        return f"{self.entity}/{self.name}" if self.entity else self.name

    def settings(self, **more: Any) -> Any:
        """``wandb.Settings`` of this server, quiet. Raises ReproError where wandb is too old."""
        url: dict[str, Any] = {"base_url": self.base_url} if self.base_url else {}
        return _compat.settings(console="off", silent=True, **url, **more)

    def sign_in(self, verify: bool = False) -> None:
        """Find the API key, without asking for one on the terminal; ReproError where there is none.

        If ``verify``, ask the server whether it takes the key.
        """
        # wandb's core must give up before wandb's 10 s for this question are over: a question that was left
        # behind can keep the core, and with it the process, from ending.
        signing = self.settings(mode="online", **_compat.patience(2 if verify else None))
        if not _compat.sign_in(signing, verify):
            raise ReproError(f"no W&B API key for {self.server}: `wandb login` or WANDB_API_KEY gives one")

    @property
    def server(self) -> str:
        """The server, in words."""
        return self.base_url or "W&B's own server"


def find_project(entity: str | None = None, project: str | None = None, base_url: str | None = None) -> Project:
    """What is given, otherwise WANDB_ENTITY, WANDB_PROJECT, WANDB_BASE_URL, otherwise the defaults."""
    return Project(
        entity or os.environ.get("WANDB_ENTITY"),
        project or os.environ.get("WANDB_PROJECT") or PROJECT,
        base_url or os.environ.get("WANDB_BASE_URL"),
    )


def listed(project: Project, filters: Mapping[str, Any], missing_ok: bool = False) -> list[Any]:
    """The runs of a project that match W&B's ``filters``, with configuration and summary.

    Raises ReproError in one line; a project that does not exist has no runs if ``missing_ok``.
    """

    _compat.require()
    import wandb  # noqa: F401  # before the server is waited for: it takes seconds

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
                "or your key may not see it"
            ) from None

    return asked(project, "the list of runs", runs)


def _api(project: Project) -> Any:
    import wandb

    project.sign_in(verify=True)
    setup = project.settings(mode="online", **_compat.patience(4))  # about 30 s, within the 60
    wandb.setup(settings=setup)
    return wandb.Api(overrides={"base_url": project.base_url} if project.base_url else None, timeout=60)


def asked(project: Project, what: str, question: Callable[[], Answer]) -> Answer:
    """The answer, or what wandb raises as one line. It waits and asks again by itself, but not after a cut one."""
    for attempt in range(3):
        try:
            with noticed(project, what):
                return question()
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
    """While entered, a line on standard error says that the server has not answered yet: one for all questions."""

    def say() -> None:
        now = time.monotonic()
        if now - _said["at"] >= NOTICE:
            _said["at"] = now
            seconds = f"no answer for {NOTICE:.0f} s; still waiting"
            print(f"note: W&B, {project} on {project.server}: {what}: {seconds}", file=sys.stderr, flush=True)

    timer = threading.Timer(NOTICE, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (str(error).strip().splitlines() or [""])[0]
