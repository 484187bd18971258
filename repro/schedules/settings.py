"""A schedule's settings, as configured: checked, scaled, and built into a function of the iteration.

The signature of a shape says which settings it takes, of which types, and which of them count iterations.
"""

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from repro import user_code
from repro.schedules.functions import Iterations, PerIteration, shapes

Shape = Callable[[int], float]
HIGHEST = {"schedule.lr": sys.float_info.max, "schedule.momentum": 1.0}  # largest valid value; the smallest is 0
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
ROUNDING = 1e-9  # tolerance at both ends of the valid range


def build(lr: Mapping[str, Any], momentum: Mapping[str, Any]) -> Callable[[int], tuple[float, float]]:
    """Iteration -> (learning rate, momentum), from two settings such as ``{"shape": "constant", "value": 0.9}``.

    Raises ValueError for an unknown shape, a missing, unknown or mistyped setting, and impossible values.
    """
    lr_at, momentum_at = _build_shape("schedule.lr", lr), _build_shape("schedule.momentum", momentum)
    return lambda i: (lr_at(i), momentum_at(i))


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
            raise ValueError(f"{group}.{key}: {values[key]!r} is not {_type_name(kind)}")
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
    """A type as a phrase: "a number", "a list of whole numbers"; a type of the user's own by its name."""
    if get_origin(kind) is Sequence:
        return "a list of whole numbers" if get_args(kind) == (int,) else "a list"
    if kind in TYPE_NAMES:
        return TYPE_NAMES[kind]
    return f"a {_own_type_name(kind)}"


def _own_type_name(kind: Any) -> str:
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
