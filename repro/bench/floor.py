"""The machine's best rates, the operations and memory traffic of an image, and the share that our loop reaches."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from repro import models
from repro.bench.table import Results
from repro.config import Model


def measure(results: Results, device: str, threads: int, rounds: int = 7, *, bf16: bool = True) -> None:
    """Add the machine's best rates, each network's needs per image, and the share that ``results`` reach."""
    torch.set_num_threads(threads)

    def measure_rate(action: Callable[[], object], amount: float) -> list[float]:
        rates = []
        for _ in range(rounds + 2):
            clock = time.perf_counter()
            action()
            if device != "cpu":
                torch.cuda.synchronize()
            rates.append(amount / (time.perf_counter() - clock))
        return rates[2:]  # the first two warm up

    side, images = (8192, 512) if device != "cpu" else (2048, 32)
    rates = {}
    for name, dtype in (("float32", torch.float32), *([("bfloat16", torch.bfloat16)] if bf16 else [])):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        product = measure_rate(lambda a=a, b=b: a @ b, 2 * side**3 / 1e9)  # type: ignore[misc]
        results.add("floor", f"matrix product, {name}", product, "GFLOP/s")
        x, w = (torch.randn(shape, device=device).to(dtype) for shape in ((images, 256, 16, 16), (256, 256, 3, 3)))
        x, w = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, w))
        amount = 2 * images * 256 * 256 * 9 * 16 * 16 / 1e9
        convolution = measure_rate(lambda x=x, w=w: F.conv2d(x, w, padding=1), amount)  # type: ignore[misc]
        results.add("floor", f"a convolution of 256 channels, {name}", convolution, "GFLOP/s")
        rates[name] = max(statistics.median(product), statistics.median(convolution))
    source, target = (torch.ones(2**28 if device != "cpu" else 2**26, device=device) for _ in range(2))
    values = measure_rate(lambda: target.copy_(source), 2 * source.nbytes / 1e9)
    bandwidth = statistics.median(values)
    results.add("floor", "memory, read and write", values, "GB/s")
    for name in models.networks():
        shape = (28, 28, 1) if name == "lenet" else (32, 32, 3)  # MNIST's and CIFAR's, as it is timed
        network = models.from_config(Model(name=name), 10, shape, 0)
        flops, moved = (amount / 1e9 for amount in count_image_needs(network, shape))
        results.add("floor", f"{name}: arithmetic of an image", [flops], "GFLOP")
        results.add("floor", f"{name}: values kept for backward, written and read", [moved * 1e3], "MB an image")
        parts = [line for line in results.lines if line.part.startswith(name)]
        for line in [line for line in parts if line.what in ("ours", "ours, bf16")]:
            in_bf16 = "bf16" in line.what
            share = line.median * flops / rates["bfloat16" if in_bf16 else "float32"]
            traffic = line.median * moved / (2 if in_bf16 else 1) / bandwidth
            note = f"at least {traffic:.0%} of the memory's rate"
            results.add("floor", f"{line.part}, {line.what}: of the better rate above", [100 * share], "%", note)


def count_image_needs(network: Any, shape: tuple[int, int, int], images: int = 8) -> tuple[float, float]:
    """What training on an image of ``shape`` (H, W, C) needs: floating-point operations, bytes of memory traffic.

    The traffic counts the float32 values kept for backward, each written once and read once.
    """
    kept: dict[int, int] = {}  # address -> bytes
    height, width, channels = shape
    x, y = torch.randn(images, channels, height, width), torch.randint(0, 10, (images,))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        F.cross_entropy(network(x), y).backward()
    weights = {p.data_ptr() for p in network.parameters()}
    moved = 2 * sum(size for pointer, size in kept.items() if pointer not in weights)
    return counter.get_total_flops() / images, moved / images
