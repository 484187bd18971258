"""How large networks are, by running them once: what plans and estimates count by.

``python -m repro.models.size`` answers JSON on its standard input, for processes that never import torch.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from repro.config import Model
from repro.config.errors import ReproError
from repro.models.registry import from_config


class _Outputs(TorchDispatchMode):
    """Counts the values that convolutions put out."""

    count = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default:
            self.count += result.numel()
        return result


def size(model: Mapping[str, Any], classes: int, channels: int, resolution: int) -> tuple[int, int]:
    """Multiply-adds of one image's forward pass, and the values that its convolutions put out.

    ``model`` are keys of the configuration's; the image has ``resolution`` pixels a side. Raises ReproError.
    """
    network = from_config(Model(**model), classes, channels, 0).eval()
    image = torch.zeros(1, channels, resolution, resolution)
    with torch.no_grad(), _Outputs() as outputs, FlopCounterMode(display=False) as counted:
        network(image)
    return counted.get_total_flops() // 2, outputs.count


if __name__ == "__main__":
    try:
        print(json.dumps([size(**asked) for asked in json.load(sys.stdin)]))
    except ReproError as error:
        sys.exit(str(error))
