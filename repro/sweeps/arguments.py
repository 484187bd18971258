"""The experiments and sweeps that a command line of ``repro.train`` names. Does not import torch."""

import json
from fnmatch import fnmatchcase
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from repro.config import catalogue
from repro.config.errors import ReproError
from repro.config.folders import CONF

FIGURE = "figure"  # conf/sweep/figure.yaml
HERE = ("local", "basic")  # launchers on this machine


def expand_sweep(arguments: list[str]) -> list[str]:
    """The arguments with ``sweep=<figure>`` as Hydra reads it: all curves of conf/experiment/<figure>, four seeds.

    A file of ``conf/sweep`` by that name goes first. A pattern of experiments becomes ``glob(<pattern>)``, which
    Hydra knows as a sweep. Raises ReproError for a name that is neither.
    """
    folders = [CONF, *catalogue.folders_of(arguments)]
    sweeps = {path.stem for folder in folders for path in (folder / "sweep").glob("*.yaml")} - {FIGURE}
    figures = {path.name for folder in folders for path in (folder / "experiment").glob("*") if path.is_dir()}
    expanded = []
    is_swept = any(a.startswith("sweep=") or (a.startswith("experiment=") and is_sweep(a)) for a in arguments)
    if not is_swept and not {"-m", "--multirun"} & set(arguments):
        for argument in arguments:
            require_here(argument)
    for argument in arguments:
        key, equals, name = argument.partition("=")
        if key == "experiment" and "*" in name and not set(name) & set(",("):
            argument = f"experiment=glob({name})"
        if is_swept and key.startswith(("schedule.lr.", "schedule.momentum.")):
            argument = f"++{argument}"  # Hydra composes the sweep first without the experiments that have the key
        if key != "sweep" or not equals or name in (*sweeps, "null"):
            expanded.append(argument)
        elif name in figures:
            expanded += [f"sweep={FIGURE}", f"hydra.sweeper.params.experiment={name}/*"]
        elif figures.issuperset(name.split(",")):
            several = ",".join(f"{figure}/*" for figure in name.split(","))
            raise ReproError(
                f"sweep={name}: it takes one name; for several, -m 'experiment={several}' 'seed=range(4)'"
            )
        else:
            raise ReproError(f"sweep={name}: no such sweep; choose from {', '.join(sorted(sweeps | figures))}")
    return expanded


def require_here(argument: str) -> None:
    """Raise ReproError for an argument that chooses a launcher which a single run does not use."""
    key, _, launcher = argument.partition("=")
    if key == "hydra/launcher" and launcher not in HERE:
        raise ReproError(f"{argument}: a single run is trained by this process; with -m it is launched there")


def is_sweep(argument: str) -> bool:
    """Whether an argument is an override with several values, or a pattern of experiments."""
    try:
        return (argument.startswith("experiment=") and "*" in argument) or (
            not argument.startswith("-") and OverridesParser.create().parse_override(argument).is_sweep_override()
        )
    except HydraException:
        return False  # Hydra reports it


def expand_experiments(override: Override, loader: ConfigLoader) -> list[str]:
    """The experiments that an override selects; patterns such as ``fig5a/*`` and ``glob(fig5a/*)`` are expanded.

    Raises ReproError for a pattern that matches nothing.
    """
    exclude: list[str] = []
    if isinstance(value := override.value(), Glob):
        include, exclude = value.include, value.exclude
    elif override.is_sweep_override():
        include = list(override.sweep_string_iterator())
    else:
        include = [override.get_value_element_as_str()]
    names: dict[str, None] = {}
    for pattern in include:
        matches = [pattern]
        if "*" in pattern:
            matches = [name for name in list_experiments(loader) if fnmatchcase(name, pattern)]
        if not matches:
            raise ReproError(f"{override.input_line}: nothing matches, so there is nothing to run")
        names |= dict.fromkeys(matches)
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude)]


def list_experiments(loader: ConfigLoader, folder: str = "") -> list[str]:
    """Every experiment on Hydra's search path, as <figure>/<curve>."""
    names = []
    group = f"experiment/{folder}".rstrip("/")
    for name in loader.get_group_options(group, ObjectType.GROUP):
        names += list_experiments(loader, f"{folder}{name}/")
    return names + [f"{folder}{name}" for name in loader.get_group_options(group, ObjectType.CONFIG)]


def as_typed(value: Any) -> str:
    """A value of YAML as Hydra reads it on a command line: null, not None."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_typed(v)}' for key, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
