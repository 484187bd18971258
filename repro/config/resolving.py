"""From the composed to the resolved configuration: scale applied, every value checked. Does not import torch."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro import schedules
from repro.config.errors import ReproError, dotted, no_such_key, one_line
from repro.config.schema import NOT_NEGATIVE, POSITIVE, Config, Filler, Replicates

DEVICE = r"auto|cpu|(cuda|mps|xpu)(:\d+)?"
FOLDER = r"(?!\.\.?$)[^/\\\x00-\x1f]+"  # a valid name of a folder


def resolve(composed: Any, overrides: Iterable[str] = ()) -> Config:
    """The run that a composed configuration describes: scale applied, every value checked.

    ``overrides`` are those of the command line that composed it; they take precedence over experiment and scale.
    Raises ReproError that names the key, for an unknown key and for a value that cannot be trained.
    """
    typed = typed_keys(overrides)
    try:
        refuse_unknown_keys(composed, Config)
        _check_typed(composed, typed)
        if missing := sorted(OmegaConf.missing_keys(composed)):
            raise ReproError(f"{missing[0]}: it has no value")
        config = cast(Config, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ReproError(one_line(error)) from None
    config.model.options = config.model.options or None  # as in records without options
    if config.model.name == "custom" and config.model.factory is None:
        raise ReproError("model.factory=null: name your function, model.factory=package.module:function")
    if config.model.factory is not None:
        config.model.name, config.model.factory = config.model.factory, None  # one run, one spelling
    scale = config.scale
    if config.replicates is Replicates.author:
        _apply_author_replicate(config)
    try:
        _drop_settings_of_other_shapes(config, typed)
        _check(config)
        config.iterations = _scaled(config.iterations, scale.iterations)
        config.batch_size = _scaled(config.batch_size, scale.batch)
        config.test_every = _scaled(config.test_every, scale.iterations)
        config.snapshots = sorted({_scaled(i, scale.iterations) for i in config.snapshots})
        if config.start.iteration is not None:
            config.start.iteration = _scaled(config.start.iteration, scale.iterations)
        if scale.tests is not None and "test_every" not in typed:
            config.test_every = max(1, round(config.iterations / scale.tests))
        schedule, factor = config.schedule, scale.iterations
        schedule.lr = schedules.scaled(schedule.lr, lambda count: _scaled(count, factor))
        schedule.momentum = schedules.scaled(schedule.momentum, lambda count: _scaled(count, factor))
        _check(config)
    except ValueError as error:
        raise ReproError(str(error)) from None
    return config


def notes(config: Config) -> list[str]:
    """Notes to print before a resolved run is trained, one line each: where its schedule is cut short.

    Iterations are those before the scale, as a command line sets them.
    """
    schedule, end, factor = config.schedule, config.iterations, config.scale.iterations
    at_scale = "" if factor == 1 else f" ({end} at scale {config.scale.name})"
    found = []
    for key, needed in schedules.cut_short(schedule.lr, schedule.momentum, end).items():
        part, name = key.split(".")[1:]
        line = f"note: {config.curve} ends at iteration {round(end / factor)}{at_scale}, "
        if key == "schedule.lr.step_size":
            cycles = needed // (2 * schedule.lr[name])
            fitting = int(end / factor / cycles / 2)
            line += f"inside a cycle that ends at {round(needed / factor)}; {key}={fitting} fits it in, or "
        else:
            value = getattr(schedule, part)[name]
            unscaled = [round(i / factor) for i in value] if isinstance(value, list) else round(value / factor)
            line += f"before {key}={unscaled} is reached; "
        found.append(f"{line}iterations={round(needed / factor)} reaches its end")
    return found


def refuse_unknown_keys(composed: DictConfig, schema: type) -> None:
    """Raise ReproError for a key that ``schema``, a dataclass, does not have: Hydra's ``+`` adds any."""
    for key in _unknown_keys(composed, schema):
        known = [k for k in dotted(composed) if k != key and not k.startswith(f"{key}.")]
        raise ReproError(no_such_key(key, known))


def _unknown_keys(node: DictConfig, schema: Any, prefix: str = "") -> Iterator[str]:
    types = {field.name: field.type for field in dataclasses.fields(schema)}
    for name in map(str, node):
        if name not in types:
            yield f"{prefix}{name}"
        elif dataclasses.is_dataclass(types[name]):
            yield from _unknown_keys(node[name], types[name], f"{prefix}{name}.")


def typed_keys(overrides: Iterable[str]) -> set[str]:
    """The dotted keys that a command line sets; a group by its name, a deletion as ``~`` and its key."""
    return {key for override in overrides for key in _keys(override)}


@lru_cache(maxsize=1024)
def _keys(override: str) -> list[str]:
    parsed = OverridesParser.create().parse_override(override)
    key = parsed.key_or_group
    if parsed.is_delete():
        return [f"~{key}"]
    value = parsed.value()
    return [f"{key}.{k}" for k in dotted(OmegaConf.create(value))] if isinstance(value, dict) else [key]


def _check_typed(config: Config, typed: set[str]) -> None:
    """Raise ReproError for a command-line override that would be ignored."""
    for key in sorted(typed & {f"~{field.name}" for field in dataclasses.fields(Config)}):
        raise ReproError(f"{key}: a key of a run cannot be deleted; choose another value")
    if "curve" in typed:
        raise ReproError(
            f"curve={config.curve}: the experiment sets it; choose the experiment with experiment=, or keep your "
            "own in DIR/experiment and add --config-dir DIR"
        )
    if config.scale.tests is not None and {"test_every", "scale.tests"} <= typed:
        raise ReproError(f"test_every and scale.tests={config.scale.tests} both say when to test; remove one")
    if config.replicates is Replicates.author and "model.init" in typed:
        raise ReproError("model.init: replicates=author sets it by the seed; remove one of the two")


def _drop_settings_of_other_shapes(config: Config, typed: set[str]) -> None:
    """Where the command line chose the schedule, drop the experiment's settings that its shapes do not take.

    Settings on the command line are kept, so that they are refused. Raises ValueError for an unknown shape.
    """
    for part in ("lr", "momentum"):
        key, settings = f"schedule.{part}", getattr(config.schedule, part)
        if typed & {"schedule", f"{key}.shape"}:
            known = schedules.declared(key, settings)
            kept = {k: v for k, v in settings.items() if k in known or f"{key}.{k}" in typed}
            setattr(config.schedule, part, kept)


def _apply_author_replicate(config: Config) -> None:
    """Replicate k, the seed: k more images per GPU, xavier for odd k, the iterations of the nominal batch."""
    if config.model.gpus != 4:
        raise ReproError(
            f"replicates=author: defined only for networks trained on 4 GPUs, and {config.model.name} had "
            f"{config.model.gpus}; use replicates=seeds"
        )
    config.batch_size += config.model.gpus * config.seed
    config.model.init = Filler.xavier if config.seed % 2 else Filler.msra


def _check(config: Config) -> None:
    """Raise ReproError or ValueError for a value that cannot be trained."""
    check_numbers(config)
    check_folders("scale.name", [config.scale.name])
    check_folders("curve", config.curve.split("/"))
    for key, text in (("output", config.output), ("dataset.root", config.dataset.root)):
        _require(bool(text.strip()), key, text, "is empty; name a folder")
    _require(
        re.fullmatch(DEVICE, config.device) is not None,
        "device",
        config.device,
        "is no device; choose from auto, cpu, cuda, cuda:1, mps, xpu",
    )
    resolution, groups = config.dataset.resolution, config.model.bn_groups
    _require(
        not (resolution or 0) % 4,
        "dataset.resolution",
        resolution,
        "is not a multiple of 4: it is halved twice",
    )
    _require(
        config.batch_size % groups == 0,
        "model.bn_groups",
        groups,
        f"does not divide the batch of {config.batch_size} images",
    )
    schedules.check_range(config.schedule.lr, config.schedule.momentum, config.iterations)
    _check_start(config)


def _check_start(config: Config) -> None:
    start, end = config.start, config.iterations
    for key in ("iteration", "curve"):
        if getattr(start, key) is None and (start.curve, start.iteration, start.changes) != (None, None, None):
            raise ReproError(f"start.{key}: a run that starts from a snapshot names its curve and iteration")
    if start.iteration is not None:
        _require(start.iteration < end, "start.iteration", start.iteration, f"is not before the end at {end}")
    for iteration in config.snapshots:
        _require(0 < iteration <= end, "snapshots", iteration, f"is not an iteration from 1 to {end}")


def check_folders(key: str, names: Iterable[str]) -> None:
    """Raise ReproError unless each of ``names``, the parts of a path, is a valid name of a folder."""
    names = list(names)
    _require(all(re.fullmatch(FOLDER, name) for name in names), key, "/".join(names), "cannot name a folder")


def check_numbers(node: Any, prefix: str = "") -> None:
    """Raise ReproError for a number outside the interval of its field in the schema."""
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{key}.")
        elif "interval" in field.metadata and value is not None:
            interval = field.metadata["interval"]
            words = {POSITIVE: "is not positive", NOT_NEGATIVE: "is negative"}
            if isinstance(value, list) and not value:
                raise ReproError(f"{key}=[] is empty; list at least one number")
            for one in value if isinstance(value, list) else [value]:
                place = f"{key}={value}: {one:g}" if isinstance(value, list) else f"{key}={value}"
                if not math.isfinite(one):
                    raise ReproError(f"{place} is not a finite number")
                if not _is_in(interval, one):
                    raise ReproError(f"{place} {words.get(interval, f'is not in {interval}')}")


def _is_in(interval: str, value: float) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    return low < value < high or (value == low and interval[0] == "[") or (value == high and interval[-1] == "]")


def _require(holds: bool, key: str, value: Any, problem: str) -> None:
    if not holds:
        raise ReproError(f"{key}={value} {problem}")


def _scaled(value: int, factor: float) -> int:
    return max(1, round(value * factor))
