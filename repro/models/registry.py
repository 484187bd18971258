"""The registry of networks: their names, and building one by its name."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repro.config import Filler, Model
from repro.config.errors import ReproError, first_line
from repro.models.rules import initialise

Network = Callable[..., nn.Module]  # (num_classes, channels, *, [resolution,] options) -> the network


@lru_cache(maxsize=1)
def networks() -> Mapping[str, Network]:
    """Every network of the modules of this package, by name."""
    registered: dict[str, Network] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        registered |= getattr(importlib.import_module(f"repro.models.{module.name}"), "NETWORKS", {})
    return registered


def build(
    name: str,
    num_classes: int,
    *,
    channels: int = 3,
    resolution: int = 32,
    init: str = "msra",
    classifier_init: str | None = "xavier",
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """The network ``name`` (of ``networks``, or an import path), initialised from ``seed``.

    The images have ``channels`` channels and ``resolution`` pixels a side (for functions with such a parameter),
    ``init`` and ``classifier_init`` (None: as ``init``) are values of ``repro.config.Filler``; ``options`` are
    keyword arguments of the network's function. Raises ValueError for an unknown name or option.
    """
    make_network = find(name)
    parameters = inspect.signature(make_network).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if (unknown := sorted(set(options) - set(parameters))) and not takes_any:
        known = ", ".join(name for name in list(parameters)[2:] if name != "resolution") or "none"
        raise ValueError(f"{name} has no option {unknown[0]}; its options are: {known}")
    if "resolution" in parameters:
        options["resolution"] = resolution
    sizes: tuple[int, ...] = (num_classes, channels)
    if sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters.values()) < 2:
        # as in torchvision: num_classes by keyword, which may be one of **kwargs, and colour images
        options |= {"num_classes": num_classes} | ({"channels": channels} if "channels" in parameters else {})
        sizes = ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = make_network(*sizes, **options)
        except Exception as error:
            if ":" not in name:
                raise
            raise ValueError(
                f"it fails with {num_classes} classes: {type(error).__name__}: {first_line(error)}"
            ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"it returns a {type(network).__name__}, not a torch.nn.Module")
    if Filler(init) is not Filler.own:
        initialise(network, init, classifier_init or init, torch.Generator().manual_seed(seed))
    return network


def from_config(model: Model, num_classes: int, image_shape: Sequence[int], seed: int) -> nn.Module:
    """The configured network for images of shape (H, W, C), in channels-last memory format like the images.

    Its function receives the keys of ``model`` that are among its parameters, and all of ``model.options``. Raises
    ReproError for an unknown name or option.
    """
    if model.name not in networks() and ":" not in model.name:
        raise ReproError(
            f"model.name={model.name}: choose from {', '.join(networks())}, or package.module:function"
        )
    try:
        parameters = inspect.signature(find(model.name)).parameters
        reserved = ("name", "factory", "init", "classifier_init", "options")
        shared = {k: v for k, v in vars(model).items() if k in parameters and k not in reserved}
        network = build(
            model.name,
            num_classes,
            channels=image_shape[2],
            resolution=image_shape[0],
            init=model.init.value,
            classifier_init=model.classifier_init and model.classifier_init.value,
            seed=seed,
            **{**shared, **(model.options or {})},
        )
    except ValueError as error:
        raise ReproError(f"model.name={model.name}: {error}") from None
    return network.to(memory_format=torch.channels_last)


@torch.no_grad()
def require_size(network: nn.Module, name: str, shape: Sequence[int], classes: int | None = None) -> None:
    """Pass one blank image of ``shape`` (H, W, C) through the network, in evaluation mode.

    Raises ReproError if the network does not accept images of that size, or does not return logits (1, classes).
    """
    height, width, channels = shape
    device = next((parameter.device for parameter in network.parameters()), None)
    training = network.training
    try:
        logits = network.eval()(torch.zeros(1, channels, height, width, device=device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ReproError(
            f"model.name={name}: it does not accept images of {width}x{height} pixels ({first_line(error)}); "
            "dataset.resolution resizes them"
        ) from None
    finally:
        network.train(training)
    if classes is not None and getattr(logits, "shape", None) != (1, classes):
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ReproError(
            f"model.name={name}: for one image it returns {found}, not logits of shape (1, {classes}); its last "
            "layer needs one output per class"
        )


def depth(network: nn.Module) -> int:
    """The number of convolutional and linear layers."""
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules())


def find(name: str) -> Network:
    """The function with that name or import path. Raises ValueError if there is none."""
    if name in networks():
        return networks()[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"no network {name!r}; choose from {', '.join(networks())}, or package.module:function")
    try:
        make_network: Network = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no network {name!r}: {error}") from None
    return make_network
