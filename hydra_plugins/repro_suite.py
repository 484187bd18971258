"""What Hydra finds of the suite by itself: the modules of the namespace package ``hydra_plugins``.

Hydra imports this one in every app of the environment and accepts classes that are defined here alone. They import
what they stand for when they are made: that costs other apps nothing.
"""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ReproSweeper(Sweeper):
    """``hydra/sweeper=repro``: ``repro.sweeper.Sweeper``."""

    def __init__(self, params: dict[str, Any] | None = None, show: str | None = None):
        from repro import sweeper

        self.sweeper = sweeper.Sweeper(params, show)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook before ``sweep``."""
        self.sweeper.setup(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every job of the sweep that is not finished."""
        return self.sweeper.sweep(arguments)
