"""One iteration of training, computed plainly or fast: loss, gradients, update.

``Plain`` is the reference and the CPU's default; with several groups of ghost batch normalization a CPU runs
``ByGroup``, which computes them one after the other. ``Fast`` works in buffers with fixed addresses: forward,
backward and update are compiled, and on a GPU the whole iteration is captured once as a CUDA graph and replayed.
Its learning rate, momentum and weight decay are tensors on the device, so that they can change without recompiling
or recapturing. Runs of one process with the same shapes and settings share one ``Fast``: a sweep compiles once.
"""

import copy
import importlib.util
import json
import logging
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import models
from repro.config import Config, Engine, Precision, to_dict
from repro.config.errors import ReproError
from repro.training.sgd import SGD

log = logging.getLogger(__name__)
Step = Callable[[Tensor, Tensor, float, float], Tensor]  # images, labels, lr, momentum -> detached loss


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


def compute_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W), in the dtype of the weights even under autocast."""
    logits: Tensor = network(images)
    return logits.to(next(network.parameters()).dtype)


class Plain:
    """The reference: forward pass, backward pass, update."""

    def __init__(self, network: nn.Module, optimizer: SGD, precision: Precision = Precision.float32):
        self.network, self.optimizer, self.precision = network, optimizer, precision

    def __call__(self, images: Tensor, labels: Tensor, lr: float, momentum: float) -> Tensor:
        """One iteration; the loss before the update, a 0-dim tensor on the device."""
        with tf32(self.precision):
            with autocast(self.precision, images.device.type):
                loss = F.cross_entropy(compute_logits(self.network, images), labels)
            loss.backward()
            self.optimizer.step(lr, momentum)
        return loss.detach()


class ByGroup(Plain):
    """The plain step with one normalisation group after the other, as if each were on its own GPU.

    Groups share only the gradients. The step needs the memory of one group, more of which fits a CPU's cache.
    """

    def __init__(self, network: nn.Module, optimizer: SGD, precision: Precision, groups: int):
        super().__init__(network, optimizer, precision)
        self.groups = groups

    def __call__(self, images: Tensor, labels: Tensor, lr: float, momentum: float) -> Tensor:
        """One iteration; the loss before the update, a 0-dim tensor on the device."""
        losses = []
        groups = zip(images.chunk(self.groups), labels.chunk(self.groups), strict=True)
        with tf32(self.precision):
            for group_index, (group_images, group_labels) in enumerate(groups):
                with models.one_group(self.network, group_index), autocast(self.precision, images.device.type):
                    loss = F.cross_entropy(compute_logits(self.network, group_images), group_labels) / self.groups
                loss.backward()
                losses.append(loss.detach())
            self.optimizer.step(lr, momentum)
        return torch.stack(losses).sum()


class Fast:
    """The same step in buffers with fixed addresses: ``compiled``, replayed as a CUDA ``graph``, or both.

    It computes with private copies of network and optimizer; ``adopt`` makes it train another network.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: SGD,
        images: Tensor,
        labels: Tensor,
        precision: Precision = Precision.float32,
        *,
        compiled: bool = False,
        graph: bool = False,
    ):
        private_network, self.optimizer = copy_pair(network, optimizer)
        self.precision = precision
        self.images, self.labels = images.clone(), labels.clone()
        self.lr, self.momentum, self.decay = (optimizer.tensors[0].new_zeros(()) for _ in range(3))
        self.tensors = list_tensors(private_network, self.optimizer)
        self.adopted: list[weakref.ref[Tensor]] = []  # the tensors that share the storage of ours
        self.compute_loss: Callable[..., Tensor] = lambda x, y: F.cross_entropy(
            compute_logits(private_network, x), y
        )
        self.update: Callable[..., None] = self.optimizer.apply
        if compiled:
            # Dropout draws what it draws in the plain step.
            options: dict[str, Any] = {"fallback_random": True}
            self.compute_loss = torch.compile(self.compute_loss, dynamic=False, options=options)
            self.update = torch.compile(self.update, dynamic=False)
        self.graph: torch.cuda.CUDAGraph | None = None
        if graph:
            self._capture()
        else:
            self._iterate()  # compiles; the first adopt overwrites what it changes

    def __call__(self, images: Tensor, labels: Tensor, lr: float, momentum: float) -> Tensor:
        """One iteration; the loss before the update, a 0-dim tensor that the next iteration may overwrite."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.lr.fill_(lr)
        self.momentum.fill_(momentum)
        if self.graph is None:
            return self._iterate()
        self.graph.replay()
        return self.loss

    def adopt(self, network: nn.Module, optimizer: SGD) -> None:
        """Train ``network`` from now on: it keeps its values, but stores them in our tensors.

        The previous network gets copies, so that it can still be tested and saved.
        """
        for reference in self.adopted:
            if (tensor := reference()) is not None:
                tensor.data = tensor.data.clone()
        adopted = list_tensors(network, optimizer)
        for buffer, tensor in zip(self.tensors, adopted, strict=True):
            buffer.data.copy_(tensor.data)
            tensor.data = buffer.data
        self.adopted = [weakref.ref(tensor) for tensor in adopted]
        self.decay.fill_(optimizer.weight_decay)

    def _iterate(self) -> Tensor:
        with tf32(self.precision):
            with autocast(self.precision, self.images.device.type):
                loss = self.compute_loss(self.images, self.labels)
            loss.backward()
            with torch.no_grad():
                self.update(self.optimizer.gradients(), self.lr, self.momentum, self.decay)
        self.optimizer.clear()
        return loss.detach()

    def _capture(self) -> None:
        """Warm up on a side stream, as CUDA graphs require, then capture one iteration."""
        with torch.cuda.device(self.images.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._iterate()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.loss = self._iterate()
            self.graph = graph


# Largest difference between a fast and the plain step, as parts of the plain step's change and of the tensor: a
# lost update exceeds it, rounding does not, not even bf16's. The second part is for tensors that hardly change.
CHANGE_TOLERANCE = 0.9
TENSOR_TOLERANCE = 1e-5
_FAST: dict[str, Fast] = {}  # the fast steps of this process, by their settings and shapes


def build(config: Config, network: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor) -> tuple[Step, str]:
    """The configured step for the device and shapes of an example batch, and the step's name.

    An engine that is only a default and does not work here is a warning and the next best step; an engine that the
    configuration requires is a ReproError. Running out of memory raises MemoryError or torch.OutOfMemoryError.
    """
    settings = config.engine
    compiled, graph = choose_engine(settings, images.device)
    while compiled or graph:
        try:
            fast = _get_shared_fast(config, network, optimizer, images, labels, compiled, graph)
            fast.adopt(network, optimizer)
            return fast, "compiled" * compiled + " and " * (compiled and graph) + "graph" * graph
        except Exception as error:
            key = "compile" if compiled else "cuda_graph"
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            if isinstance(error, MemoryError | torch.OutOfMemoryError):
                raise
            if getattr(settings, key):
                raise ReproError(f"engine.{key}=true does not work here ({reason}); leave it out") from error
            log.warning("engine.%s does not work here (%s); the run continues without it", key, reason)
            compiled, graph = (False, graph) if compiled else (False, False)
    groups = config.model.bn_groups
    if groups > 1 and images.device.type == "cpu":
        return ByGroup(network, optimizer, settings.precision, groups), "plain, by group"
    return Plain(network, optimizer, settings.precision), "plain"


def emulated(precision: Precision, device: str) -> bool:
    """Whether ``device`` only emulates this precision: products then take many times as long as in float32.

    A GPU reports it. On a CPU a product is timed, for 0.1 s: emulation is slower by a factor of 30 or more.
    """
    if precision is not Precision.bf16:
        return False
    if torch.device(device).type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)

    def time_product(dtype: torch.dtype) -> float:
        matrix = torch.ones(256, 256, dtype=dtype, device=device)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    return torch.device(device).type == "cpu" and time_product(torch.bfloat16) > 8 * time_product(torch.float32)


def choose_engine(settings: Engine, device: torch.device) -> tuple[bool, bool]:
    """Whether to compile and whether to capture a CUDA graph; by default both on a GPU (compiling needs Triton).

    Raises ReproError for a CUDA graph on another device.
    """
    cuda = device.type == "cuda"
    if settings.cuda_graph and not cuda:
        raise ReproError(f"engine.cuda_graph=true: there are none on device={device.type}; leave it out")
    compiled, graph = settings.compile, settings.cuda_graph
    if compiled is None:
        compiled = cuda and importlib.util.find_spec("triton") is not None
    return compiled, cuda if graph is None else graph


def list_tensors(network: nn.Module, optimizer: SGD) -> list[Tensor]:
    """All that an iteration changes: the optimizer's buffers, the parameters (views of them), the running sums."""
    return [*optimizer.tensors, *network.parameters(), *network.buffers()]


def copy_pair(network: nn.Module, optimizer: SGD) -> tuple[nn.Module, SGD]:
    """A copy of the network, in training mode, and an optimizer for it with the same settings."""
    network_copy = copy.deepcopy(network).train()
    copies = dict(zip(network.parameters(), network_copy.parameters(), strict=True))
    return network_copy, optimizer.copy_for(copies)


def _get_shared_fast(
    config: Config,
    network: nn.Module,
    optimizer: SGD,
    images: Tensor,
    labels: Tensor,
    compiled: bool,
    graph: bool,
) -> Fast:
    """The fast step of this process for these shapes and settings; made and verified at the first request."""
    values = to_dict(config)
    settings = [values["model"], values["update"], values["engine"]["precision"]]
    settings += [config.deterministic, compiled, graph]
    shapes = [list(tensor.shape) for tensor in (images, *network.parameters())]
    key = json.dumps([settings, shapes, str(images.device), torch.get_num_threads()])
    if key not in _FAST:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # inductor's hints for developers
            fast = Fast(
                network, optimizer, images, labels, config.engine.precision, compiled=compiled, graph=graph
            )
        verify_against_reference(fast, network, optimizer, images, labels)
        _FAST[key] = fast
    return _FAST[key]


def verify_against_reference(
    fast: Fast, network: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor
) -> None:
    """Raise ArithmeticError unless one iteration of ``fast`` changes the tensors as the plain step does.

    Compilers make mistakes: this finds lost and wild updates. ``repro.bench.fidelity`` measures rounding.
    """

    def iterate(step: Step, network: nn.Module, optimizer: SGD) -> tuple[list[Tensor], list[Tensor]]:
        tensors = [*optimizer.tensors, *network.buffers()]
        before = [tensor.clone() for tensor in tensors]
        torch.manual_seed(0)  # for dropout
        step(images, labels, 1.0, 0.9)
        return before, [tensor.clone() for tensor in tensors]

    candidate, reference = copy_pair(network, optimizer), copy_pair(network, optimizer)
    fast.adopt(*candidate)
    _, actual = iterate(fast, *candidate)
    initial, expected = iterate(Plain(*reference, fast.precision), *reference)
    for before, after, candidate_after in zip(initial, expected, actual, strict=True):
        tolerance = CHANGE_TOLERANCE * (after - before).norm() + TENSOR_TOLERANCE * after.norm()
        if after.isfinite().all() and not (candidate_after - after).norm() <= tolerance:
            raise ArithmeticError("its update differs from the plain step's")
