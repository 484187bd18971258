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
    """The parameters to train, by their (LR multiple, weight-decay multiple).

    Frozen parameters (``requires_grad=False``) are in no group, and one that several modules share is in one.
    A network's attribute ``multiples``, if it has one, maps names of parameters ("conv3.bias") to their multiples.
    For all others, biases take the multiples of the arguments; weights, and the scale and shift of normalisation,
    have (1, 1). Raises ReproError for a name in ``multiples`` that is not a parameter, for multiples that are not
    two finite numbers from 0 on, and if there is nothing to train.
    """
    network_multiples = _own_multiples(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            multiples = (1.0, 1.0)
            if name == "bias" and isinstance(module, nn.Conv2d):
                multiples = (conv_bias_lr, conv_bias_decay)
            elif name == "bias" and isinstance(module, nn.Linear):
                multiples = (classifier_bias_lr, classifier_bias_decay)
            multiples = network_multiples.get(f"{prefix}.{name}".lstrip("."), multiples)
            groups.setdefault(multiples, []).append(parameter)
    if not groups:
        raise ReproError(f"{type(network).__name__}: it has no parameter to train (requires_grad)")
    return groups


def _own_multiples(network: nn.Module) -> dict[str, tuple[float, float]]:
    """The network's attribute ``multiples``, checked. Raises ReproError."""
    subject, multiples = f"{type(network).__name__}.multiples", getattr(network, "multiples", {})
    if not isinstance(multiples, Mapping):
        raise ReproError(
            f"{subject}: it is a {type(multiples).__name__}, not a dictionary, name of a parameter -> "
            "(LR multiple, weight-decay multiple)"
        )
    if unknown := set(multiples) - {name for name, _ in network.named_parameters()}:
        raise ReproError(f"{subject}: the network has no parameter {min(map(str, unknown))}")
    for name, pair in multiples.items():
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_multiple, pair))):
            raise ReproError(
                f"{subject}: {name} has {pair!r}; give it two finite numbers from 0 on, (LR multiple, "
                "weight-decay multiple)"
            )
    return {name: (pair[0], pair[1]) for name, pair in multiples.items()}


def _is_multiple(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
