"""One iteration as one compiled program in buffers with fixed addresses, on a GPU replayed as a CUDA graph.

Learning rate, momentum and weight decay are tensors on the device, so that they can change without recompiling or
recapturing. Compilers have bugs: ``verify`` compares two steps with the plain step before a run uses the fast one.
"""

import contextlib
import copy
import gc
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.config import Precision
from repro.config.errors import lacks_memory
from repro.training.plain import Plain, compute_logits
from repro.training.precision import autocast, tf32
from repro.training.sgd import SGD

# Compiled code is cached on disk for the next process; random numbers are those of the plain step.
COMPILER_OPTIONS: dict[str, Any] = {"fx_graph_cache": True, "fallback_random": True}
COMPILED_FORMS = 1000  # limit per function; at torch's default of 8 it silently stops compiling

# LR and momentum of the two verified steps, and the largest allowed difference after them, relative to the plain
# step's change. A lost update is 1. Rounding was 0.02 to 0.05 in float32 and 0.2 to 0.4 in bf16 (both networks, on
# a CPU), in a single parameter up to seven times as much. TF32's is not measured.
VERIFIED_STEPS = [(0.01, 0.9), (0.02, 0.8)]
TOLERANCE = {Precision.float32: 0.1, Precision.tf32: 0.3, Precision.bf16: 0.7}
SINGLE = 5.0  # factor on TOLERANCE for one parameter or one layer's running sums
RULE_TOLERANCE = 1e-3  # relative difference of the weights' move from the update rule applied to the velocity
TENSOR_TOLERANCE = 1e-6  # relative to the tensor itself, for tensors that hardly change


class CaptureError(RuntimeError):
    """An iteration could not be captured as a CUDA graph; the message is the cause's."""


class Fast:
    """The step in buffers with fixed addresses: ``compiled``, replayed as a CUDA ``graph``, or both.

    It computes with private copies of network and optimizer; ``adopt`` makes it train another network. ``images``
    (N, C, H, W) and ``labels`` (N,) are an example batch. Raises CaptureError, and what torch.compile raises.
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
        self.adopted: list[weakref.ref[Tensor]] = []  # the adopted network's tensors, which share our storage
        self.compute_loss: Callable[..., Tensor] = lambda x, y: F.cross_entropy(
            compute_logits(private_network, x), y
        )
        self.update: Callable[..., None] = self.optimizer.apply
        if compiled:
            compile_blocks(private_network)
            self.compute_loss, self.update = compile_function(self.compute_loss), compile_function(self.update)
        self.graph: torch.cuda.CUDAGraph | None = None
        with torch._dynamo.config.patch(cache_size_limit=COMPILED_FORMS) if compiled else contextlib.nullcontext():
            if graph:
                self._capture()
            else:
                self._iterate()  # compiles; the first ``adopt`` overwrites the changed tensors

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
        """Train ``network`` from now on: its values move into our buffers, and its tensors become views of them.

        The previously adopted network gets copies, so that it can still be tested and saved.
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
        """Warm up on a side stream, as CUDA graphs require, then capture one iteration there.

        ``torch.cuda.graph`` is not used: if the iteration fails, it leaves its stream current and raises a
        subsequent error in place of the cause.
        """
        with torch.cuda.device(self.images.device):
            stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._iterate()
                torch.cuda.synchronize()
                gc.collect()
                torch.cuda.empty_cache()  # the graph has its own memory pool and cannot reuse cached blocks
                graph.capture_begin()
                try:
                    self.loss = self._iterate()
                except Exception as error:
                    with contextlib.suppress(RuntimeError):
                        graph.capture_end()
                    if lacks_memory(error):
                        raise
                    raise CaptureError(f"{type(error).__name__}: {error}") from error
                graph.capture_end()
            torch.cuda.current_stream().wait_stream(stream)
        self.graph = graph


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile``, for fixed shapes."""
    return torch.compile(function, dynamic=False, options=COMPILER_OPTIONS)


def compile_blocks(network: nn.Module) -> None:
    """Make every repeated block a separate compiled region, so that blocks of one shape are compiled once.

    As one region, a network of 27 blocks takes several times as long to compile.
    """
    for block in find_blocks(network):
        block.forward = _exclude_from_region(compile_function(block.forward))


def _exclude_from_region(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` with a graph break around it, so that an enclosing compiled region does not inline it."""

    def call(*inputs: Tensor) -> Tensor:
        return function(*inputs)

    excluded: Callable[..., Tensor] = torch.compiler.disable(call, recursive=False)
    return excluded


def find_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules with submodules whose class occurs more than once, except containers."""
    counts = Counter(type(module) for module in network.modules())

    def search(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            is_container = isinstance(child, nn.Sequential | nn.ModuleList)
            if counts[type(child)] > 1 and any(child.children()) and not is_container:
                yield child
            else:
                yield from search(child)

    return search(network)


def list_tensors(network: nn.Module, optimizer: SGD) -> list[Tensor]:
    """All tensors that an iteration changes: the optimizer's, the parameters (views of them), the buffers."""
    return [*optimizer.tensors, *network.parameters(), *network.buffers()]


def copy_pair(network: nn.Module, optimizer: SGD) -> tuple[nn.Module, SGD]:
    """A copy of the network, in training mode, and an optimizer for it with the same settings."""
    network_copy = copy.deepcopy(network).train()
    copies = dict(zip(network.parameters(), network_copy.parameters(), strict=True))
    return network_copy, optimizer.copy_for(copies)


class Reference(NamedTuple):
    """Fresh weights before and after the plain step takes ``VERIFIED_STEPS``."""

    start: tuple[nn.Module, SGD]
    end: tuple[nn.Module, SGD]
    batch: tuple[Tensor, Tensor]  # images, labels
    precision: Precision


def take_reference_steps(
    network: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor, precision: Precision
) -> Reference:
    """The reference for ``verify``; its memory is free again before a fast step allocates its own.

    It uses fresh weights: near the end of training, gradients consist of rounding errors.
    """
    start = copy_pair(network, optimizer)
    with _seeded(images.device):
        for module in start[0].modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    end = copy_pair(*start)
    plain = Plain(*end, precision)
    with _seeded(images.device):
        for lr, momentum in VERIFIED_STEPS:
            plain(images, labels, lr, momentum)
    return Reference(start, end, (images, labels), precision)


def verify(fast: Fast, reference: Reference) -> None:
    """Raise ArithmeticError unless two steps of ``fast`` change the tensors as the plain step does.

    In every precision, the weights must also move by the update rule applied to their velocity (RULE_TOLERANCE).
    This finds lost and wrong updates; ``repro.bench.fidelity`` measures rounding.
    """
    network, optimizer = copy_pair(*reference.start)
    fast.adopt(network, optimizer)
    with _seeded(fast.images.device):
        for lr, momentum in VERIFIED_STEPS:
            weights, velocity = ([t.clone() for t in ts] for ts in (optimizer.weights, optimizer.velocity))
            fast(*reference.batch, lr, momentum)
            moves = optimizer.moves(velocity, lr, momentum)
            for before, move, after in zip(weights, moves, optimizer.weights, strict=True):
                if _differ(before, before - move, after, RULE_TOLERANCE):
                    raise ArithmeticError("its weights do not move by the update rule applied to their velocity")
    tolerance = TOLERANCE[reference.precision]
    levels = ((_list_flat_buffers, tolerance), (_list_single_tensors, SINGLE * tolerance))
    for list_compared, allowed in levels:
        start, end, actual = (
            list_compared(*pair) for pair in (reference.start, reference.end, (network, optimizer))
        )
        if any(_differ(*tensors, allowed) for tensors in zip(start, end, actual, strict=True)):
            raise ArithmeticError("its update differs from the plain step's")


def _list_flat_buffers(network: nn.Module, optimizer: SGD) -> list[Tensor]:
    return optimizer.tensors


def _list_single_tensors(network: nn.Module, optimizer: SGD) -> list[Tensor]:
    return [*itertools.chain(*optimizer.velocities()), *network.buffers()]


def _differ(before: Tensor, expected: Tensor, actual: Tensor, tolerance: float) -> bool:
    """Whether ``actual`` differs from ``expected`` by more than ``tolerance`` times the change, plus rounding."""
    allowed = tolerance * (expected - before).norm() + TENSOR_TOLERANCE * expected.norm()
    return bool(expected.isfinite().all() and not (actual - expected).norm() <= allowed)


@contextlib.contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """While entered, random numbers start from a fixed seed; the run's generator state is restored afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield
