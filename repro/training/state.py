"""The state of a run at one iteration: network, velocities, counters; the content of a checkpoint."""

import math
from typing import Any

import torch
from torch import nn

from repro.config import Config
from repro.models import parameter_groups
from repro.training.sgd import SGD


class State:
    """The complete state of a run; the order and mirroring of the data are functions of seed and iteration."""

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
        self.diverged = False  # the loss is not finite, or too large (config.divergence): training ends
        self.first_loss: float | None = None  # of the first test
        self.lowest_loss = math.inf  # of the tests so far
        self.high_tests = 0  # the number of consecutive last tests with a loss that is too large
        self.step: str | None = None  # how an iteration is computed, known once training begins (``steps.Built``)
        self.fallback: str | None = None  # as in ``steps.Built``
        self.loss_sum = torch.zeros((), device=device, dtype=torch.float64)  # over iterations since the last test

    def judge(self, train_loss: float, test_loss: float, divergence: float | None) -> None:
        """Set ``diverged`` by the losses of a test; see ``Config.divergence``."""
        self.first_loss = test_loss if self.first_loss is None else self.first_loss
        self.lowest_loss = min(self.lowest_loss, test_loss)
        # A loss far below the first test's is not divergence, however much lower the lowest loss is.
        is_high = divergence is not None and test_loss > max(
            divergence * self.lowest_loss, self.first_loss / divergence
        )
        self.high_tests = self.high_tests + 1 if is_high else 0
        self.diverged = not math.isfinite(train_loss) or self.high_tests >= 2

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
            "first_loss": self.first_loss,
            "lowest_loss": self.lowest_loss,
            "high_tests": self.high_tests,
            "loss_sum": self.loss_sum,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore the state that ``state_dict`` returned."""
        self.start_from(saved)
        self.tested, self.diverged = saved["tested"], saved["diverged"]
        self.first_loss = saved.get("first_loss")  # checkpoints from before divergence lack these
        self.lowest_loss = saved.get("lowest_loss", math.inf)
        self.high_tests = saved.get("high_tests", 0)
        self.loss_sum.copy_(saved["loss_sum"])

    @torch.no_grad()
    def start_from(self, saved: dict[str, Any]) -> None:
        """Load weights, velocities and iteration of another run, but not its counters since its last test.

        Raises ValueError with one line if they are of another network.
        """
        try:
            self.network.load_state_dict(saved["network"])
            for velocities, saved_velocities in zip(self.optimizer.velocities(), saved["velocity"], strict=True):
                for velocity, saved_velocity in zip(velocities, saved_velocities, strict=True):
                    velocity.copy_(saved_velocity)
        except (RuntimeError, ValueError) as error:
            lines = str(error).strip().splitlines()  # torch's first line names only the class
            raise ValueError((lines[1:] or lines or [type(error).__name__])[0].strip()[:200]) from error
        self.iteration = self.tested = saved["iteration"]
