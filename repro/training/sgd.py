"""Momentum SGD by Caffe's or torch's rule, over groups of parameters that lie in flat buffers.

With V the velocity, g the gradient plus weight decay, mu the momentum, all at one iteration:

    caffe   V <- mu V + lr g      W <- W - V              Nesterov: W <- W - ((1 + mu) V_new - mu V_old)
    torch   V <- mu V + g         W <- W - lr V           Nesterov: W <- W - lr (g + mu V_new)

They agree at constant learning rate; where it moves, Caffe's old velocity keeps the learning rates it was made
with. The paper was run with Caffe's.
"""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repro.config import Update

Number = float | Tensor  # a number, or a 0-dim tensor


class SGD:
    """Caffe's or torch's momentum SGD over groups of parameters with their own LR and decay multiples.

    The parameters of a group become views of one flat buffer: an update is a handful of operations, however many
    tensors there are.
    """

    def __init__(
        self,
        groups: Mapping[tuple[float, float], list[nn.Parameter]],
        *,
        weight_decay: float,
        update: Update = Update.caffe,
        nesterov: bool = False,
    ):
        self.groups = groups
        self.weight_decay, self.nesterov = weight_decay, nesterov
        self.rule = caffe_update if update is Update.caffe else torch_update
        self.weights = [flattened(parameters) for parameters in groups.values()]
        self.velocity = [torch.zeros_like(weights) for weights in self.weights]
        self.tensors = [*self.weights, *self.velocity]  # all that an update changes
        self._zeros: dict[nn.Parameter, Tensor] = {}
        self._orders = [[in_memory(p) for p in parameters] for parameters in groups.values()]

    def step(self, lr: float, momentum: float) -> None:
        """Apply the gradients at this iteration's LR and momentum, then clear them."""
        self.apply(self.gradients(), lr, momentum, self.weight_decay)
        self.clear()

    def gradients(self) -> list[list[Tensor]]:
        """The parameters' gradients, by group; zeros where there is none."""
        return [[self._gradient(p) for p in parameters] for parameters in self.groups.values()]

    @torch.no_grad()
    def apply(self, gradients: list[list[Tensor]], lr: Number, momentum: Number, decay: Number) -> None:
        """One update by these gradients."""
        for i, (lr_multiple, decay_multiple) in enumerate(self.groups):
            ordered = zip(gradients[i], self._orders[i], strict=True)
            gradient = torch.cat([g.permute(order).reshape(-1) for g, order in ordered])
            if decay_multiple:
                gradient += self.weights[i] * (decay * decay_multiple)
            self.rule(self.weights[i], gradient, self.velocity[i], lr * lr_multiple, momentum, self.nesterov)

    def _gradient(self, p: nn.Parameter) -> Tensor:
        if p.grad is None and p not in self._zeros:
            self._zeros[p] = torch.zeros_like(p, requires_grad=False)
        return self._zeros[p] if p.grad is None else p.grad

    def clear(self) -> None:
        """Drop the gradients."""
        for parameters in self.groups.values():
            for p in parameters:
                p.grad = None

    def twin(self, of: Mapping[nn.Parameter, nn.Parameter]) -> "SGD":
        """Another one by the same rules, for copies of the parameters: ``of`` says whose copy is which."""
        twin = SGD(
            {multiples: [of[p] for p in parameters] for multiples, parameters in self.groups.items()},
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )
        twin.rule = self.rule
        return twin

    def velocities(self) -> list[list[Tensor]]:
        """The velocity of each parameter, by group: views of the flat ones."""
        groups = zip(self.velocity, self.groups.values(), strict=True)
        return [views(velocity, parameters) for velocity, parameters in groups]


def in_memory(parameter: Tensor) -> list[int]:
    """The dimensions of a tensor, the one with the longest stride first."""
    return sorted(range(parameter.dim()), key=parameter.stride().__getitem__, reverse=True)


def views(flat: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """``flat`` cut up into tensors of the parameters' shapes and memory order."""
    starts = itertools.accumulate((p.numel() for p in parameters), initial=0)
    return [flat.as_strided(p.shape, p.stride(), start) for start, p in zip(starts, parameters, strict=False)]


def flattened(parameters: list[nn.Parameter]) -> Tensor:
    """One buffer of all their values, in the order of their memory; they become views of it."""
    flat = torch.cat([p.detach().permute(in_memory(p)).reshape(-1) for p in parameters])
    for p, view in zip(parameters, views(flat, parameters), strict=True):
        p.data = view
    return flat


def caffe_update(
    weights: Tensor, gradient: Tensor, velocity: Tensor, lr: Number, mu: Number, nesterov: bool
) -> None:
    """Caffe's rule, in place; the gradient is used up. Nesterov's (1+mu) V_new - mu V_old is mu V_new + lr g."""
    gradient *= lr
    velocity *= mu
    velocity += gradient
    weights -= gradient.add_(velocity * mu) if nesterov else velocity


def torch_update(
    weights: Tensor, gradient: Tensor, velocity: Tensor, lr: Number, mu: Number, nesterov: bool
) -> None:
    """torch.optim.SGD's rule (dampening 0), in place; the gradient is used up."""
    velocity *= mu
    velocity += gradient
    weights -= (gradient.add_(velocity * mu) if nesterov else velocity) * lr
