"""The numbers of every fast setting, beside those of the plain float32 step and of float64."""

import statistics
import sys
from typing import Any

import torch
from torch.nn import functional as F

from repro import models
from repro.bench.measure import noise
from repro.bench.table import Results
from repro.config import Precision
from repro.config.catalogue import run_of
from repro.data import batches
from repro.training import loop, steps
from repro.training.sgd import SGD
from repro.training.state import State

Setting = tuple[Precision, bool, bool]  # compiled, captured as a CUDA graph


def compare(results: Results, device: str, quick: bool) -> None:
    """Every fast setting against float64, one step each; and a short training against float32, over four seeds.

    A setting passes where the spread of its errors is the rounding that it asks for, and where its mean after
    training lies within the seeds' own spread of float32's.
    """
    several = settings(device, quick)
    gradients(results, several, device, quick)
    left_out = [what for what, (precision, *_) in several.items() if steps.emulated(precision, device)]
    if left_out:
        print(f"note: no training in {', '.join(left_out)}: {device} has no arithmetic for it", file=sys.stderr)
    trainings(results, {k: v for k, v in several.items() if k not in left_out}, device, quick)


def settings(device: str, quick: bool) -> dict[str, Setting]:
    """What there is to compare on a device; the first is the reference."""
    found: dict[str, Setting] = {
        "float32 (reference)": (Precision.float32, False, False),
        "bf16": (Precision.bf16, False, False),
    }
    if device != "cpu":
        found["tf32"] = (Precision.tf32, False, False)
        for precision in (Precision.float32, Precision.bf16):
            found[f"{precision.value}, graph"] = (precision, False, True)
            found[f"{precision.value}, compiled, graph"] = (precision, True, True)
    elif not quick:
        found["float32, compiled"] = (Precision.float32, True, False)
        found["bf16, compiled"] = (Precision.bf16, True, False)
    return found


def gradients(results: Results, settings: dict[str, Setting], device: str, quick: bool) -> None:
    """One step of both networks: its gradient's error relative to float64's, and its loss's."""
    batch = 16 if quick else 128
    source = noise(device)
    images, labels = source.network_input(source.train_images[:batch]), source.train_labels[:batch]
    blocks = 1 if quick else 9
    for name in models.networks():
        start = models.build(name, 10, blocks=blocks).to(device).to(memory_format=torch.channels_last)
        exact = models.build(name, 10, blocks=blocks).double().to(device)
        loss = F.cross_entropy(exact(images.double()), labels)
        loss.backward()
        # One update at LR 1 without momentum: its velocity is the gradient. A bias without gradient is zero.
        truth = torch.cat([(p if p.grad is None else p.grad).flatten() for p in exact.parameters()]).detach()
        for what, (precision, compiled, graph) in settings.items():
            network = models.build(name, 10, blocks=blocks).to(device).to(memory_format=torch.channels_last)
            network.load_state_dict(start.state_dict())
            rule = SGD({(1.0, 1.0): list(network.parameters())}, weight_decay=0.0)
            step: Any = steps.Plain(network, rule, precision)
            if compiled or graph:
                step = steps.Fast(network, rule, images, labels, precision, compiled=compiled, graph=graph)
                step.adopt(network, rule)
            found = step(images, labels, 1.0, 0.0).item()
            gradient = torch.cat([v.reshape(-1) for group in rule.velocities() for v in group]).double()
            error = ((gradient - truth).norm() / truth.norm()).item()
            note = f"loss off by {abs(found / loss.item() - 1):.1e}"
            results.add(f"gradient of {name}, relative error", what, [error], "", note)


def trainings(results: Results, settings: dict[str, Setting], device: str, quick: bool) -> None:
    """The final test loss of a short training of each of four seeds, its mean beside float32's."""
    share = 0.01 if quick else 0.05  # of the paper's iterations: 93 or 464
    ends: dict[str, list[float]] = {}
    for what, (precision, compiled, graph) in settings.items():
        for seed in range(4):
            config = run_of("experiment=fig8b/tbs512", "scale=demo", f"scale.iterations={share}", f"seed={seed}")
            config.engine.precision, config.engine.compile = precision, compiled
            config.engine.cuda_graph = graph
            loaded = batches.load(config.dataset, device)
            network = models.from_config(config.model, loaded.classes, 1, seed).to(device)
            rows = [r for r in loop.train(config, loaded, State(config, network, device)) if r]
            ends.setdefault(what, []).append(statistics.mean(float(r["test_loss"] or 0) for r in rows[-3:]))
    reference = ends["float32 (reference)"]
    spread = statistics.stdev(reference)
    for what, values in ends.items():
        away = statistics.mean(values) - statistics.mean(reference)
        verdict = "within" if abs(away) <= spread else "NOT within"
        note = f"mean {away:+.4f} away, {verdict} the seeds' standard deviation of {spread:.4f}"
        results.add("final test loss of four demo runs, Figure 8b's tbs512", what, values, "", note)
