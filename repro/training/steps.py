"""One iteration of training, computed plainly or fast: loss, gradients, update.

``Plain`` is the reference. A CPU runs it, or ``ByGroup`` where normalisation has several groups: the same with one
after the other. ``Fast`` does it through buffers that stay where they are: forward, backward and update compiled,
and on a GPU the whole captured once as a CUDA graph and replayed. Learning rate, momentum and weight decay are
tensors on the device there, so that they move without recompiling and without being frozen. Runs of one process
that have the same shapes share one ``Fast``: a sweep compiles once.
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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import models
from repro.config import Config, Engine, Precision, to_dict
from repro.config.errors import ReproError
from repro.training.sgd import SGD

log = logging.getLogger(__name__)
Step = Callable[[Tensor, Tensor, float, float], Tensor]  # images, labels, lr, momentum -> the loss, detached


@contextmanager
def tf32(precision: Precision) -> Iterator[None]:
    """Allow convolutions and matrix products TF32 if ``precision`` is tf32, and forbid it otherwise.

    Held around a whole step: torch reads the flags when a kernel is launched, in the backward pass again.
    """
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = precision is Precision.tf32
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before


def autocast(precision: Precision, device: str) -> torch.autocast:
    """bfloat16 where ``precision`` asks for it, on a kind of device ("cpu", "cuda").

    Around the forward pass alone: the backward pass computes in the types of the forward pass. Sums, normalisation
    statistics, loss, weights and update stay in float32.
    """
    return torch.autocast(device, torch.bfloat16, enabled=precision is Precision.bf16, cache_enabled=False)


def logits(network: nn.Module, images: Tensor) -> Tensor:
    """The network's, in the precision of its weights whatever it computed in."""
    found: Tensor = network(images)
    return found.to(next(network.parameters()).dtype)


class Plain:
    """The step as it reads in a textbook."""

    def __init__(self, network: nn.Module, optimizer: SGD, precision: Precision = Precision.float32):
        self.network, self.optimizer, self.precision = network, optimizer, precision

    def __call__(self, images: Tensor, labels: Tensor, lr: float, momentum: float) -> Tensor:
        """One iteration; the loss before the update, a 0-dim tensor on the device."""
        with tf32(self.precision):
            with autocast(self.precision, images.device.type):
                loss = F.cross_entropy(logits(self.network, images), labels)
            loss.backward()
            self.optimizer.step(lr, momentum)
        return loss.detach()


class ByGroup(Plain):
    """The plain step with one normalisation group after the other, as if each were on its GPU.

    They meet in the gradient alone. It takes the memory of one group, and more of it stays in a CPU's cache.
    """

    def __init__(self, network: nn.Module, optimizer: SGD, precision: Precision, groups: int):
        super().__init__(network, optimizer, precision)
        self.groups = groups

    def __call__(self, images: Tensor, labels: Tensor, lr: float, momentum: float) -> Tensor:
        """One iteration; the loss before the update, a 0-dim tensor on the device."""
        losses = []
        groups = zip(images.chunk(self.groups), labels.chunk(self.groups), strict=True)
        with tf32(self.precision):
            for number, (group_images, group_labels) in enumerate(groups):
                with models.one_group(self.network, number), autocast(self.precision, images.device.type):
                    loss = F.cross_entropy(logits(self.network, group_images), group_labels) / self.groups
                loss.backward()
                losses.append(loss.detach())
            self.optimizer.step(lr, momentum)
        return torch.stack(losses).sum()


class Fast:
    """The same step through buffers that stay: ``compiled``, replayed as a CUDA ``graph``, or both.

    It computes with a network and an optimizer of its own; those that it is to train ``adopt`` its tensors.
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
        own, self.optimizer = copied(network, optimizer)
        self.precision = precision
        self.images, self.labels = images.clone(), labels.clone()
        like = optimizer.tensors[0]
        self.lr, self.momentum, self.decay = like.new_zeros(()), like.new_zeros(()), like.new_zeros(())
        self.tensors = tensors(own, self.optimizer)
        self.trained: list[weakref.ref[Tensor]] = []  # of the network that has our tensors now
        self.loss_of: Callable[..., Tensor] = lambda x, y: F.cross_entropy(logits(own, x), y)
        self.update: Callable[..., None] = self.optimizer.apply
        if compiled:
            self.loss_of = torch.compile(self.loss_of, dynamic=False)
            self.update = torch.compile(self.update, dynamic=False)
        self.graph: torch.cuda.CUDAGraph | None = None
        if graph:
            self._capture()
        else:
            self._iterate()  # what it changes, the first network to adopt it overwrites

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
        """Train this network from now on: it keeps its values, and takes our tensors to keep them in.

        The one that had them gets copies, so that it can still be tested and saved.
        """
        for reference in self.trained:
            if (tensor := reference()) is not None:
                tensor.data = tensor.data.clone()
        theirs = tensors(network, optimizer)
        for ours, tensor in zip(self.tensors, theirs, strict=True):
            ours.data.copy_(tensor.data)
            tensor.data = ours.data
        self.trained = [weakref.ref(tensor) for tensor in theirs]
        self.decay.fill_(optimizer.weight_decay)

    def _iterate(self) -> Tensor:
        with tf32(self.precision):
            with autocast(self.precision, self.images.device.type):
                loss = self.loss_of(self.images, self.labels)
            loss.backward()
            with torch.no_grad():
                self.update(self.optimizer.gradients(), self.lr, self.momentum, self.decay)
        self.optimizer.clear()
        return loss.detach()

    def _capture(self) -> None:
        """Warm up on a side stream, as CUDA asks, then record one iteration."""
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


FAR = 0.9  # of the plain step's change: not what rounding makes, bf16's included, but what a lost update does
ROUNDING = 1e-5  # of a tensor: all that is left to compare where it hardly changes any more
_FAST: dict[str, Fast] = {}  # of this process; what they are made for is the key


def build(config: Config, network: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor) -> tuple[Step, str]:
    """The step that the configuration asks for on the device of ``images`` (a batch to make it for), and its name.

    What is fast by default and does not work here is a warning and the next best; what was asked for and does
    not work is a ReproError.
    """
    settings = config.engine
    compiled, graph = choice(settings, images.device)
    while compiled or graph:
        try:
            fast = _fast(config, network, optimizer, images, labels, compiled, graph)
            fast.adopt(network, optimizer)
            return fast, "compiled" * compiled + " and " * (compiled and graph) + "graph" * graph
        except Exception as error:
            key = "compile" if compiled else "cuda_graph"
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            if isinstance(error, MemoryError | torch.OutOfMemoryError):
                raise
            if getattr(settings, key):
                raise ReproError(f"engine.{key}=true does not work here ({reason}); leave it out") from error
            log.warning("engine.%s does not work here (%s); the run goes on without", key, reason)
            compiled, graph = (False, graph) if compiled else (False, False)
    groups = config.model.bn_groups
    if groups > 1 and images.device.type == "cpu":
        return ByGroup(network, optimizer, settings.precision, groups), "plain, by group"
    return Plain(network, optimizer, settings.precision), "plain"


def emulated(precision: Precision, device: str) -> bool:
    """Whether ``device`` has no arithmetic for this precision: products then take many times as long as float32's.

    A GPU says so itself. A CPU's is tried, a tenth of a second long: emulation costs a factor of 30 or more.
    """
    if precision is not Precision.bf16:
        return False
    if torch.device(device).type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(256, 256, dtype=dtype, device=device)
        taken = []
        for _ in range(3):
            clock = time.perf_counter()
            a @ a
            taken.append(time.perf_counter() - clock)
        return min(taken)

    return torch.device(device).type == "cpu" and seconds(torch.bfloat16) > 8 * seconds(torch.float32)


def choice(settings: Engine, device: torch.device) -> tuple[bool, bool]:
    """Whether to compile and whether to capture, there: by default on a GPU, and to compile where Triton is."""
    cuda = device.type == "cuda"
    if settings.cuda_graph and not cuda:
        raise ReproError(f"engine.cuda_graph=true: there are none on device={device.type}; leave it out")
    compiled, graph = settings.compile, settings.cuda_graph
    if compiled is None:
        compiled = cuda and importlib.util.find_spec("triton") is not None
    return compiled, cuda if graph is None else graph


def tensors(network: nn.Module, optimizer: SGD) -> list[Tensor]:
    """All that an iteration changes: the optimizer's tensors, the parameters (views of those), the averages."""
    return [*optimizer.tensors, *network.parameters(), *network.buffers()]


def copied(network: nn.Module, optimizer: SGD) -> tuple[nn.Module, SGD]:
    """Copies of both, to train beside them."""
    own = copy.deepcopy(network).train()
    return own, optimizer.twin(dict(zip(network.parameters(), own.parameters(), strict=True)))


def _fast(
    config: Config,
    network: nn.Module,
    optimizer: SGD,
    images: Tensor,
    labels: Tensor,
    compiled: bool,
    graph: bool,
) -> Fast:
    """The one that is there for these shapes and settings, or a new one."""
    told = to_dict(config)
    made_for = [told["model"], told["update"], told["engine"]["precision"], config.deterministic, compiled, graph]
    shapes = [list(tensor.shape) for tensor in (images, *network.parameters())]
    key = json.dumps([made_for, shapes, str(images.device), torch.get_num_threads()])
    if key not in _FAST:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # inductor's hints to developers
            fast = Fast(
                network, optimizer, images, labels, config.engine.precision, compiled=compiled, graph=graph
            )
        check(fast, network, optimizer, images, labels)
        _FAST[key] = fast
    return _FAST[key]


def check(fast: Fast, network: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor) -> None:
    """ArithmeticError if an iteration does not change what the plain step changes: compilers make mistakes.

    That finds what is lost or wild; how far rounding takes the rest is ``repro.bench.fidelity``'s.
    """

    def after(step: Step, of: nn.Module, rule: SGD) -> tuple[list[Tensor], list[Tensor]]:
        watched = [*rule.tensors, *of.buffers()]
        before = [tensor.clone() for tensor in watched]
        step(images, labels, 1.0, 0.9)
        return before, [tensor.clone() for tensor in watched]

    own, other = copied(network, optimizer), copied(network, optimizer)
    fast.adopt(*own)
    _, found = after(fast, *own)
    before, expected = after(Plain(*other, fast.precision), *other)
    for was, want, have in zip(before, expected, found, strict=True):
        allowed = FAR * (want - was).norm() + ROUNDING * want.norm()
        if want.isfinite().all() and not (have - want).norm() <= allowed:
            raise ArithmeticError("it does not compute what the plain step does")
