"""Momentum SGD by Caffe's or torch's rule, over groups of parameters stored in flat buffers.

With V the velocity, g the gradient plus weight decay, mu the momentum, all at one iteration:

    caffe   V <- mu V + lr g      W <- W - V              Nesterov: W <- W - ((1 + mu) V_new - mu V_old)
    torch   V <- mu V + g         W <- W - lr V           Nesterov: W <- W - lr (g + mu V_new)

They agree at a constant learning rate; when it changes, Caffe's velocity keeps each gradient scaled by the
learning rate of its iteration. The paper's runs use Caffe's rule.
"""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repro.config import Update

Number = float | Tensor  # a number, or a 0-dim tensor


class SGD:
    """Caffe's or torch's momentum SGD over groups of parameters with their own LR and decay multiples.

    ``groups`` maps (LR multiple, decay multiple) to parameters. The parameters of a group become views of one flat
    buffer, so that an update takes a few operations regardless of the number of tensors.
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
        self.rule = update_by_caffe if update is Update.caffe else update_by_torch
        self.weights = [flatten(parameters) for parameters in groups.values()]
        self.velocity = [torch.zeros_like(weights) for weights in self.weights]
        self.tensors = [*self.weights, *self.velocity]  # everything that an update changes
        self._zeros: dict[nn.Parameter, Tensor] = {}
        self._dim_orders = [[sort_dims_by_stride(p) for p in parameters] for parameters in groups.values()]

    def step(self, lr: float, momentum: float) -> None:
        """Apply the gradients at this iteration's LR and momentum, then clear them."""
        self.apply(self.gradients(), lr, momentum, self.weight_decay)
        self.clear()

    def gradients(self) -> list[list[Tensor]]:
        """The parameters' gradients, by group; zeros for a parameter without one."""
        return [[self._gradient(p) for p in parameters] for parameters in self.groups.values()]

    @torch.no_grad()
    def apply(self, gradients: list[list[Tensor]], lr: Number, momentum: Number, decay: Number) -> None:
        """Update the parameters with these gradients, by group; ``decay`` is the weight decay."""
        for i, (lr_multiple, decay_multiple) in enumerate(self.groups):
            ordered = zip(gradients[i], self._dim_orders[i], strict=True)
            gradient = torch.cat([g.permute(dims).reshape(-1) for g, dims in ordered])
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

    def copy_for(self, copies: Mapping[nn.Parameter, nn.Parameter]) -> "SGD":
        """A new optimizer with the same settings and zero velocity, for the copies of its parameters."""
        optimizer = SGD(
            {multiples: [copies[p] for p in parameters] for multiples, parameters in self.groups.items()},
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )
        optimizer.rule = self.rule
        return optimizer

    def moves(self, before: list[Tensor], lr: float, momentum: float) -> list[Tensor]:
        """The amount that the last update subtracted from each group's flat weights, by the update rule.

        It is computed from the velocity ``before`` the update and the current one.
        """
        steps = self.velocity
        if self.nesterov:
            pairs = zip(before, self.velocity, strict=True)
            steps = [(1 + momentum) * new - momentum * old for old, new in pairs]
        if self.rule is update_by_caffe:
            return steps
        return [lr * multiple * step for (multiple, _), step in zip(self.groups, steps, strict=True)]

    def velocities(self) -> list[list[Tensor]]:
        """The velocity of each parameter, by group: views of the flat buffers."""
        groups = zip(self.velocity, self.groups.values(), strict=True)
        return [cut_into_views(velocity, parameters) for velocity, parameters in groups]


def sort_dims_by_stride(tensor: Tensor) -> list[int]:
    """The dimensions of a tensor, by descending stride."""
    return sorted(range(tensor.dim()), key=tensor.stride().__getitem__, reverse=True)


def cut_into_views(flat: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Consecutive views of ``flat``, with the parameters' shapes and strides."""
    starts = itertools.accumulate((p.numel() for p in parameters), initial=0)
    return [flat.as_strided(p.shape, p.stride(), start) for start, p in zip(starts, parameters, strict=False)]


def flatten(parameters: list[nn.Parameter]) -> Tensor:
    """One buffer of the parameters' values in memory order; the parameters become views of it."""
    for p in parameters:
        p.data = p.detach().clone()  # dense, also if it was a part of a larger tensor
    flat = torch.cat([p.detach().permute(sort_dims_by_stride(p)).reshape(-1) for p in parameters])
    for p, view in zip(parameters, cut_into_views(flat, parameters), strict=True):
        p.data = view
    return flat


def update_by_caffe(
    weights: Tensor, gradient: Tensor, velocity: Tensor, lr: Number, mu: Number, nesterov: bool
) -> None:
    """Caffe's rule, in place; overwrites ``gradient``. Nesterov's (1+mu) V_new - mu V_old is mu V_new + lr g."""
    gradient *= lr
    velocity *= mu
    velocity += gradient
    weights -= gradient.add_(velocity * mu) if nesterov else velocity


def update_by_torch(
    weights: Tensor, gradient: Tensor, velocity: Tensor, lr: Number, mu: Number, nesterov: bool
) -> None:
    """torch.optim.SGD's rule (dampening 0), in place; overwrites ``gradient``."""
    velocity *= mu
    velocity += gradient
    weights -= (gradient.add_(velocity * mu) if nesterov else velocity) * lr
