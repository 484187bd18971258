"""wandb's environment variables: obeyed, or refused with one line. Does not import wandb.

WANDB_ENTITY, WANDB_PROJECT and WANDB_BASE_URL are read by ``server.find_project``; WANDB_TAGS, WANDB_NOTES and
WANDB_RUN_GROUP by ``described``.
"""

import os
from collections.abc import Iterable

from repro.config import Config, Mode
from repro.config.errors import ReproError

MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
TRUE = ("1", "true", "t", "yes", "y", "on")
REFUSED = {
    "WANDB_RESUME": "every attempt at a run is a separate W&B run; runs resume from their checkpoints",
    "WANDB_SWEEP_ID": "a W&B sweep sets values that the record does not contain; use sweep= or -m instead",
}


def obey(config: Config, typed: Iterable[str] = ()) -> Config:
    """``config`` with the mode of WANDB_DISABLED or WANDB_MODE, unless the command line sets one; in place.

    ``typed`` are the keys on the command line. Raises ReproError for an unknown mode, and for variables that a
    mirrored run cannot obey.
    """
    if not {"tracking", "tracking.mode"} & set(typed):
        if os.environ.get("WANDB_DISABLED", "").lower() in TRUE:
            config.tracking.mode = Mode.disabled
        elif mode := os.environ.get("WANDB_MODE"):
            if mode.lower() not in MODES:
                raise ReproError(f"WANDB_MODE={mode}: set it to online, offline or disabled, or use tracking=")
            config.tracking.mode = Mode[MODES[mode.lower()]]
    if config.tracking.mode is not Mode.disabled:
        for name, reason in REFUSED.items():
            value = os.environ.get(name, "")
            if value and (name, value) != ("WANDB_RESUME", "never"):
                raise ReproError(f"{name}={value}: {reason}; unset it, or use tracking=disabled")
    return config


def described(tags: Iterable[str], group: str, notes: str) -> tuple[list[str], str, str]:
    """A run's tags, group and notes with what WANDB_TAGS and WANDB_NOTES add and WANDB_RUN_GROUP replaces."""
    more = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",")]
    all_tags = [tag[:64] for tag in dict.fromkeys([*tags, *more]) if tag]  # W&B's limit of characters
    environment_notes = os.environ.get("WANDB_NOTES", "")
    return all_tags, os.environ.get("WANDB_RUN_GROUP") or group, " ".join(filter(None, (notes, environment_notes)))
