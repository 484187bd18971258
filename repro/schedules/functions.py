"""The shapes of a schedule: learning rate or momentum as pure functions of the iteration.

Each is a function of the iteration ``i`` (0 before the first update) and of keyword-only settings; a schedule in
``conf/schedule`` names one for the learning rate and one for the momentum. To add one, write the function here, or
in your own package (its shape is then ``package.module:function``), and a YAML file there. A setting that counts
iterations is annotated ``Iterations``: a scale multiplies it. A rate per iteration is annotated ``PerIteration``:
a scale divides it.

Source: L. N. Smith, arXiv 1803.09820, sections 2 and 4, and the solver files that he published. "Step size" is
half a cycle, in iterations.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated

Iterations = Annotated[int, "iterations"]
PerIteration = Annotated[float, "per iteration"]


def lr_range(i: int, *, base_lr: float, max_lr: float, iterations: Iterations) -> float:
    """LR range test: linear from ``base_lr`` to ``max_lr`` over all ``iterations``."""
    _check_settings(i, base_lr=base_lr, max_lr=max_lr, iterations=iterations)
    return base_lr + (max_lr - base_lr) * min(i / iterations, 1.0)


def lr_range_exponential(i: int, *, base_lr: float, max_lr: float, iterations: Iterations) -> float:
    """Exponential LR range test: from ``base_lr`` > 0 to ``max_lr``, multiplied by one factor every iteration."""
    _check_settings(i, base_lr=base_lr, max_lr=max_lr, iterations=iterations)
    if base_lr <= 0:
        raise ValueError(f"base_lr {base_lr} is not above 0; an exponential range test cannot start at 0")
    return float(base_lr * (max_lr / base_lr) ** min(i / iterations, 1.0))


def triangular(i: int, *, base_lr: float, max_lr: float, step_size: Iterations) -> float:
    """CLR: ``base_lr`` up to ``max_lr`` over ``step_size`` iterations and back, repeating."""
    _check_settings(i, base_lr=base_lr, max_lr=max_lr, step_size=step_size)
    x = i % (2 * step_size) / step_size
    return base_lr + (max_lr - base_lr) * min(x, 2 - x)


def onecycle(i: int, *, base_lr: float, max_lr: float, step_size: Iterations, final_lr: float) -> float:
    """1cycle: up to ``max_lr``, down towards zero (not to ``base_lr``), then constant at ``final_lr``.

    The descent stops at ``final_lr``, which holds from the end of the cycle (2 ``step_size``) on.
    """
    _check_settings(i, base_lr=base_lr, max_lr=max_lr, step_size=step_size)
    if final_lr > max_lr:
        raise ValueError(f"final_lr {final_lr} is above max_lr {max_lr}")
    if i <= step_size:
        return base_lr + (max_lr - base_lr) * i / step_size
    return max(max_lr * (1 - (i - step_size) / step_size), final_lr)


def multistep(i: int, *, lr: float, milestones: Sequence[Iterations], gamma: float) -> float:
    """Piecewise constant: ``lr``, multiplied by ``gamma`` at each milestone (an iteration).

    Milestones may coincide, as they do at a small scale.
    """
    _check_settings(i)
    if list(milestones) != sorted(milestones) or any(m < 1 for m in milestones):
        raise ValueError(f"milestones {list(milestones)} are not ascending iterations from 1 on")
    return lr * float(gamma ** sum(i >= m for m in milestones))


def ramp_multistep(
    i: int, *, base_lr: float, max_lr: float, step_size: Iterations, milestones: Sequence[Iterations], gamma: float
) -> float:
    """``base_lr`` up to ``max_lr`` over ``step_size`` iterations, then ``multistep`` (Figure 7d)."""
    _check_settings(i, base_lr=base_lr, max_lr=max_lr, step_size=step_size)
    progress = min(i / step_size, 1.0)
    return multistep(i, lr=base_lr + (max_lr - base_lr) * progress, milestones=milestones, gamma=gamma)


def inv(i: int, *, lr: float, gamma: PerIteration, power: float) -> float:
    """Caffe's ``inv``: ``lr`` (1 + ``gamma`` i)^-``power``."""
    _check_settings(i)
    if gamma < 0:
        raise ValueError(f"gamma {gamma} is negative")
    return float(lr * (1 + gamma * i) ** -power)


def constant(i: int, *, value: float) -> float:
    """``value`` at every iteration."""
    _check_settings(i)
    return float(value)


def cyclical_momentum(
    i: int, *, max_momentum: float, min_momentum: float, step_size: Iterations, tail: str = "hold"
) -> float:
    """Cyclical momentum: ``max_momentum`` to ``min_momentum`` while the LR rises, and back while it falls.

    After the cycle, tail "hold" stays at ``max_momentum`` (the paper); tail "caffe" continues to cycle, halving
    the amplitude each time (the author's code). Momentum that moves *with* the LR (Figure 8a) has the two values
    swapped: ``max_momentum`` is the value at both ends of the cycle.
    """
    _check_settings(i, step_size=step_size)
    if tail not in ("hold", "caffe"):
        raise ValueError(f"tail {tail!r} is neither 'hold' nor 'caffe'")
    cycle = i // (2 * step_size)
    if cycle and tail == "hold":
        return float(max_momentum)
    x = (i - (2 * cycle + 1) * step_size) / step_size
    return max_momentum + (min_momentum - max_momentum) * max(0.0, 1 - abs(x)) / 2.0**cycle


@cache
def shapes() -> dict[str, Callable[..., float]]:
    """Every shape of this module by name: the public functions whose first parameter is the iteration ``i``."""
    public = {k: f for k, f in globals().items() if inspect.isfunction(f) and not k.startswith("_")}
    return {k: f for k, f in public.items() if next(iter(inspect.signature(f).parameters), "") == "i"}


def _check_settings(
    i: int,
    *,
    base_lr: float | None = None,
    max_lr: float | None = None,
    step_size: int | None = None,
    iterations: int | None = None,
) -> None:
    if i < 0:
        raise ValueError(f"iteration {i} is negative")
    if step_size is not None and step_size < 1:
        raise ValueError(f"step_size {step_size} is below 1")
    if iterations is not None and iterations < 1:
        raise ValueError(f"iterations {iterations} is below 1")
    if base_lr is not None and max_lr is not None and base_lr > max_lr:
        raise ValueError(f"base_lr {base_lr} is above max_lr {max_lr}")
