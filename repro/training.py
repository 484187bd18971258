"""The training loop: step, test, yield a row.

Update rules. With V the velocity, g the gradient plus weight decay, mu the momentum, all at one iteration:

    caffe   V <- mu V + lr g      W <- W - V              Nesterov: W <- W - ((1 + mu) V_new - mu V_old)
    torch   V <- mu V + g         W <- W - lr V           Nesterov: W <- W - lr (g + mu V_new)

They agree at constant learning rate; where it moves, Caffe's old velocity keeps the learning rates it was made
with. The paper was run with Caffe's.
"""

import itertools
import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import engine, schedules
from repro.config import Config, Precision, Update
from repro.data import Batches, Data
from repro.models import parameter_groups

Row = dict[str, float | int | None]
# At once when testing: what a CPU's cache holds, what fills a GPU. Results depend on it by rounding alone.
TEST_PIXELS = {"cpu": 100_000, "cuda": 5_000 * 32 * 32}
LARGEST_LOSS = -math.log(torch.finfo(torch.float32).tiny)  # 87.3366: where Caffe's loss of one image ends


Number = float | Tensor  # a number, or a 0-dim tensor


class SGD:
    """Caffe's or torch's momentum SGD over groups of parameters with their own LR and decay multiples.

    The parameters of a group become views of one flat buffer: an update is a handful of operations, however many
    tensors there are.
    """

    def __init__(
        self,
        groups: Mapping[tuple[float, float], list[nn.Parameter]],
        *,
        weight_decay: float,
        update: Update = Update.caffe,
        nesterov: bool = False,
    ):
        self.groups = groups
        self.weight_decay, self.nesterov = weight_decay, nesterov
        self.rule = caffe_update if update is Update.caffe else torch_update
        self.weights = [flattened(parameters) for parameters in groups.values()]
        self.velocity = [torch.zeros_like(weights) for weights in self.weights]
        self.tensors = [*self.weights, *self.velocity]  # all that an update changes
        self._zeros: dict[nn.Parameter, Tensor] = {}
        self._orders = [[in_memory(p) for p in parameters] for parameters in groups.values()]

    def step(self, lr: float, momentum: float) -> None:
        """Apply the gradients at this iteration's LR and momentum, then clear them."""
        self.apply(self.gradients(), lr, momentum, self.weight_decay)
        self.clear()

    def gradients(self) -> list[list[Tensor]]:
        """The parameters' gradients, by group; zeros where there is none."""
        return [[self._gradient(p) for p in parameters] for parameters in self.groups.values()]

    @torch.no_grad()
    def apply(self, gradients: list[list[Tensor]], lr: Number, momentum: Number, decay: Number) -> None:
        """One update by these gradients."""
        for i, (lr_multiple, decay_multiple) in enumerate(self.groups):
            ordered = zip(gradients[i], self._orders[i], strict=True)
            gradient = torch.cat([g.permute(order).reshape(-1) for g, order in ordered])
            if decay_multiple:
                gradient += self.weights[i] * (decay * decay_multiple)
            self.rule(self.weights[i], gradient, self.velocity[i], lr * lr_multiple, momentum, self.nesterov)

    def _gradient(self, p: nn.Parameter) -> Tensor:
        if p.grad is None and p not in self._zeros:
            self._zeros[p] = torch.zeros_like(p, requires_grad=False)
        return self._zeros[p] if p.grad is None else p.grad

    def clear(self) -> None:
        """Drop the gradients."""
        for parameters in self.groups.values():
            for p in parameters:
                p.grad = None

    def twin(self, of: Mapping[nn.Parameter, nn.Parameter]) -> "SGD":
        """Another one by the same rules, for copies of the parameters: ``of`` says whose copy is which."""
        twin = SGD(
            {multiples: [of[p] for p in parameters] for multiples, parameters in self.groups.items()},
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )
        twin.rule = self.rule
        return twin

    def velocities(self) -> list[list[Tensor]]:
        """The velocity of each parameter, by group: views of the flat ones."""
        groups = zip(self.velocity, self.groups.values(), strict=True)
        return [views(velocity, parameters) for velocity, parameters in groups]


def in_memory(parameter: Tensor) -> list[int]:
    """The dimensions of a tensor, the one with the longest stride first."""
    return sorted(range(parameter.dim()), key=parameter.stride().__getitem__, reverse=True)


def views(flat: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """``flat`` cut up into tensors of the parameters' shapes and memory order."""
    starts = itertools.accumulate((p.numel() for p in parameters), initial=0)
    return [flat.as_strided(p.shape, p.stride(), start) for start, p in zip(starts, parameters, strict=False)]


def flattened(parameters: list[nn.Parameter]) -> Tensor:
    """One buffer of all their values, in the order of their memory; they become views of it."""
    flat = torch.cat([p.detach().permute(in_memory(p)).reshape(-1) for p in parameters])
    for p, view in zip(parameters, views(flat, parameters), strict=True):
        p.data = view
    return flat


def caffe_update(
    weights: Tensor, gradient: Tensor, velocity: Tensor, lr: Number, mu: Number, nesterov: bool
) -> None:
    """Caffe's rule, in place; the gradient is used up. Nesterov's (1+mu) V_new - mu V_old is mu V_new + lr g."""
    gradient *= lr
    velocity *= mu
    velocity += gradient
    weights -= gradient.add_(velocity * mu) if nesterov else velocity


def torch_update(
    weights: Tensor, gradient: Tensor, velocity: Tensor, lr: Number, mu: Number, nesterov: bool
) -> None:
    """torch.optim.SGD's rule (dampening 0), in place; the gradient is used up."""
    velocity *= mu
    velocity += gradient
    weights -= (gradient.add_(velocity * mu) if nesterov else velocity) * lr


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

    precision = config.engine.precision

    def row(train_loss: float | None, speed: float | None) -> Row:
        lr, momentum = schedule(state.iteration)
        loss, accuracy = test(network, data, precision)
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
    if state.over(config):
        return
    network.train()
    step, _ = engine.build(config, network, state.optimizer, *batches(state.iteration))
    begun, clock = state.iteration, time.perf_counter()
    while not state.over(config):
        state.loss_sum += step(*batches(state.iteration), *schedule(state.iteration))
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
def test(network: nn.Module, data: Data, precision: Precision) -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) over the full test set.

    The loss of one image ends at 87.3366 as in Caffe (-log of the smallest float), which is also what NaN gives.
    """
    network.eval()
    device = data.mean.device.type
    sums = torch.zeros(2, device=data.mean.device, dtype=torch.float64)  # of the losses, and of what is right
    size = max(1, TEST_PIXELS.get(device, TEST_PIXELS["cpu"]) // data.mean[..., 0].numel())
    with engine.tf32(precision), engine.autocast(precision, device):
        for images, labels in zip(data.test_images.split(size), data.test_labels.split(size), strict=True):
            logits = network(data.network_input(images)).float()
            losses = F.cross_entropy(logits, labels, reduction="none")
            sums[0] += losses.nan_to_num(LARGEST_LOSS).clamp(max=LARGEST_LOSS).sum(dtype=torch.float64)
            sums[1] += (logits.argmax(1) == labels).sum()
    loss, correct = sums.tolist()
    return loss / len(data.test_labels), correct / len(data.test_labels)


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
