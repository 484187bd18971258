"""One run, one name: the overrides of its experiment, in canonical text. Does not import torch.

They name the run's folder, its W&B run and the curve of a variant, whichever command composed the run. Values
equal to the experiment's, and keys that say only where and how a run is executed, are not part of the name.
"""

import copy
import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from repro.config import CIRCUMSTANCES, Config, catalogue, resolve
from repro.config.errors import ReproError
from repro.records.existing import differences
from repro.records.files import find
from repro.records.info import read_info

NOT_TEXT = ("null", "true", "false", "nan", "inf")  # words that Hydra's grammar does not read as text
LONGEST = 255  # bytes of a folder's name
# Keys of the folders above and below, keys that only launch, and a key that is filled in for the run's source.
APART = ("experiment", "scale", "seed", "sweep", "start.fingerprint")
_Leaves = dict[str, tuple[Any, Any]]  # dotted key -> its value as written and resolved


def changes(composed: DictConfig, hydra: HydraConf | DictConfig) -> list[str]:
    """The overrides of a composed configuration relative to its experiment and scale; ``hydra`` is Hydra's part.

    Sorted overrides ``key=value`` that compose the same run: ``group=choice`` for a chosen group, and the keys
    that differ from it. Raises what Hydra raises.
    """
    choices = hydra.runtime.choices  # group -> option
    typed = {o.lstrip("+~").partition("=")[0].partition("@")[0] for o in hydra.overrides.task}
    typed -= {*APART, *CIRCUMSTANCES}
    if not typed:
        return []
    chosen = (f"experiment={choices['experiment']}", f"scale={choices['scale']}")
    experiment = leaves_of(*chosen)
    groups = [f"{key}={choices[key]}" for key in sorted(typed) if key in choices]
    groups = [group for group in groups if leaves_of(*chosen, group) != experiment]
    base = leaves_of(*chosen, *groups) if groups else experiment
    changed = []
    for key, (written, value) in _leaves(composed).items():
        base_written, base_value = base.get(key, (None, None))
        if key not in base or (written != base_written and value != base_value):
            changed.append(f"{key}={spelled(value)}")
    return sorted([*groups, *changed])


def as_overrides(changes: Iterable[str]) -> list[str]:
    """``changes`` for the command line that composes the run; ``++`` also adds keys that the experiment lacks."""
    return [f"++{change}" if change.partition("=")[0].count(".") > 1 else change for change in changes]


def folder_name(changes: Iterable[str]) -> str:
    """``changes`` as the name of one folder, "" for none; a name over 255 bytes is cut and ends in its hash."""
    return shortened(",".join(changes).replace("/", "%2F"), LONGEST)


def shortened(name: str, longest: int) -> str:
    """``name``, or if it is longer than ``longest`` bytes its beginning and twelve digits of its hash."""
    encoded = name.encode()
    if len(encoded) <= longest:
        return name
    prefix = encoded[: longest - 13].decode(errors="ignore")
    return f"{prefix}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def split(variant: str) -> list[str]:
    """The overrides in a folder's name, in canonical text, sorted."""
    parts = re.split(r",(?=[\w./@~+]+=)", variant.replace("%2F", "/")) if variant else []
    return sorted(map(canonical, parts))


def existing(home: Path, name: str, config: Config) -> str:
    """``name``, or the other name of this run's existing folder in ``home``, the folder of its curve.

    Older versions named folders as the command line spelled the overrides.
    """
    seed = f"seed{config.seed}"
    if not home.is_dir() or (home / name / seed / "run.json").exists():
        return name
    for path in find(home, "run.json"):
        if "=" not in (between := path.parent.parent.relative_to(home).as_posix()) and between != ".":
            continue  # a run that the user has put aside
        with suppress(ReproError):
            info = read_info(path.parent) if path.parent.name == seed else None
            if info is not None and not differences(info, config):
                return between
    return name


def register() -> None:
    """Register ``${variant:}`` with OmegaConf: the folder between a run's curve and its seed.

    It raises what ``resolve`` raises, before Hydra makes a folder for a run that cannot be trained.
    """

    def variant(*, _root_: DictConfig) -> str:
        task = copy.copy(_root_)
        with open_dict(task):
            del task["hydra"]
        config = resolve(task, _root_.hydra.overrides.task)
        try:
            name = folder_name(changes(_root_, _root_.hydra))
        except HydraException:  # composing the run fails for the same reason, and reports it
            return ""
        return existing(Path(config.output).expanduser() / config.scale.name / config.curve, name, config)

    OmegaConf.register_new_resolver("variant", variant, replace=True)
    OmegaConf.register_new_resolver("expanduser", lambda path: str(Path(path).expanduser()), replace=True)


def leaves_of(*overrides: str) -> _Leaves:
    """The keys that determine a run's results, as these command-line overrides compose them."""
    return _compose_leaves(GlobalHydra.instance().hydra, overrides)


@lru_cache(maxsize=256)
def _compose_leaves(hydra: object, overrides: tuple[str, ...]) -> _Leaves:
    """``leaves_of``, cached; ``hydra``, which has the search path, is part of the cache's key."""
    return _leaves(catalogue.composed(*overrides))


def _leaves(node: DictConfig) -> _Leaves:
    """The keys that determine a run's results, without Hydra's part."""
    found: _Leaves = {}

    def walk(values: dict[Any, Any], prefix: str) -> None:
        for name, value in values.items():
            key = f"{prefix}{name}"
            if isinstance(value, dict) and key != "hydra":
                walk(value, f"{key}.")
            elif key not in (*CIRCUMSTANCES, *APART, "hydra"):
                interpolated = isinstance(value, str) and "${" in value
                found[key] = value, OmegaConf.select(node, key) if interpolated else value

    walk(cast(dict[Any, Any], OmegaConf.to_container(node, resolve=False, enum_to_str=True)), "")
    return found


def canonical(override: str) -> str:
    """An override in its canonical spelling."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:  # text that is not an override is kept
        return override
    if parsed.is_sweep_override():  # its value is not one of a configuration: composing it names the fault
        return override
    return f"{parsed.get_key_element()}={spelled(parsed.value())}"


def override(key: str, value: Any) -> str:
    """An override that Hydra reads as ``value``, with quotes only where a text needs them."""
    if isinstance(value, str):
        plain = f"{key}={value}"
        with suppress(HydraException):
            if OverridesParser.create().parse_override(plain).value() == value:
                return plain
    return f"{key}={spelled(value)}"


def spelled(value: Any) -> str:
    """A value in Hydra's grammar, in its canonical spelling: 0.001 for 1e-3, 2 for 2.0."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list | tuple | ListConfig):
        return f"[{','.join(map(spelled, value))}]"
    if isinstance(value, dict | DictConfig):
        return "{" + ",".join(f"{k!s}:{spelled(v)}" for k, v in value.items()) + "}"
    text = str(value)
    is_plain = re.fullmatch(r"[A-Za-z_][\w.:/@%-]*", text, re.ASCII) and text.lower() not in NOT_TEXT
    if isinstance(value, str) and not is_plain:
        escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + m[2].replace("'", "\\'"), text)
        return f"'{escaped}'"
    return text
