"""Whether this machine has a GPU, and whether torch can use it. Imports torch only inside the functions."""

import json
import os
from pathlib import Path

from repro.config.errors import first_line

DEVICES = Path("/dev")
DRIVERS = ["nvidia[0-9]*", "nvidiactl", "dxg", "kfd"]  # device files of the NVIDIA, WSL and AMD drivers


def driver() -> Path | None:
    """A device file of a GPU driver, or None."""
    return next((path for pattern in DRIVERS for path in sorted(DEVICES.glob(pattern))), None)


def unusable_gpu() -> str | None:
    """Why ``device=auto`` is the CPU although a GPU driver is present; None if there is no such problem.

    A GPU that CUDA_VISIBLE_DEVICES hides does not count.
    """
    import torch

    file = driver()
    if file is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "" or torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
        reason = "it finds no GPU"
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
    return f"device=auto is the CPU: torch cannot use the GPU of {file} ({reason})"


def print_gpus() -> None:
    """Print as JSON the result of ``unusable_gpu``, and for each GPU why it does not respond (null: it does)."""
    import torch

    problems: list[str | None] = []
    for index in range(torch.cuda.device_count()):
        try:
            torch.cuda.mem_get_info(index)
            problems.append(None)
        except RuntimeError as error:
            problems.append(first_line(error))
    print(json.dumps([unusable_gpu(), problems]))
