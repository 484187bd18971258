"""The size of a network, measured by one forward pass, for plans and estimates.

``python -m repro.models.size`` reads JSON (a list of keyword arguments of ``size``) on standard input and prints
the sizes as JSON, for processes that do not import torch.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from repro.config import Model
from repro.config.errors import ReproError, lacks_memory
from repro.models.registry import from_config, require_size
from repro.models.rules import parameter_groups


class _OutputCounter(TorchDispatchMode):
    """Counts the output values of convolutions."""

    count = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default:
            self.count += result.numel()
        return result


def size(
    model: Mapping[str, Any], classes: int, channels: int, resolution: int, columns: int | None = None
) -> tuple[int, int, int]:
    """For one image: multiply-adds of the forward pass, output values of all convolutions, number of parameters.

    ``model`` has keys of ``repro.config.Model``; the image has ``resolution`` pixels a side, or as many rows and
    ``columns`` columns. Raises ReproError as ``from_config``, ``require_size`` and ``parameter_groups`` do, and if
    the network does not fit into memory.
    """
    try:
        return _measure(model, classes, channels, resolution, columns)
    except Exception as error:
        if not lacks_memory(error):
            raise
        problem = "the network does not fit into the memory of this machine; choose a smaller one"
        raise ReproError(f"model.name={model['name']}: {problem}") from error


def _measure(
    model: Mapping[str, Any], classes: int, channels: int, resolution: int, columns: int | None
) -> tuple[int, int, int]:
    shape = (resolution, resolution if columns is None else columns, channels)
    network = from_config(Model(**model), classes, shape, 0).eval()
    require_size(network, model["name"], shape, classes)
    parameter_groups(network)
    image = torch.zeros(1, channels, *shape[:2])
    with torch.no_grad(), _OutputCounter() as outputs, FlopCounterMode(display=False) as flops:
        network(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return flops.get_total_flops() // 2, outputs.count, parameters


if __name__ == "__main__":
    try:
        print(json.dumps([size(**arguments) for arguments in json.load(sys.stdin)]))
    except ReproError as error:
        sys.exit(str(error))
