"""The training loop: step, test, yield a row."""

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from repro import schedules
from repro.config import Config, Precision
from repro.data.batches import Batches, Data
from repro.records import Row
from repro.training import steps
from repro.training.state import State

# At once when testing: what a CPU's cache holds, what fills a GPU. Results depend on it by rounding alone.
TEST_PIXELS = {"cpu": 100_000, "cuda": 5_000 * 32 * 32}
LARGEST_LOSS = -math.log(torch.finfo(torch.float32).tiny)  # 87.3366: where Caffe's loss of one image ends


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
    step, _ = steps.build(config, network, state.optimizer, *batches(state.iteration))
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
    with steps.tf32(precision), steps.autocast(precision, device):
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
