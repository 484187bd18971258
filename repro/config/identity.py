"""What makes two runs the same: the fingerprint of a resolved configuration. Does not import torch."""

import dataclasses
import hashlib
import itertools
import json
from enum import Enum
from typing import Any, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.config.errors import ReproError, one_line
from repro.config.schema import Config

PROTOCOL = 1  # increment it when the same configuration no longer trains the same run

MANY = 10  # the most whole numbers whose spellings are tried: a thousand of them

# Where and how a run is executed, not what it computes: excluded from its fingerprint and its folder's name.
CIRCUMSTANCES = [
    "curve",
    "output",
    "device",
    "threads",
    "workers",
    "deterministic",
    "checkpoint_seconds",
    "checkpoint_iterations",
    "snapshots",
    "force",
    "dataset.root",
    "dataset.cache",
    "engine.compile",
    "engine.cuda_graph",
    "scale.note",
    "start.folder",
    "start.command",
    "tracking.mode",
    "tracking.entity",
    "tracking.project",
    "tracking.base_url",
    "tracking.patience",
    "tracking.tags",
    "tracking.notes",
    "tracking.system_metrics",
    "tracking.code",
]

# Keys added later, with the value that every earlier run had: at that value they do not change a fingerprint.
LATER: dict[str, Any] = {
    "engine.precision": "float32",
    "model.options": None,
    "model.classifier_init": "xavier",
    "model.min_resolution": None,
    "dataset.min_resolution": None,
    "dataset.mean_image": True,
    "dataset.reshuffle": True,
    "dataset.unit_pixels": False,
    "start.curve": None,
    "start.iteration": None,
    "start.changes": None,
    "start.fingerprint": None,
    "divergence": None,
    "model.factory": None,
    "dataset.channels": None,
    "dataset.test_fraction": 0.2,
    "dataset.split_seed": 0,
}


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain values, as stored in ``run.json``."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value


def from_dict(values: dict[str, Any]) -> Config:
    """The resolved configuration that ``to_dict`` wrote. Raises ReproError if another version wrote it."""
    try:
        config = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values)))
    except OmegaConfBaseException as error:
        raise ReproError(f"its configuration is from another version of the suite ({one_line(error)})") from None
    config.model.options = config.model.options or None  # as ``resolve`` leaves it, in records without it too
    return config


def flat(config: Config) -> dict[str, Any]:
    """Dotted key -> value, for the keys that determine the results (all but CIRCUMSTANCES)."""
    pairs: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        nested = value if dataclasses.is_dataclass(getattr(config, key)) else {"": value}
        pairs |= {f"{key}.{k}" if k else key: v for k, v in nested.items()}
    return {k: v for k, v in pairs.items() if k not in CIRCUMSTANCES}


def fingerprint(config: Config, *, images: bool = True) -> str:
    """Twelve hexadecimal digits, equal for two runs exactly when all keys that determine the results are equal.

    Without ``images``, the contents of the image sets are not compared.
    """
    values = flat(config)
    if not images:
        values["dataset.digest"] = None
    return _fingerprint(values)


def is_respelled(config: Config, recorded: str, *, images: bool = True) -> bool:
    """Whether ``recorded`` is the configuration's fingerprint with its whole numbers as 1 or as 1.0, each as fits.

    ``images`` is as for ``fingerprint``. The keys of schedules and of model.options have no type, and neither
    overrides nor W&B keep that of a number.
    """
    values = flat(config)
    if not images:
        values["dataset.digest"] = None
    mappings = [values[key] for key in ("schedule.lr", "schedule.momentum", "model.options") if values[key]]
    whole = [(m, k) for m in mappings for k, v in m.items() if type(v) in (int, float) and float(v).is_integer()]
    for types in itertools.product((int, float), repeat=len(whole[:MANY])):
        for (mapping, key), number in zip(whole, types, strict=False):
            mapping[key] = number(mapping[key])
        if _fingerprint(values) == recorded:
            return True
    return False


def _fingerprint(values: dict[str, Any]) -> str:
    changed = {k: v for k, v in values.items() if v != LATER.get(k, MISSING)}
    text = json.dumps({"protocol": PROTOCOL, **changed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
