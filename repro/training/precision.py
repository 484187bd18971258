"""The number format of convolutions and matrix products: float32, TF32 or bfloat16."""

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

    A GPU reports it. On a CPU the processor time of a product is measured: emulation takes at least 20 times as
    long.
    """
    if precision is not Precision.bf16:
        return False
    if torch.device(device).type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)

    if torch.device(device).type != "cpu":
        return False
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads would wait for each other, and for other processes
    try:
        return _product_seconds(torch.bfloat16) > 8 * _product_seconds(torch.float32)
    finally:
        torch.set_num_threads(threads)


def _product_seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(128, 128, dtype=dtype)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - start)
    return min(seconds)
