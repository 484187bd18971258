"""The training loop: step, test, yield a row.

Update rules. With V the velocity, g the gradient plus weight decay, mu the momentum, all at one iteration:

    caffe   V <- mu V + lr g      W <- W - V              Nesterov: W <- W - ((1 + mu) V_new - mu V_old)
    torch   V <- mu V + g         W <- W - lr V           Nesterov: W <- W - lr (g + mu V_new)

They agree at constant learning rate; where it moves, Caffe's old velocity keeps the learning rates it was made
with. The paper was run with Caffe's.
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import schedules
from repro.config import Config, Update
from repro.data import Batches, Data
from repro.models import parameter_groups

Row = dict[str, float | int | None]
TEST_BATCH = 500  # images at once when testing; results do not depend on it beyond rounding
LARGEST_LOSS = -math.log(torch.finfo(torch.float32).tiny)  # 87.3366: where Caffe's loss of one image ends


class SGD:
    """Caffe's or torch's momentum SGD over groups of parameters with their own LR and decay multiples."""

    def __init__(
        self,
        groups: Mapping[tuple[float, float], list[Any]],
        *,
        weight_decay: float,
        update: Update = Update.caffe,
        nesterov: bool = False,
    ):
        self.groups = groups
        self.weight_decay, self.update, self.nesterov = weight_decay, update, nesterov
        self.velocity = {rule: [torch.zeros_like(p) for p in group] for rule, group in groups.items()}

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """Apply the gradients at this iteration's LR and momentum, then clear them."""
        for (lr_multiple, decay_multiple), parameters in self.groups.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            if decay := self.weight_decay * decay_multiple:
                torch._foreach_add_(gradients, parameters, alpha=decay)
            velocity = self.velocity[lr_multiple, decay_multiple]
            rule = caffe_update if self.update is Update.caffe else torch_update
            rule(parameters, gradients, velocity, lr * lr_multiple, momentum, self.nesterov)
            for p in parameters:
                p.grad = None


def caffe_update(
    weights: list[Any],
    gradients: list[Tensor],
    velocity: list[Tensor],
    lr: float,
    mu: float,
    nesterov: bool,
) -> None:
    """Caffe's rule, in place; the gradients are used up. Nesterov's (1+mu) V_new - mu V_old is mu V_new + lr g."""
    torch._foreach_mul_(gradients, lr)
    torch._foreach_mul_(velocity, mu)
    torch._foreach_add_(velocity, gradients)
    if nesterov:
        torch._foreach_sub_(weights, gradients)
        torch._foreach_sub_(weights, velocity, alpha=mu)
    else:
        torch._foreach_sub_(weights, velocity)


def torch_update(
    weights: list[Any],
    gradients: list[Tensor],
    velocity: list[Tensor],
    lr: float,
    mu: float,
    nesterov: bool,
) -> None:
    """torch.optim.SGD's rule (dampening 0), in place."""
    torch._foreach_mul_(velocity, mu)
    torch._foreach_add_(velocity, gradients)
    if nesterov:
        torch._foreach_sub_(weights, gradients, alpha=lr)
        torch._foreach_sub_(weights, velocity, alpha=lr * mu)
    else:
        torch._foreach_sub_(weights, velocity, alpha=lr)


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
            "velocity": list(self.optimizer.velocity.values()),
            "iteration": self.iteration,
            "tested": self.tested,
            "diverged": self.diverged,
            "loss_sum": self.loss_sum,
        }

    @torch.no_grad()
    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Become what ``state_dict`` was taken of."""
        self.network.load_state_dict(saved["network"])
        for ours, theirs in zip(self.optimizer.velocity.values(), saved["velocity"], strict=True):
            for velocity, value in zip(ours, theirs, strict=True):
                velocity.copy_(value)
        self.iteration, self.tested, self.diverged = saved["iteration"], saved["tested"], saved["diverged"]
        self.loss_sum.copy_(saved["loss_sum"])


def train(config: Config, data: Data, state: State) -> Iterator[Row | None]:
    """Train from where ``state`` is to the end, yielding after every iteration: a row at a test, otherwise None.

    A row is the state after ``iteration`` updates: ``lr`` and ``momentum`` are the schedule's at that iteration,
    ``train_loss`` is the mean over the iterations since the last test (None before the first), ``test_loss`` and
    ``test_accuracy`` (a fraction) are over the full test set, ``images_per_second`` leaves testing out. The last
    row is the last iteration, or the first test after the training loss stopped being finite; then its
    ``train_loss`` is not finite either, and nothing after it would change.
    """
    schedule = schedules.build(config.schedule.lr, config.schedule.momentum)
    batches = Batches(data, config.batch_size, mirror=config.dataset.mirror, seed=config.seed)
    network = state.network

    def row(train_loss: float | None, speed: float | None) -> Row:
        lr, momentum = schedule(state.iteration)
        loss, accuracy = test(network, data)
        return {
            "iteration": state.iteration,
            "lr": lr,
            "momentum": momentum,
            "train_loss": train_loss,
            "test_loss": loss,
            "test_accuracy": accuracy,
            "images_per_second": speed,
        }

    if config.test_at_start and state.iteration == 0:
        yield row(None, None)
    network.train()
    begun, clock = state.iteration, time.perf_counter()
    while not state.over(config):
        images, labels = batches(state.iteration)
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        state.optimizer.step(*schedule(state.iteration))
        state.loss_sum += loss.detach()
        state.iteration += 1
        if state.iteration % config.test_every and state.iteration < config.iterations:
            yield None
            continue
        mean_loss = state.loss_sum.item() / (state.iteration - state.tested)
        speed = (state.iteration - begun) * config.batch_size / (time.perf_counter() - clock)
        tested = row(mean_loss, speed)
        state.loss_sum.zero_()
        state.tested, state.diverged = state.iteration, not math.isfinite(mean_loss)
        yield tested
        network.train()
        begun, clock = state.iteration, time.perf_counter()


@torch.no_grad()
def test(network: nn.Module, data: Data) -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) over the full test set.

    The loss of one image ends at 87.3366 as in Caffe (-log of the smallest float), which is also what NaN gives.
    """
    network.eval()
    loss = torch.zeros((), device=data.mean.device, dtype=torch.float64)
    correct = torch.zeros((), device=data.mean.device, dtype=torch.int64)
    for images, labels in zip(data.test_images.split(TEST_BATCH), data.test_labels.split(TEST_BATCH), strict=True):
        logits = network(data.network_input(images))
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        loss += losses.nan_to_num(LARGEST_LOSS).clamp(max=LARGEST_LOSS).sum(dtype=torch.float64)
        correct += (logits.argmax(1) == labels).sum()
    n = len(data.test_labels)
    return loss.item() / n, correct.item() / n


def device(name: str) -> str:
    """The device that "auto" means here, or ``name`` itself."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def environment(name: str) -> dict[str, Any]:
    """What the numbers of a run on device ``name`` depend on besides its configuration."""
    cuda = torch.device(name).type == "cuda"
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(name) if cuda else name,
        "threads": torch.get_num_threads(),
    }
