"""What a run is at one iteration: network, velocities, counters; what a checkpoint holds."""

from typing import Any

import torch
from torch import nn

from repro.config import Config
from repro.models import parameter_groups
from repro.training.sgd import SGD


class State:
    """All that a run is at one iteration; order and mirroring of the data follow from seed and iteration alone."""

    def __init__(self, config: Config, network: nn.Module, device: str | torch.device):
        multiples = {k: v for k, v in vars(config.model).items() if k.startswith(("conv_bias", "classifier_bias"))}
        self.network = network
        self.optimizer = SGD(
            parameter_groups(network, **multiples),
            weight_decay=config.regularization.weight_decay,
            update=config.update,
            nesterov=config.model.nesterov,
        )
        self.iteration = 0
        self.tested = 0  # the iteration of the last test
        self.diverged = False  # by then the training loss was not finite: nothing after it would change
        self.loss_sum = torch.zeros((), device=device, dtype=torch.float64)  # since then

    def over(self, config: Config) -> bool:
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

    @torch.no_grad()
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Become what ``state_dict`` was taken of."""
        self.network.load_state_dict(saved["network"])
        for ours, theirs in zip(self.optimizer.velocities(), saved["velocity"], strict=True):
            for velocity, value in zip(ours, theirs, strict=True):
                velocity.copy_(value)
        self.iteration, self.tested, self.diverged = saved["iteration"], saved["tested"], saved["diverged"]
        self.loss_sum.copy_(saved["loss_sum"])
