"""A project on a Weights & Biases server: which, and the way in. wandb is imported only where it is used."""

import os
from dataclasses import dataclass
from typing import Any

from repro.config.errors import ReproError

PROJECT = "disciplined-repro"


@dataclass(frozen=True)
class Project:
    """A project on W&B; an entity or base URL of None is wandb's own default."""

    entity: str | None
    name: str
    base_url: str | None

    def __str__(self) -> str:
        return f"{self.entity}/{self.name}" if self.entity else self.name

    def settings(self, **more: Any) -> Any:
        """``wandb.Settings`` of this server, quiet."""
        import wandb

        url: dict[str, Any] = {"base_url": self.base_url} if self.base_url else {}
        return wandb.Settings(console="off", silent=True, **url, **more)

    def sign_in(self, verify: bool = False) -> None:
        """Find the API key, without asking for one on the terminal; ReproError where there is none.

        If ``verify``, ask the server whether it takes the key.
        """
        import wandb

        # wandb's core must give up before wandb's 10 s for this question are over: a question that was left
        # behind can keep the core, and with it the process, from ending.
        wandb.setup(settings=self.settings(x_graphql_retry_max=2 if verify else None))
        if not wandb.login(prompt=False, verify=verify):
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


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (str(error).strip().splitlines() or [""])[0]
