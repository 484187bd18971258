"""Learning rate and momentum as pure functions of the iteration.

Each *shape* is a function of the iteration ``i`` (0 before the first update) and of keyword-only settings; a
schedule in ``conf/schedule`` names a shape for the learning rate and one for the momentum. To add one, write
the function here, or in your own package (its shape is then ``package.module:function``), and a YAML file there.
A setting that counts iterations is annotated ``Iterations``: a scale multiplies it. A rate per iteration is
annotated ``PerIteration``: a scale divides it.

Source: L. N. Smith, arXiv 1803.09820, sections 2 and 4, and the solver files that he published. "Step size" is
half a cycle, in iterations.
"""

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from repro import user_code

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
    hints = _hints(_find_function("schedule", settings.get("shape")))
    result = dict(settings)
    for key, value in settings.items():
        if _mentions(hints.get(key), Iterations):
            result[key] = _map_numbers(value, scale)
        elif _mentions(hints.get(key), PerIteration):
            result[key] = _map_numbers(value, lambda rate: rate * 1_000_000 / scale(1_000_000))
    return result


def declared(group: str, settings: Mapping[str, Any]) -> set[str]:
    """The names of all settings that the shape in ``settings`` takes. Raises ValueError for an unknown shape."""
    function = _find_function(group, settings.get("shape"))
    return {"shape", *_settings_of(function)} | (set(settings) if _takes_any(function) else set())


def check_range(lr: Mapping[str, Any], momentum: Mapping[str, Any], iterations: int) -> None:
    """Raise as ``build`` does, and ValueError for a learning rate below 0 or a momentum outside [0, 1].

    It evaluates evenly spaced iterations, and those where the settings make the shape turn.
    """
    for (group, highest), settings in zip(HIGHEST.items(), (lr, momentum), strict=True):
        shape = _build_shape(group, settings)
        turns = [count for _, counts in _iteration_settings(settings) for count in counts if count >= 0]
        checked = {*range(0, iterations + 1, max(1, iterations // 100)), *turns, *(2 * count for count in turns)}
        for i in sorted(i for i in checked if i <= iterations):
            try:
                value = shape(i)
            except ValueError as error:
                if settings["shape"] not in shapes():
                    raise
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
    for key, counts in _iteration_settings(lr):
        last = max(counts, default=0)
        if key == "step_size" and last > 0:
            cycle, lr_at = 2 * last, _build_shape("schedule.lr", lr)
            cycles = -(-iterations // cycle)
            is_inside = min(iterations % cycle, -iterations % cycle) > cycles  # a scale rounds both
            last = cycles * cycle if is_inside and lr_at(iterations) != lr_at(iterations - 1) else 0
        if last > iterations:
            needed[f"schedule.lr.{key}"] = last
    for key, counts in _iteration_settings(momentum):
        if max(counts, default=0) > iterations and lr.get(key) != momentum[key]:
            needed[f"schedule.momentum.{key}"] = max(counts)
    return needed


def _iteration_settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """The settings that count iterations, as annotated in their shape, and their counts."""
    hints = _hints(_find_function("schedule", settings.get("shape")))
    for key, value in settings.items():
        if _mentions(hints.get(key), Iterations):
            yield key, _as_list(value)


def _mentions(hint: Any, annotation: Any) -> bool:
    """Whether a type is ``annotation``, or an optional or a sequence of it."""
    return bool(hint == annotation or any(_mentions(part, annotation) for part in get_args(hint)))


def _map_numbers(value: Any, change: Callable[[Any], Any]) -> Any:
    """The number changed, or each number of a sequence; anything else, such as None, as it is."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_map_numbers(v, change) for v in value]
    return change(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_list(value: Any) -> list[int]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [count for v in value for count in _as_list(v)]
    return [value] if isinstance(value, int) else []


def _find_function(group: str, name: Any) -> Callable[..., float]:
    """The shape with that name in this module, or with that import path. Raises ValueError if there is none."""
    if name in shapes():
        return shapes()[name]
    if ":" not in str(name):
        known = ", ".join(shapes())
        raise ValueError(f"{group}.shape: no schedule {name!r}; choose from {known}, or package.module:function")
    try:
        found: Any = user_code.find(str(name))
    except ValueError as error:
        raise ValueError(f"{group}.shape: no schedule {name!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{group}.shape={name}: it is a {type(found).__name__}, not a function of the iteration")
    function: Callable[..., float] = found
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{group}.shape={name}: {error}") from error
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        example = "def name(i, *, value)"
        raise ValueError(f"{group}.shape={name}: its first parameter is not the iteration, as in {example}")
    return function


def _hints(function: Callable[..., float], include_extras: bool = True) -> dict[str, Any]:
    """The annotations of a function's parameters; empty if they cannot be evaluated."""
    annotated: Any = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(annotated, include_extras=include_extras)
    except (NameError, TypeError):
        return {}


def _settings_of(function: Callable[..., float]) -> dict[str, inspect.Parameter]:
    """The parameters of a shape without its first, the iteration, and without ``*args`` and ``**kwargs``."""
    following = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: p for p in following if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _takes_any(function: Callable[..., float]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _build_shape(group: str, settings: Mapping[str, Any]) -> Shape:
    values = dict(settings)
    name = values.pop("shape", None)
    function = _find_function(group, name)
    types, parameters = _hints(function, include_extras=False), _settings_of(function)
    if (unknown := sorted(set(values) - set(parameters))) and not _takes_any(function):
        raise ValueError(f"{group}.{unknown[0]}: {name} takes {', '.join(parameters) or 'no setting'}")
    for key, p in parameters.items():
        if key not in values and p.default is p.empty:
            raise ValueError(f"{group}.{key}: {name} needs a value")
        if key in values and not _fits(values[key], kind := types.get(key, Any)):
            if isinstance(values[key], float) and not math.isfinite(values[key]):
                raise ValueError(f"{group}.{key}={values[key]} is not a finite number")
            raise ValueError(f"{group}.{key}: {values[key]!r} is not a {_type_name(kind)}")
    shape: Shape = partial(function, **values)
    if name not in shapes():
        shape = partial(_own_value, shape, f"{group}.shape={name}")
        shape(0)
        return shape
    try:
        shape(0)
    except ValueError as error:
        raise ValueError(f"{group}: {error}") from None
    return shape


def _own_value(shape: Shape, subject: str, i: int) -> float:
    """The value of the user's own shape at iteration ``i``. Raises ValueError if it fails or returns no number."""
    try:
        value: Any = shape(i)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) and str(error) else user_code.describe(error)
        raise ValueError(f"{subject}: {reason}, at iteration {i}") from error
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{subject}: it returns {value!r} at iteration {i}, not a number")
    return value if isinstance(value, int | float) else float(value)


def _type_name(kind: Any) -> str:
    return str(kind) if get_args(kind) else getattr(kind, "__name__", str(kind))


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if kind is NoneType:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind in (int, str, bool):
        return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if get_origin(kind) in (Sequence, list):
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
