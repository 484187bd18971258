"""The registry of networks: their names, and building one by its name."""

import copy
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from repro import user_code
from repro.config import Filler, Model
from repro.config.errors import ReproError, first_line, lacks_memory
from repro.models.rules import initialise

Network = Callable[..., nn.Module]  # (num_classes, channels, *, [resolution,] options) -> the network
RESERVED = ("name", "factory", "init", "classifier_init", "options")  # keys of model that no function receives
SHARED = ("blocks", "width", "bn_groups", "bn_fraction", "bn_eps")  # keys of model that describe a network
# Tried in turn for a network that refuses its images.
RESOLUTIONS: tuple[int, ...] = (*range(4, 68, 4), 96, 128, 160, 192, 224, 256)


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
    shape = (resolution, resolution, channels)
    return _build(name, num_classes, shape, options, init=init, classifier_init=classifier_init, seed=seed)


def _build(
    name: str,
    num_classes: int,
    shape: Sequence[int],
    options: Mapping[str, Any],
    *,
    init: str,
    classifier_init: str | None,
    seed: int,
) -> nn.Module:
    """``build`` for images of shape (H, W, C)."""
    make_network = find(name)
    sizes, keywords = _arguments(name, num_classes, shape, options)
    with torch.random.fork_rng(devices=[]), user_code.seeded(seed):
        torch.manual_seed(seed)
        try:
            network = make_network(*sizes, **keywords)
        except (Exception, SystemExit) as error:
            if ":" not in name or lacks_memory(error):
                raise
            raise ValueError(f"it fails with {num_classes} classes: {user_code.describe(error)}") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"it returns a {type(network).__name__}, not a torch.nn.Module")
        if _is_lazy(network):
            _materialise(network, shape)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError("it has no parameter to train (requires_grad)")
    if len(dtypes := {str(p.dtype).removeprefix("torch.") for p in network.parameters() if p.requires_grad}) > 1:
        raise ValueError(f"its parameters have the types {' and '.join(sorted(dtypes))}; give all the same")
    if Filler(init) is not Filler.own:
        initialise(network, init, classifier_init or init, torch.Generator().manual_seed(seed))
    return network


def _arguments(
    name: str, num_classes: int, shape: Sequence[int], options: Mapping[str, Any]
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The positional and the keyword arguments of a network's function. Raises ValueError for a wrong option."""
    height, width, channels = shape
    parameters = _parameters(name)
    keywords: dict[str, Any] = {}
    if "resolution" in parameters:
        if height != width:
            raise ValueError(
                f"its parameter resolution is for square images, and these have {width}x{height} pixels; "
                "dataset.resolution makes them square"
            )
        keywords["resolution"] = height
    if _takes_sizes_by_position(parameters):
        sizes: tuple[int, ...] = (num_classes, channels)
        taken = [*list(parameters)[:2], *keywords]
    else:  # as in torchvision: num_classes by keyword, which may be one of **kwargs, and colour images
        keywords |= {"num_classes": num_classes} | ({"channels": channels} if "channels" in parameters else {})
        sizes, taken = (), [*keywords]
    if reserved := sorted(set(options) & set(taken)):
        raise ValueError(f"model.options.{reserved[0]}: the image set determines it; remove the option")
    free = [p for p in parameters.values() if p.name not in taken]
    names = [p.name for p in free if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if (unknown := sorted(set(options) - set(names))) and all(p.kind is not p.VAR_KEYWORD for p in free):
        raise ValueError(f"{name} has no option {unknown[0]}; its options are: {', '.join(names) or 'none'}")
    return sizes, {**keywords, **options}


def _takes_sizes_by_position(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a network's function takes the numbers of classes and of channels as its first two arguments."""
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]
    names = [p.name for p in positional]
    if len(names) < 2 or "resolution" in names:
        return False
    if any(own in parameters and names[i] != own for i, own in enumerate(("num_classes", "channels"))):
        return False
    # A function such as AlexNet(num_classes=1000, dropout=0.5) does not take channels.
    return names[1] == "channels" or not isinstance(positional[1].default, bool | float | str)


def _is_lazy(network: nn.Module) -> bool:
    return any(is_lazy(tensor) for tensor in itertools.chain(network.parameters(), network.buffers()))


def _materialise(network: nn.Module, shape: Sequence[int]) -> None:
    """Give torch's lazy layers their sizes by one blank image. Raises ValueError if it does not."""
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(_blank(1, shape))
    except Exception as error:
        raise ValueError(f"its lazy layers have no size: {user_code.describe(error)}") from error
    finally:
        network.train(training)
    if _is_lazy(network):
        raise ValueError("it has a lazy layer that its forward pass does not use; remove the layer")


def from_config(model: Model, num_classes: int, image_shape: Sequence[int], seed: int) -> nn.Module:
    """The configured network for images of shape (H, W, C), in channels-last memory format like the images.

    Its function receives all of ``model.options``. One of this package also receives the keys of ``model`` among
    its parameters; one named by its import path only those of ``SHARED`` that differ from their
    defaults. Raises ReproError for an unknown name or option.
    """
    if model.name not in networks() and ":" not in model.name:
        raise ReproError(
            f"model.name={model.name}: choose from {', '.join(networks())}, or package.module:function"
        )
    try:
        parameters = _parameters(model.name)
        shared = {k: v for k, v in vars(model).items() if k in parameters and k not in RESERVED}
        if model.name not in networks():
            defaults = Model()
            shared = {k: v for k, v in shared.items() if k in SHARED and v != getattr(defaults, k)}
        network = _build(
            model.name,
            num_classes,
            image_shape,
            {**shared, **(model.options or {})},
            init=model.init.value,
            classifier_init=model.classifier_init and model.classifier_init.value,
            seed=seed,
        )
    except ValueError as error:
        raise ReproError(f"model.name={model.name}: {error}") from error
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network


@torch.no_grad()
def require_size(network: nn.Module, name: str, shape: Sequence[int], classes: int | None = None) -> None:
    """Pass one blank image of ``shape`` (H, W, C) through the network, in evaluation mode.

    Raises ReproError if the network does not accept images of that shape, or does not return logits (1, classes);
    for a network outside this package also if it returns no logits in training mode.
    """
    height, width, channels = shape
    image = (1, channels, height, width)
    training = network.training
    try:
        logits = network.eval()(_blank(1, shape, network))
    except (RuntimeError, ValueError, AssertionError) as error:
        if lacks_memory(error):
            raise
        reason = ", ".join(filter(None, (first_line(error), user_code.place(error))))
        line = f"it does not accept images of {width}x{height} pixels ({reason}), in a batch of shape {image}"
        accepted = _accepted_size(network, name, shape)
        advice = "" if accepted is None else f"; dataset.resolution={accepted} resizes them to a size that it does"
        raise ReproError(f"model.name={name}: {line}{advice}") from error
    except Exception as error:
        if name in networks() or lacks_memory(error):
            raise
        line = f"it fails for a batch of images of shape {image}: {user_code.describe(error)}"
        raise ReproError(f"model.name={name}: {line}") from error
    finally:
        network.train(training)
    if classes is None:
        return
    if getattr(logits, "shape", None) != (1, classes):
        raise ReproError(
            f"model.name={name}: for one image it returns {_found(logits)}, not logits of shape (1, {classes}); "
            "its last layer needs one output per class"
        )
    if name not in networks():
        _require_training_logits(network, name, shape, classes)


def _require_training_logits(network: nn.Module, name: str, shape: Sequence[int], classes: int) -> None:
    """Raise ReproError if the network returns other than logits in training mode, such as auxiliary outputs."""
    images = _blank(2, shape, network)
    try:
        with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
            logits = copy.deepcopy(network).train()(images)  # a copy: batch normalization counts this batch
    except Exception as error:
        if lacks_memory(error):
            raise
        return  # it needs other batches than two blank images; training shows the rest
    if getattr(logits, "shape", None) != (2, classes):
        raise ReproError(
            f"model.name={name}: in training it returns {_found(logits)} for two images, not logits of shape "
            f"(2, {classes}) (+model.options.aux_logits=false?)"
        )


def _accepted_size(network: nn.Module, name: str, shape: Sequence[int]) -> int | None:
    """A resolution near that of ``shape`` (H, W, C) whose images the network accepts; None if none is found."""
    with suppress(ValueError):
        if "resolution" in _parameters(name):
            return None  # it is built for one resolution
    side = max(shape[:2])
    for resolution in sorted(RESOLUTIONS, key=lambda resolution: abs(resolution - side)):
        with suppress(Exception):
            network(_blank(1, (resolution, resolution, shape[2]), network))
            return resolution
    return None


def _blank(count: int, shape: Sequence[int], network: nn.Module | None = None) -> torch.Tensor:
    """Blank images (count, C, H, W) of ``shape`` (H, W, C) on the network's device."""
    height, width, channels = shape
    device = next((parameter.device for parameter in network.parameters()), None) if network is not None else None
    return torch.zeros(count, channels, height, width, device=device)


def _found(logits: Any) -> str:
    return f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__


def depth(network: nn.Module) -> int:
    """The number of convolutional and linear layers."""
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules())


def find(name: str) -> Network:
    """The function with that name or import path. Raises ValueError if there is none."""
    if name in networks():
        return networks()[name]
    if ":" not in name:
        raise ValueError(f"no network {name!r}; choose from {', '.join(networks())}, or package.module:function")
    try:
        found: Any = user_code.find(name)
    except ValueError as error:
        raise ValueError(f"no network {name!r}: {error}") from error
    if isinstance(found, nn.Module) or not callable(found):
        raise ValueError(f"it is a {type(found).__name__}, not a function that returns a network")
    make_network: Network = found
    return make_network


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a network's function. Raises ValueError if there is no such function."""
    return inspect.signature(find(name)).parameters
