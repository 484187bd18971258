"""The errors of every fast setting, compared with float64 and with the plain float32 step."""

import math
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from repro import models
from repro.bench.measure import make_noise
from repro.bench.table import Part, Results
from repro.config import Dataset, Model, Precision
from repro.config.catalogue import run_of
from repro.data import batches
from repro.training import loop
from repro.training.fast import Fast
from repro.training.plain import Plain
from repro.training.precision import emulated
from repro.training.sgd import SGD
from repro.training.state import State

Setting = tuple[Precision, bool, bool]  # precision, compiled, captured as a CUDA graph
TRAININGS = "final test loss of four demo runs, Figure 8b's tbs512"


def list_parts(results: Results, device: str, quick: bool) -> list[Part]:
    """For every fast setting: one step of each network compared with float64, and short runs of four seeds.

    A setting passes if its gradient error is the rounding error of its precision, and if its mean loss after
    training is within float32's standard deviation over seeds.
    """
    settings = available_settings(device, quick)
    slow = [name for name, (precision, *_) in settings.items() if emulated(precision, device)]
    if slow:
        print(f"note: no training in {', '.join(slow)}: {device} only emulates it", file=sys.stderr)
    trained = {k: v for k, v in settings.items() if k not in slow}
    gradients = [
        Part(f"gradient of {name}", partial(compare_gradients, results, name, settings, device, quick))
        for name in models.networks()
    ]
    return [*gradients, Part(TRAININGS, partial(compare_trainings, results, trained, device, quick))]


def available_settings(device: str, quick: bool) -> dict[str, Setting]:
    """The settings to compare on a device, by name; the first is the reference."""
    settings: dict[str, Setting] = {
        "float32 (reference)": (Precision.float32, False, False),
        "bf16": (Precision.bf16, False, False),
    }
    if device != "cpu":
        settings["tf32"] = (Precision.tf32, False, False)
        for precision in Precision:
            settings[f"{precision.value}, compiled, graph"] = (precision, True, True)
            if not quick:
                settings[f"{precision.value}, graph"] = (precision, False, True)
    elif not quick:
        settings["float32, compiled"] = (Precision.float32, True, False)
        settings["bf16, compiled"] = (Precision.bf16, True, False)
    return settings


def left_by(until: float, settings: dict[str, Setting]) -> Iterator[tuple[str, Setting]]:
    """The reference setting, and the others that start before ``until`` (monotonic clock)."""
    for index, (name, setting) in enumerate(settings.items()):
        if index and time.monotonic() > until:
            print(f"note: {name}: skipped, the time is over", file=sys.stderr)
        else:
            yield name, setting


def compare_gradients(
    results: Results,
    network_name: str,
    settings: dict[str, Setting],
    device: str,
    quick: bool,
    until: float = math.inf,
) -> None:
    """Add the relative errors of gradient and loss in one step of a network, compared with float64."""
    batch = 16 if quick else 128
    dataset = make_noise(Dataset(name="cifar10"), device)
    images, labels = dataset.network_input(dataset.train_images[:batch]), dataset.train_labels[:batch]
    blocks = 1 if quick else 9
    model = Model(name=network_name, blocks=blocks)
    exact = without_dropout(models.from_config(model, 10, (32, 32, 3), 0)).double().to(device)
    loss = F.cross_entropy(exact(images.double()), labels)
    loss.backward()
    # After one update at LR 1 without momentum the velocity is the gradient; 0 for a bias without gradient.
    reference = torch.cat([(p if p.grad is None else p.grad).flatten() for p in exact.parameters()]).detach()
    for name, (precision, compiled, graph) in left_by(until, settings):
        network = without_dropout(models.from_config(model, 10, (32, 32, 3), 0)).to(device)
        optimizer = SGD({(1.0, 1.0): list(network.parameters())}, weight_decay=0.0)
        step: Any = Plain(network, optimizer, precision)
        if compiled or graph:
            step = Fast(network, optimizer, images, labels, precision, compiled=compiled, graph=graph)
            step.adopt(network, optimizer)
        step_loss = step(images, labels, 1.0, 0.0).item()
        gradient = torch.cat([v.reshape(-1) for group in optimizer.velocities() for v in group]).double()
        error = ((gradient - reference).norm() / reference.norm()).item()
        note = f"loss off by {abs(step_loss / loss.item() - 1):.1e}"
        results.add(f"gradient of {network_name}, relative error", name, [error], "", note)


def without_dropout(network: nn.Module) -> nn.Module:
    """The network with its dropout disabled, in place: its random numbers depend on dtype and engine."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def compare_trainings(
    results: Results, settings: dict[str, Setting], device: str, quick: bool, until: float = math.inf
) -> None:
    """Add the final test losses of short training runs of four seeds, and compare their mean with float32's."""
    share = 0.01 if quick else 0.05  # of the paper's iterations: 93 or 464
    losses: dict[str, list[float]] = {}
    for name, (precision, compiled, graph) in left_by(until, settings):
        for seed in range(4):
            config = run_of("experiment=fig8b/tbs512", "scale=demo", f"scale.iterations={share}", f"seed={seed}")
            config.engine.precision, config.engine.compile = precision, compiled
            config.engine.cuda_graph = graph
            dataset = batches.load(config.dataset, device)
            network = models.from_config(config.model, dataset.classes, dataset.mean.shape, seed).to(device)
            rows = [r for r in loop.train(config, dataset, State(config, network, device)) if r]
            losses.setdefault(name, []).append(statistics.mean(float(r["test_loss"] or 0) for r in rows[-3:]))
    reference = losses["float32 (reference)"]
    spread = statistics.stdev(reference)
    for name, values in losses.items():
        difference = statistics.mean(values) - statistics.mean(reference)
        verdict = "within" if abs(difference) <= spread else "NOT within"
        note = f"mean {difference:+.4f} away, {verdict} the seeds' standard deviation of {spread:.4f}"
        results.add(TRAININGS, name, values, "", note)
