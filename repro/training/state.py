"""The state of a run at one iteration: network, velocities, counters. A checkpoint holds it."""

from typing import Any

import torch
from torch import nn

from repro.config import Config
from repro.models import parameter_groups
from repro.training.sgd import SGD


class State:
    """All of a run's state; the order and mirroring of the data follow from seed and iteration alone."""

    def __init__(self, config: Config, network: nn.Module, device: str | torch.device):
        multiples = {k: v for k, v in vars(config.model).items() if k.startswith(("conv_bias", "classifier_bias"))}
        self.network = network
        self.optimizer = SGD(
            parameter_groups(network, **multiples),
            weight_decay=config.regularization.weight_decay,
            update=config.update,
            nesterov=config.model.nesterov,
        )
        self.iteration = 0  # updates so far
        self.tested = 0  # the iteration of the last test
        self.diverged = False  # the training loss up to the last test was not finite: no later update matters
        self.step: str | None = None  # how an iteration is computed, known once training begins (``steps.Built``)
        self.fallback: str | None = None
        self.loss_sum = torch.zeros((), device=device, dtype=torch.float64)  # over the iterations since that test

    def is_over(self, config: Config) -> bool:
        """Whether there is nothing left to train."""
        return self.diverged or self.iteration >= config.iterations

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, for a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "velocity": self.optimizer.velocities(),
            "iteration": self.iteration,
            "tested": self.tested,
            "diverged": self.diverged,
            "loss_sum": self.loss_sum,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore the state that ``state_dict`` returned."""
        self.start_from(saved)
        self.tested, self.diverged = saved["tested"], saved["diverged"]
        self.loss_sum.copy_(saved["loss_sum"])

    @torch.no_grad()
    def start_from(self, saved: dict[str, Any]) -> None:
        """Take weights, velocities and iteration of another run, not what it counted since its last test."""
        self.network.load_state_dict(saved["network"])
        for velocities, saved_velocities in zip(self.optimizer.velocities(), saved["velocity"], strict=True):
            for velocity, saved_velocity in zip(velocities, saved_velocities, strict=True):
                velocity.copy_(saved_velocity)
        self.iteration = self.tested = saved["iteration"]
