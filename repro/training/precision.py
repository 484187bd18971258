"""What convolutions and matrix products compute in: float32, TF32 or bfloat16."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from repro.config import Precision


@contextmanager
def tf32(precision: Precision) -> Iterator[None]:
    """Allow TF32 in convolutions and matrix products if ``precision`` is tf32, and forbid it otherwise.

    Wrap a whole step: torch reads the flags when it launches a kernel, also in the backward pass.
    """
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    previous = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = precision is Precision.tf32
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = previous


def autocast(precision: Precision, device_type: str) -> torch.autocast:
    """bfloat16 if ``precision`` is bf16, on a device type ("cpu", "cuda").

    Wrap only the forward pass: the backward pass uses the dtypes of the forward pass. Sums, normalisation
    statistics, loss, weights and update stay in float32.
    """
    return torch.autocast(device_type, torch.bfloat16, enabled=precision is Precision.bf16, cache_enabled=False)


def emulated(precision: Precision, device: str) -> bool:
    """Whether ``device`` only emulates this precision: products then take many times as long as in float32.

    A GPU reports it. On a CPU a product is timed, for 0.1 s: emulation is slower by a factor of 30 or more.
    """
    if precision is not Precision.bf16:
        return False
    if torch.device(device).type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)

    def time_product(dtype: torch.dtype) -> float:
        matrix = torch.ones(256, 256, dtype=dtype, device=device)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    return torch.device(device).type == "cpu" and time_product(torch.bfloat16) > 8 * time_product(torch.float32)
