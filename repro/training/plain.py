"""The plain implementations of an iteration: the reference, and the same one normalisation group at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro import models, user_code
from repro.config import Precision
from repro.config.errors import ReproError, lacks_memory
from repro.training.precision import autocast, tf32
from repro.training.sgd import SGD

Step = Callable[[Tensor, Tensor, float, float], Tensor]  # images, labels, lr, momentum -> detached loss


def compute_logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W), in the dtype of the weights even under autocast.

    Raises ReproError if the network returns something else, such as auxiliary outputs.
    """
    logits: Tensor = network(images)
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise ReproError(
            f"{type(network).__name__}: in training it returns {kind}, not logits (aux_logits=False?)"
        )
    return logits.to(next(network.parameters()).dtype)


class Plain:
    """The reference: forward pass, backward pass, update."""

    def __init__(self, network: nn.Module, optimizer: SGD, precision: Precision = Precision.float32):
        self.network, self.optimizer, self.precision = network, optimizer, precision

    def logits(self, images: Tensor) -> Tensor:
        """``compute_logits``; an error in a network of the user's own is raised as ReproError."""
        try:
            return compute_logits(self.network, images)
        except Exception as error:
            is_own = not type(self.network).__module__.startswith(models.__name__)
            if isinstance(error, ReproError) or lacks_memory(error) or not is_own:
                raise
            problem = f"fails for images of shape {tuple(images.shape)}: {user_code.describe(error)}"
            raise ReproError(f"{type(self.network).__name__}: in training it {problem}") from error

    def __call__(self, images: Tensor, labels: Tensor, lr: float, momentum: float) -> Tensor:
        """One iteration; the loss before the update, a 0-dim tensor on the device."""
        with tf32(self.precision):
            with autocast(self.precision, images.device.type):
                loss = F.cross_entropy(self.logits(images), labels)
            loss.backward()
            self.optimizer.step(lr, momentum)
        return loss.detach()


class ByGroup(Plain):
    """The plain step, one normalisation group at a time, as if each were on its own GPU.

    Groups share only the gradients. The step needs the memory of one group, more of which fits into a CPU's cache.
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
                    loss = F.cross_entropy(self.logits(group_images), group_labels) / self.groups
                loss.backward()
                losses.append(loss.detach())
            self.optimizer.step(lr, momentum)
        return torch.stack(losses).sum()
