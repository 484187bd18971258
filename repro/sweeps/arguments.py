"""What ``sweep=`` on a command line of ``repro.train`` means. No torch here."""

import json
from typing import Any

from repro.config import catalogue
from repro.config.errors import ReproError
from repro.config.folders import CONF

FIGURE = "figure"  # conf/sweep/figure.yaml


def expand_sweep(arguments: list[str]) -> list[str]:
    """The arguments with ``sweep=<figure>`` as Hydra reads it: all curves of conf/experiment/<figure>, four seeds.

    A file of ``conf/sweep`` by that name goes first. A pattern of experiments becomes ``glob(<pattern>)``, which
    Hydra knows as a sweep. Raises ReproError for a name that is neither.
    """
    folders = [CONF, *catalogue.folders_of(arguments)]
    sweeps = {path.stem for folder in folders for path in (folder / "sweep").glob("*.yaml")} - {FIGURE}
    figures = {path.name for folder in folders for path in (folder / "experiment").glob("*") if path.is_dir()}
    expanded = []
    is_swept = any(a.startswith("sweep=") or set(a.partition("experiment=")[2]) & set("*,(") for a in arguments)
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


def as_typed(value: Any) -> str:
    """A value of YAML as Hydra reads it on a command line: null, not None."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_typed(v)}' for key, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
