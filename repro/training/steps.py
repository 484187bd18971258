"""The choice of the step that trains a run: by its configuration, its device and what works there.

``plain.Plain`` is the reference and the CPU's default; with several groups of ghost batch normalization a CPU runs
``plain.ByGroup``, which computes them one after the other. A GPU runs ``fast.Fast``: compiled, and replayed as a
CUDA graph. Successive runs in one process with the same shapes and settings share it: a sweep compiles once.
"""

import importlib.util
import json
import logging
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repro.config import Config, Engine, Precision, to_dict
from repro.config.errors import ReproError, lacks_memory
from repro.training.fast import CaptureError, Fast, take_reference_steps, verify
from repro.training.plain import ByGroup, Plain, Step
from repro.training.sgd import SGD

log = logging.getLogger(__name__)

# A run that trains on fewer pixels ends before compilation would pay off: half a million images of 32x32. An
# estimate, not measured on a GPU. It counts all iterations, so that a resumed run takes the step that it started
# with.
COMPILED_FROM_PIXELS = 500_000 * 32 * 32

_FAST: dict[str, Fast] = {}  # the last fast step of this process, by its settings and shapes


class Built(NamedTuple):
    """A step, its name, and why it is not the device's faster default (None if it is)."""

    step: Step
    name: str
    fallback: str | None = None


def build(config: Config, network: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor) -> Built:
    """The configured step for the device and shapes of an example batch: images (N, C, H, W), labels (N,).

    If a default engine does not work here, it logs a warning and falls back to the next best step; if an engine
    that the configuration requires does not work, it raises ReproError. A lack of memory (``lacks_memory``) is
    raised as it is.
    """
    settings = config.engine
    reasons: list[str] = []
    compiled, graph = choose_engine(config, images.device, images[:, 0].numel())
    while compiled or graph:
        try:
            fast = _get_shared_fast(config, network, optimizer, images, labels, compiled, graph)
            fast.adopt(network, optimizer)
            name = "compiled" * compiled + " and " * (compiled and graph) + "graph" * graph
            return Built(fast, name, "; ".join(reasons) or None)
        except Exception as error:
            if lacks_memory(error):
                raise
            is_capture = isinstance(error, CaptureError)
            key = "compile" if compiled and not is_capture else "cuda_graph"
            reason = (str(error) if is_capture else f"{type(error).__name__}: {error}").strip().splitlines()[0]
            if getattr(settings, key):
                raise ReproError(f"engine.{key}=true does not work here ({reason}); remove it") from error
            reasons.append(f"engine.{key} does not work here ({reason})")
            log.warning("%s; the run continues without it", reasons[-1])
            compiled, graph = (compiled, False) if key == "cuda_graph" else (False, graph)
    groups, fallback = config.model.bn_groups, "; ".join(reasons) or None
    if groups > 1 and images.device.type == "cpu":
        return Built(ByGroup(network, optimizer, settings.precision, groups), "plain, by group", fallback)
    return Built(Plain(network, optimizer, settings.precision), "plain", fallback)


def require_device(settings: Engine, device: torch.device) -> None:
    """Raise ReproError if ``settings`` require a GPU and ``device`` is not one."""
    if device.type == "cuda":
        return
    if settings.precision is Precision.tf32:
        raise ReproError(
            f"engine.precision=tf32: device={device.type} does not support it; use float32, or device=cuda"
        )
    if settings.cuda_graph:
        raise ReproError(f"engine.cuda_graph=true: device={device.type} has no CUDA graphs; remove it")


def choose_engine(config: Config, device: torch.device, batch_pixels: int) -> tuple[bool, bool]:
    """Whether to compile, and whether to capture a CUDA graph; ``batch_pixels`` is the pixels per iteration.

    By default both on a GPU; compiling also needs Triton and a long enough run. Raises ReproError for a setting
    that the device does not support.
    """
    settings, cuda = config.engine, device.type == "cuda"
    require_device(settings, device)
    compiled, graph = settings.compile, settings.cuda_graph
    if compiled is None:
        is_long = config.iterations * batch_pixels >= COMPILED_FROM_PIXELS
        compiled = cuda and is_long and importlib.util.find_spec("triton") is not None
    return compiled, cuda if graph is None else graph


def _get_shared_fast(
    config: Config,
    network: nn.Module,
    optimizer: SGD,
    images: Tensor,
    labels: Tensor,
    compiled: bool,
    graph: bool,
) -> Fast:
    """The fast step of this process for these shapes and settings; built and verified on the first request.

    Only the last one is kept, because each occupies the memory of an iteration.
    """
    values, precision = to_dict(config), config.engine.precision
    settings = [values["model"], values["update"], values["engine"]["precision"]]
    settings += [config.deterministic, compiled, graph]
    shapes = [list(tensor.shape) for tensor in (images, *network.parameters())]
    key = json.dumps([settings, shapes, str(images.device), torch.get_num_threads()])
    if key not in _FAST:
        _FAST.clear()
        reference = take_reference_steps(network, optimizer, images, labels, precision)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # inductor's hints for developers
            fast = Fast(network, optimizer, images, labels, precision, compiled=compiled, graph=graph)
        verify(fast, reference)
        _FAST[key] = fast
    return _FAST[key]
