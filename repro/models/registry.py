"""Which networks there are, and how one is built by its name."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repro.config import Filler, Model
from repro.config.errors import ReproError
from repro.models.rules import initialise

Network = Callable[..., nn.Module]  # (num_classes, channels, *, options) -> the network


@lru_cache(maxsize=1)
def networks() -> Mapping[str, Network]:
    """Every network of the modules of this package, by name."""
    found: dict[str, Network] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        found |= getattr(importlib.import_module(f"repro.models.{module.name}"), "NETWORKS", {})
    return found


def build(
    name: str, num_classes: int, *, channels: int = 3, init: str = "msra", seed: int = 0, **options: Any
) -> nn.Module:
    """The network ``name`` (of ``networks``, or an import path), initialised from ``seed``.

    ``channels`` are those of the images, ``init`` is a name of ``repro.config.Filler``, ``options`` are the
    network's own. Raises ValueError for an unknown name and for an option that the network does not have.
    """
    network = _network(name)
    taken = inspect.signature(network).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    if (unknown := sorted(set(options) - set(taken))) and not takes_any:
        own = ", ".join(list(taken)[2:]) or "none"
        raise ValueError(f"{name} has no option {unknown[0]}; its options are: {own}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = network(num_classes, channels, **options)
    if Filler(init) is not Filler.own:
        initialise(built, init, torch.Generator().manual_seed(seed))
    return built


def from_config(model: Model, num_classes: int, channels: int, seed: int) -> nn.Module:
    """The configured network, channels last in memory (the order that images are kept in).

    Of the configuration it gets the keys that its function names, and all of ``model.options``. Raises ReproError.
    """
    if model.name not in networks() and ":" not in model.name:
        raise ReproError(f"model.name={model.name}: there are {', '.join(networks())}, or package.module:function")
    try:
        taken = inspect.signature(_network(model.name)).parameters
        shared = {k: v for k, v in vars(model).items() if k in taken and k not in ("name", "init", "options")}
        network = build(
            model.name,
            num_classes,
            channels=channels,
            init=model.init.value,
            seed=seed,
            **{**shared, **model.options},
        )
    except ValueError as error:
        raise ReproError(f"model.name={model.name}: {error}") from None
    return network.to(memory_format=torch.channels_last)


def _network(name: str) -> Network:
    if name in networks():
        return networks()[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"no network {name!r}; there are {', '.join(networks())}, or package.module:function")
    try:
        found: Network = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no network {name!r}: {error}") from None
    return found
