"""One iteration as one compiled program in buffers with fixed addresses, on a GPU replayed as a CUDA graph.

Learning rate, momentum and weight decay are tensors on the device, so that they can change without recompiling or
recapturing. Compilers make mistakes: ``verify`` holds two steps against the plain step before a run uses one.
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
from repro.training.plain import Plain, compute_logits
from repro.training.precision import autocast, tf32
from repro.training.sgd import SGD

# Compiled code is kept on disk, for the next process; random numbers are those of the plain step.
COMPILER_OPTIONS: dict[str, Any] = {"fx_graph_cache": True, "fallback_random": True}
COMPILED_FORMS = 1000  # of one function, above torch's 8, at which it stops compiling without a word

# LR and momentum of the two steps that are verified, and the largest difference there, as a part of the plain
# step's change. A lost update is 1. Rounding was 0.02 to 0.05 in float32 and 0.2 to 0.4 in bf16 (both networks, on
# a CPU), in a single parameter up to seven times as much. TF32's is not measured.
VERIFIED_STEPS = [(0.01, 0.9), (0.02, 0.8)]
TOLERANCE = {Precision.float32: 0.1, Precision.tf32: 0.3, Precision.bf16: 0.7}
SINGLE = 5.0  # times that, for one parameter or one layer's running sums
RULE_TOLERANCE = 1e-3  # by which a step of the weights may differ from what velocity and rule make it
TENSOR_TOLERANCE = 1e-6  # of the tensor itself, for those that hardly change


class CaptureError(RuntimeError):
    """An iteration could not be captured as a CUDA graph; the message is the cause's."""


class Fast:
    """The step in buffers with fixed addresses: ``compiled``, replayed as a CUDA ``graph``, or both.

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
            compile_blocks(private_network)
            self.compute_loss, self.update = compile_function(self.compute_loss), compile_function(self.update)
        self.graph: torch.cuda.CUDAGraph | None = None
        with torch._dynamo.config.patch(cache_size_limit=COMPILED_FORMS) if compiled else contextlib.nullcontext():
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
        """Warm up on a side stream, as CUDA graphs require, then capture one iteration there.

        ``torch.cuda.graph`` would leave its stream current where the iteration fails, and raise what follows from
        the failure in place of its cause.
        """
        with torch.cuda.device(self.images.device):
            stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._iterate()
                torch.cuda.synchronize()
                gc.collect()
                torch.cuda.empty_cache()  # the graph has memory of its own: it takes nothing that others keep
                graph.capture_begin()
                try:
                    self.loss = self._iterate()
                except Exception as error:
                    with contextlib.suppress(RuntimeError):
                        graph.capture_end()
                    if isinstance(error, MemoryError | torch.OutOfMemoryError):
                        raise
                    raise CaptureError(f"{type(error).__name__}: {error}") from error
                graph.capture_end()
            torch.cuda.current_stream().wait_stream(stream)
        self.graph = graph


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile``, for fixed shapes."""
    return torch.compile(function, dynamic=False, options=COMPILER_OPTIONS)


def compile_blocks(network: nn.Module) -> None:
    """Make every repeated block a compiled region of its own: those of one shape are compiled once.

    As one region, a network of 27 blocks takes several times as long to compile.
    """
    for block in find_blocks(network):
        block.forward = _outside(compile_function(block.forward))


def _outside(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` where the compiled region around it ends; that region would otherwise take it in."""

    def call(*inputs: Tensor) -> Tensor:
        return function(*inputs)

    outside: Callable[..., Tensor] = torch.compiler.disable(call, recursive=False)
    return outside


def find_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules with layers of their own whose class the network has more than once."""
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
    """All that an iteration changes: the optimizer's buffers, the parameters (views of them), the running sums."""
    return [*optimizer.tensors, *network.parameters(), *network.buffers()]


def copy_pair(network: nn.Module, optimizer: SGD) -> tuple[nn.Module, SGD]:
    """A copy of the network, in training mode, and an optimizer for it with the same settings."""
    network_copy = copy.deepcopy(network).train()
    copies = dict(zip(network.parameters(), network_copy.parameters(), strict=True))
    return network_copy, optimizer.copy_for(copies)


class Reference(NamedTuple):
    """What the plain step makes of fresh weights in ``VERIFIED_STEPS``."""

    start: tuple[nn.Module, SGD]
    end: tuple[nn.Module, SGD]
    batch: tuple[Tensor, Tensor]
    precision: Precision


def take_reference_steps(
    network: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor, precision: Precision
) -> Reference:
    """The reference for ``verify``. Its memory is free again before a fast step takes its own.

    From fresh weights: near the end of training, gradients consist of rounding.
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

    The weights must also move exactly as their velocity and the update rule say, in every precision. This finds
    lost and wild updates; ``repro.bench.fidelity`` measures rounding.
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
                    raise ArithmeticError("its weights do not move as their velocity says")
    tolerance = TOLERANCE[reference.precision]
    for list_them, allowed in ((_list_whole, tolerance), (_list_single, SINGLE * tolerance)):
        start, end, actual = (list_them(*pair) for pair in (reference.start, reference.end, (network, optimizer)))
        if any(_differ(*tensors, allowed) for tensors in zip(start, end, actual, strict=True)):
            raise ArithmeticError("its update differs from the plain step's")


def _list_whole(network: nn.Module, optimizer: SGD) -> list[Tensor]:
    return optimizer.tensors


def _list_single(network: nn.Module, optimizer: SGD) -> list[Tensor]:
    return [*itertools.chain(*optimizer.velocities()), *network.buffers()]


def _differ(before: Tensor, expected: Tensor, actual: Tensor, tolerance: float) -> bool:
    """Whether a change differs by more than a part ``tolerance`` of it, or of the tensor by more than rounding."""
    allowed = tolerance * (expected - before).norm() + TENSOR_TOLERANCE * expected.norm()
    return bool(expected.isfinite().all() and not (actual - expected).norm() <= allowed)


@contextlib.contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Random numbers that begin anew; those of the run go on afterwards where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield
