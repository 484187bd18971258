"""The files of a search: the table, the figure, and an experiment that ``repro.train`` takes."""

import os
import shlex
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from repro import schedules
from repro.config import catalogue
from repro.config.errors import ReproError, dotted, system_error
from repro.records import naming
from repro.records.files import write_whole
from repro.search import drawing
from repro.search.found import Found
from repro.search.runs import Base, merged
from repro.search.settings import Common

EXPERIMENT = ["model", "dataset", "schedule", "regularization", "batch_size", "iterations", "test_every", "update"]
EXPERIMENT += ["test_at_start", "replicates"]  # the keys that are written
HEAD = ["# @package _global_", "# Found by "]  # how the experiment of a search begins


def make_folder(base: Base, settings: Common, method: str) -> Path:
    """The folder for what a search writes, made if it is missing.

    Raises ReproError where that fails, and if the experiment would replace a file that no search has written.
    """
    folder = base.folder if settings.to is None else Path(settings.to).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        key = "output" if settings.to is None else "search.to"
        raise ReproError(f"{key}: {system_error(error, 'then run the same command again')}") from None
    path = _experiment_file(folder, base, settings, method)
    if path.exists() and not _is_found(path):
        raise ReproError(f"{path} is not of a search and would be replaced; set search.name= to another name")
    return folder


def _experiment_file(folder: Path, base: Base, settings: Common, method: str) -> Path:
    return folder / "experiment" / f"{settings.name or f'{base.name}/{method}'}.yaml"


def _is_found(path: Path) -> bool:
    """Whether a search has written this file."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return len(lines) > 1 and lines[0] == HEAD[0] and lines[1].startswith(HEAD[1])


def write(found: Found, base: Base, settings: Common) -> Path:
    """Write ``<method>.csv`` (what was tried), ``-curves.csv``, ``.png``, ``.svg`` and the experiment.

    If nothing is suggested, the experiment of an earlier search is removed. It returns their folder. Raises
    ReproError and OSError.
    """
    folder = make_folder(base, settings, found.method)
    path = _experiment_file(folder, base, settings, found.method)
    if not found.overrides:
        path.unlink(missing_ok=True)
    target = folder / found.method
    write_whole(Path(f"{target}.csv"), found.tried.to_csv(index=False))
    write_whole(Path(f"{target}-curves.csv"), found.curves.to_csv(index=False))
    found.files = [Path(f"{target}.csv"), Path(f"{target}-curves.csv")]
    if len(found.curves):
        drawing.save(found, target)
        found.files += [Path(f"{target}.png"), Path(f"{target}.svg")]
    if found.overrides:
        name = settings.name or f"{base.name}/{found.method}"
        path.parent.mkdir(parents=True, exist_ok=True)
        composed = catalogue.composed(*merged((found.base or base).overrides, found.overrides))
        write_whole(path, experiment(found.base or base, found, composed))
        found.files.append(path)
        arguments = [] if base.config.scale.name == "paper" else [f"scale={base.config.scale.name}"]
        arguments.insert(0, f"experiment={name}")
        own = catalogue.added_folders()
        place = naming.spelled([f"file://{folder.resolve()}", *own])
        arguments += _undone(composed, catalogue.composed(f"hydra.searchpath={place}", *arguments))
        arguments += [f"hydra.searchpath={naming.spelled(own)}"] if own else []
        words = ["python", "-m", "repro.train", "--config-dir", str(folder), *arguments]
        found.command = " ".join(map(shlex.quote, words))
    return folder


def _undone(wanted: Any, composed: Any) -> list[str]:
    """The overrides of what a scale changes in the experiment that was written: ``dataset.resolution=16``."""
    own, other = (OmegaConf.create(values_of(made)) for made in (wanted, composed))
    values = {key: OmegaConf.select(own, key) for key in dotted(own)}
    return [f"{k}={naming.spelled(value)}" for k, value in values.items() if OmegaConf.select(other, k) != value]


def values_of(composed: Any) -> dict[str, Any]:
    """What an experiment says of a composed run."""
    values: Any = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    engine = values["engine"]
    values = {key: values[key] for key in EXPERIMENT}
    del values["dataset"]["cache"], values["dataset"]["digest"]
    for part, settings in values["schedule"].items():
        # Not what other shapes take, which an experiment may leave; nor the shape: schedule= may change it.
        known = schedules.declared(f"schedule.{part}", settings) - {"shape"}
        values["schedule"][part] = {key: value for key, value in settings.items() if key in known}
    values["schedule"]["momentum"].pop("step_size", None)  # that of the LR, also where it is given anew
    values["engine"] = {"precision": engine["precision"]}  # all of it that determines the results
    values["model"]["name"] = values["model"].pop("factory") or values["model"]["name"]
    return values  # type: ignore[no-any-return]


def experiment(base: Base, found: Found, composed: Any) -> str:
    """The ``composed`` run that a search suggests as a file of ``conf/experiment``, for any defaults."""
    overrides = merged(base.overrides, found.overrides)
    schedule = next(o.partition("=")[2] for o in overrides if o.startswith("schedule="))
    lines = [
        HEAD[0],
        f"{HEAD[1]}{found.search}",
        f"# {found.why}. It cost {found.cost}.",
        *(f"# {note}" for note in found.notes),
        "defaults:",
        f"  - override /schedule: {schedule}",
        OmegaConf.to_yaml(OmegaConf.create(values_of(composed))).rstrip(),
    ]
    return "\n".join(lines) + "\n"
