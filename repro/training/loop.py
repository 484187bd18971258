"""The training loop: step, test, yield a row."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from repro import schedules
from repro.config import Config, Precision
from repro.config.errors import ReproError, first_line
from repro.data.batches import Batches, Data
from repro.records import Row
from repro.training import steps
from repro.training.precision import autocast, tf32
from repro.training.state import State

# Pixels of a test batch: as many as a CPU's cache holds; as many as fill a GPU, with less memory than training.
# Results depend on it only by rounding.
TEST_PIXELS = {"cpu": 100_000, "cuda": 1_000 * 32 * 32}
LARGEST_LOSS = -math.log(torch.finfo(torch.float32).tiny)  # 87.3366: Caffe's largest loss of one image


def train(config: Config, data: Data, state: State) -> Iterator[Row | None]:
    """Train from ``state`` to the end, yielding after every iteration: a row at a test, otherwise None.

    A row is the state after ``iteration`` updates: ``lr`` and ``momentum`` are the schedule's at that iteration,
    ``train_loss`` is the mean over the iterations since the last test (None before the first), ``test_loss`` and
    ``test_accuracy`` (a fraction) are over the full test set, ``images_per_second`` excludes testing. The last row
    is that of the last iteration, or of the test at which the run diverged (``State.judge``): divergence ends
    training. Raises ReproError if the configuration requires an engine that does not work here.
    """
    schedule = _schedule(config)
    dataset = config.dataset
    batches = Batches(
        data, config.batch_size, mirror=dataset.mirror, reshuffle=dataset.reshuffle, seed=config.seed
    )
    network = state.network
    precision = config.engine.precision

    def measure(train_loss: float | None, images_per_second: float | None) -> Row:
        lr, momentum = schedule(state.iteration)
        test_loss, test_accuracy = test(network, data, precision)
        return {
            "iteration": state.iteration,
            "lr": lr,
            "momentum": momentum,
            "train_loss": train_loss,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "images_per_second": images_per_second,
        }

    if config.test_at_start and state.iteration == (config.start.iteration or 0):
        yield measure(None, None)
    if state.is_over(config):
        return
    network.train()
    step, state.step, state.fallback = steps.build(config, network, state.optimizer, *batches(state.iteration))
    timed_from, start_seconds = state.iteration, time.perf_counter()
    while not state.is_over(config):
        seed_draws(data.mean.device, config.seed, state.iteration)
        state.loss_sum += step(*batches(state.iteration), *schedule(state.iteration))
        state.iteration += 1
        if state.iteration % config.test_every and state.iteration < config.iterations:
            yield None
            continue
        mean_loss = state.loss_sum.item() / (state.iteration - state.tested)
        seconds = time.perf_counter() - start_seconds
        row = measure(mean_loss, (state.iteration - timed_from) * config.batch_size / seconds)
        state.loss_sum.zero_()
        state.tested = state.iteration
        state.judge(mean_loss, row["test_loss"] or 0.0, config.divergence)
        yield row
        network.train()
        timed_from, start_seconds = state.iteration, time.perf_counter()


def _schedule(config: Config) -> Callable[[int], tuple[float, float]]:
    """The schedule; a function of the user's own may fail at any iteration, and its error is one line."""
    schedule = schedules.build(config.schedule.lr, config.schedule.momentum)

    def at(iteration: int) -> tuple[float, float]:
        try:
            return schedule(iteration)
        except ValueError as error:
            raise ReproError(str(error)) from error

    return at


def seed_draws(device: torch.device, seed: int, iteration: int) -> None:
    """Seed a network's random numbers, such as dropout's, by seed and iteration alone, so that runs can resume."""
    iteration_seed = (1_000_003 * seed + iteration) % 2**64  # torch takes no larger one
    if device.type == "cpu":
        torch.default_generator.manual_seed(iteration_seed)  # 1 % of torch.manual_seed's time
    else:
        torch.manual_seed(iteration_seed)


@torch.no_grad()
def test(network: nn.Module, data: Data, precision: Precision) -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) over the full test set.

    As in Caffe, the loss of one image is at most 87.3366 (-log of the smallest normal float32), also for NaN.
    """
    network.eval()
    device_type = data.mean.device.type
    sums = torch.zeros(2, device=data.mean.device, dtype=torch.float64)  # loss, correct
    batch_size = max(1, TEST_PIXELS.get(device_type, TEST_PIXELS["cpu"]) // data.mean[..., 0].numel())
    with tf32(precision), autocast(precision, device_type):
        for images, labels in zip(
            data.test_images.split(batch_size), data.test_labels.split(batch_size), strict=True
        ):
            logits = network(data.network_input(images)).float()
            losses = F.cross_entropy(logits, labels, reduction="none")
            sums[0] += losses.nan_to_num(LARGEST_LOSS).clamp(max=LARGEST_LOSS).sum(dtype=torch.float64)
            sums[1] += (logits.argmax(1) == labels).sum()
    loss_sum, correct = sums.tolist()
    return loss_sum / len(data.test_labels), correct / len(data.test_labels)


def device(name: str) -> str:
    """``name`` itself, or for "auto" the GPU if there is one, else the CPU.

    Raises ReproError for a device that torch does not know or cannot use here.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ReproError(f"device={name}: {first_line(error)}") from error
    return chosen


def environment(name: str) -> dict[str, Any]:
    """What a run's results on device ``name`` depend on beyond its configuration: versions, device, threads."""
    cuda = torch.device(name).type == "cuda"
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(name) if cuda else name,
        "threads": torch.get_num_threads(),
    }
