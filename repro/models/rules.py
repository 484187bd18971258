"""A network's rules in the author's Caffe files: fillers, and multiples of LR and weight decay."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from repro.config.errors import ReproError


@torch.no_grad()
def initialise(network: nn.Module, init: str, classifier_init: str, generator: torch.Generator) -> None:
    """Apply Caffe's fillers: ``init`` to convolutions, ``classifier_init`` to linear layers, 0 to biases.

    "msra" (Kaiming) is normal with variance 2 / fan-in, "xavier" (Glorot) uniform with variance 1 / fan-in.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if (init if isinstance(module, nn.Conv2d) else classifier_init) == "msra":
                module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            else:
                bound = math.sqrt(3 / fan_in)
                module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.zero_()


def parameter_groups(
    network: nn.Module,
    *,
    conv_bias_lr: float = 1.0,
    conv_bias_decay: float = 1.0,
    classifier_bias_lr: float = 2.0,
    classifier_bias_decay: float = 0.0,
) -> dict[tuple[float, float], list[nn.Parameter]]:
    """Parameters by their (LR multiple, weight-decay multiple).

    A network's attribute ``multiples``, if it has one, maps names of parameters ("conv3.bias") to their multiples.
    For all others, biases take the multiples of the arguments; weights, and the scale and shift of normalisation,
    have (1, 1). Raises ReproError for a name in ``multiples`` that is not a parameter.
    """
    network_multiples: Mapping[str, tuple[float, float]] = getattr(network, "multiples", {})
    if unknown := set(network_multiples) - {name for name, _ in network.named_parameters()}:
        raise ReproError(f"{type(network).__name__}.multiples: the network has no parameter {min(unknown)}")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            multiples = (1.0, 1.0)
            if name == "bias" and isinstance(module, nn.Conv2d):
                multiples = (conv_bias_lr, conv_bias_decay)
            elif name == "bias" and isinstance(module, nn.Linear):
                multiples = (classifier_bias_lr, classifier_bias_decay)
            multiples = network_multiples.get(f"{prefix}.{name}".lstrip("."), multiples)
            groups.setdefault(multiples, []).append(parameter)
    return groups
