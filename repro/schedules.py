"""Learning rate and momentum as pure functions of the iteration.

Each *shape* is a function of the iteration ``i`` (0 before the first update) and of keyword-only settings; a
schedule in ``conf/schedule`` names a shape for the learning rate and one for the momentum. To add one, write
the function here, or in your own package (its shape is then ``package.module:function``), and a YAML file there.
A setting that counts iterations is annotated ``Iterations``: a scale multiplies it. A rate per iteration is
annotated ``PerIteration``: a scale divides it.

Source: L. N. Smith, arXiv 1803.09820, sections 2 and 4, and the solver files that he published. "Step size" is
half a cycle, in iterations.
"""

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, get_args, get_origin, get_type_hints

Shape = Callable[[int], float]
Iterations = Annotated[int, "iterations"]
HIGHEST = {"schedule.lr": sys.float_info.max, "schedule.momentum": 1.0}  # largest valid value; the smallest is 0
ROUNDING = 1e-9  # tolerance at both ends of the valid range
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


def build(lr: Mapping[str, Any], momentum: Mapping[str, Any]) -> Callable[[int], tuple[float, float]]:
    """Iteration -> (learning rate, momentum), from two settings such as ``{"shape": "constant", "value": 0.9}``.

    Raises ValueError for an unknown shape, a missing, unknown or mistyped setting, and impossible values.
    """
    lr_at, momentum_at = _build_shape("schedule.lr", lr), _build_shape("schedule.momentum", momentum)
    return lambda i: (lr_at(i), momentum_at(i))


@cache
def shapes() -> dict[str, Callable[..., float]]:
    """Every shape of this module by name: the public functions whose first parameter is the iteration ``i``."""
    public = {k: f for k, f in globals().items() if inspect.isfunction(f) and not k.startswith("_")}
    return {k: f for k, f in public.items() if next(iter(inspect.signature(f).parameters), "") == "i"}


def scaled(settings: Mapping[str, Any], scale: Callable[[int], int]) -> dict[str, Any]:
    """The settings with ``scale`` applied to those that count iterations, and its inverse to rates per iteration.

    The annotations of the shape's parameters say which these are. Raises ValueError for an unknown shape.
    """
    hints = get_type_hints(_find_function("schedule", settings.get("shape")), include_extras=True)
    result = dict(settings)
    for key, value in settings.items():
        if hints.get(key) == Iterations:
            result[key] = scale(value)
        elif Iterations in get_args(hints.get(key)):
            result[key] = [scale(v) for v in value]
        elif hints.get(key) == PerIteration:
            result[key] = value * 1_000_000 / scale(1_000_000)
    return result


def declared(group: str, settings: Mapping[str, Any]) -> set[str]:
    """The names of all settings that the shape in ``settings`` takes. Raises ValueError for an unknown shape."""
    parameters = inspect.signature(_find_function(group, settings.get("shape"))).parameters
    return {"shape", *parameters} - {"i"}


def check_range(lr: Mapping[str, Any], momentum: Mapping[str, Any], iterations: int) -> None:
    """Raise as ``build`` does, and ValueError for a learning rate below 0 or a momentum outside [0, 1].

    It evaluates evenly spaced iterations, and those where the settings make the shape turn.
    """
    for (group, highest), settings in zip(HIGHEST.items(), (lr, momentum), strict=True):
        shape = _build_shape(group, settings)
        turns = [count for _, value in _iteration_settings(settings) for count in _as_list(value)]
        checked = {*range(0, iterations + 1, max(1, iterations // 100)), *turns, *(2 * count for count in turns)}
        for i in sorted(i for i in checked if i <= iterations):
            try:
                value = shape(i)
            except ValueError as error:
                raise ValueError(f"{group}: {error} (iteration {i})") from None
            if not -ROUNDING <= value <= highest + ROUNDING:
                interval = "[0, 1]" if highest == 1 else "[0, inf)"
                for key, setting in settings.items():
                    if _fits(setting, float) and not 0 <= setting <= highest:
                        raise ValueError(f"{group}.{key}={setting} is not in {interval}")
                raise ValueError(f"{group}: {value:g} at iteration {i} is not in {interval}")


def cut_short(lr: Mapping[str, Any], momentum: Mapping[str, Any], iterations: int) -> dict[str, int]:
    """The settings that a run of ``iterations`` iterations does not complete, with the iterations that they need.

    A ``step_size`` of the learning rate needs whole cycles if the rate still changes at the end; any other setting
    that counts iterations needs to be reached.
    """
    needed = {}
    for key, value in _iteration_settings(lr):
        last = max(_as_list(value), default=0)
        if key == "step_size":
            cycle, lr_at = 2 * last, _build_shape("schedule.lr", lr)
            cycles = -(-iterations // cycle)
            is_inside = min(iterations % cycle, -iterations % cycle) > cycles  # a scale rounds both
            last = cycles * cycle if is_inside and lr_at(iterations) != lr_at(iterations - 1) else 0
        if last > iterations:
            needed[f"schedule.lr.{key}"] = last
    for key, value in _iteration_settings(momentum):
        if max(_as_list(value), default=0) > iterations and lr.get(key) != value:
            needed[f"schedule.momentum.{key}"] = max(_as_list(value))
    return needed


def _iteration_settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings that count iterations, as annotated in their shape."""
    hints = get_type_hints(_find_function("schedule", settings.get("shape")), include_extras=True)
    for key, value in settings.items():
        if hints.get(key) == Iterations or Iterations in get_args(hints.get(key)):
            yield key, value


def _as_list(value: int | Sequence[int]) -> list[int]:
    return list(value) if isinstance(value, Sequence) else [value]


def _find_function(group: str, name: Any) -> Callable[..., float]:
    """The shape with that name in this module, or with that import path. Raises ValueError if there is none."""
    if name in shapes():
        return shapes()[name]
    module, colon, function = str(name).partition(":")
    if not colon:
        known = ", ".join(shapes())
        raise ValueError(f"{group}.shape: no schedule {name!r}; choose from {known}, or package.module:function")
    try:
        found: Callable[..., float] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{group}.shape: no schedule {name!r}: {error}") from None
    return found


def _build_shape(group: str, settings: Mapping[str, Any]) -> Shape:
    values = dict(settings)
    name = values.pop("shape", None)
    function = _find_function(group, name)
    types = get_type_hints(function)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "i"]
    if unknown := sorted(set(values) - {p.name for p in parameters}):
        raise ValueError(f"{group}.{unknown[0]}: {name} takes {', '.join(p.name for p in parameters)}")
    for p in parameters:
        if p.name not in values and p.default is p.empty:
            raise ValueError(f"{group}.{p.name}: {name} needs a value")
        if p.name in values and not _fits(values[p.name], kind := types.get(p.name, Any)):
            if isinstance(values[p.name], float) and not math.isfinite(values[p.name]):
                raise ValueError(f"{group}.{p.name}={values[p.name]} is not a finite number")
            raise ValueError(f"{group}.{p.name}: {values[p.name]!r} is not a {getattr(kind, '__name__', kind)}")
    shape = partial(function, **values)
    try:
        shape(0)
    except ValueError as error:
        raise ValueError(f"{group}: {error}") from None
    return shape


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind in (int, str, bool):
        return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if get_origin(kind) is Sequence:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and all(_fits(v, *get_args(kind)) for v in value)
    return True  # any other type is for the function to check


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
