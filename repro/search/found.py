"""What a search concludes, and its files: the table, the figure, and an experiment that ``repro.train`` takes."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from repro.config import catalogue
from repro.records.files import write_whole
from repro.search import drawing
from repro.search.runs import Base, Run, merged, momentum_words
from repro.search.settings import Common

CURVE_COLUMNS = ["setting", "seed", "iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy"]
EXPERIMENT = ["model", "dataset", "schedule", "regularization", "batch_size", "iterations", "test_every", "update"]
EXPERIMENT += ["test_at_start", "replicates"]  # the keys that are written


@dataclass
class Found:
    """What a method concludes."""

    method: str
    overrides: list[str]  # of repro.train, on top of the base's: a whole run; none where nothing is suggested
    chosen: dict[str, Any]  # name -> value, as they are told
    why: str
    notes: list[str]  # what is uncertain, a line each
    tried: pd.DataFrame  # a row a setting and seed
    curves: pd.DataFrame  # CURVE_COLUMNS: what is drawn
    runs: list[Run]  # every one that was trained
    x: str = "iteration"  # of the drawing
    marks: dict[str, float] = field(default_factory=dict)  # name -> where a line is drawn
    band: tuple[float, float] | None = None  # of the marked value, over the seeds
    parts: list["Found"] = field(default_factory=list)  # of a recipe: its searches
    base: Base | None = None  # where it is another than the command line's: that of a larger batch
    files: list[Path] = field(default_factory=list)
    command: str | None = None  # that trains what is suggested

    @property
    def cost(self) -> str:
        """Runs, epochs and time of all of them together."""
        seconds = sum(run.info.get("wall_seconds", 0.0) for run in self.runs)
        epochs = sum(run.epochs for run in self.runs)
        return f"{len(self.runs)} runs, {epochs:,.4g} epochs, {seconds / 60:,.1f} min of training"


def curves_of(runs: Sequence[tuple[str, Run]]) -> pd.DataFrame:
    """The rows of runs, each with the name of its setting."""
    frames = [run.rows.assign(setting=name, seed=run.config.seed) for name, run in runs]
    return pd.concat(frames, ignore_index=True)[CURVE_COLUMNS] if frames else pd.DataFrame(columns=CURVE_COLUMNS)


def finals_of(runs: Sequence[tuple[str, Run]]) -> pd.DataFrame:
    """A row a run, with the name of its setting: how it ended."""
    rows = [
        {
            "setting": name,
            "seed": run.config.seed,
            "status": run.info["status"],
            "final_loss": run.final("test_loss"),
            "final_accuracy": run.final("test_accuracy"),
        }
        for name, run in runs
    ]
    return pd.DataFrame(rows)


def told_value(value: Any) -> str:
    """A chosen value in words: a list is a momentum."""
    if isinstance(value, list):
        return momentum_words(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def write(found: Found, base: Base, settings: Common) -> Path:
    """Write ``<method>.csv`` (what was tried), ``-curves.csv``, ``.png``, ``.svg`` and the experiment.

    It returns their folder. Raises OSError.
    """
    folder = base.folder if settings.to is None else Path(settings.to).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / found.method
    write_whole(Path(f"{target}.csv"), found.tried.to_csv(index=False))
    write_whole(Path(f"{target}-curves.csv"), found.curves.to_csv(index=False))
    found.files = [Path(f"{target}.csv"), Path(f"{target}-curves.csv")]
    if len(found.curves):
        drawing.save(found, target)
        found.files += [Path(f"{target}.png"), Path(f"{target}.svg")]
    if found.overrides:
        name = settings.name or f"{base.name}/{found.method}"
        path = folder / "experiment" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        composed = catalogue.composed(*merged((found.base or base).overrides, found.overrides))
        write_whole(path, experiment(found.base or base, found, composed))
        found.files.append(path)
        said = [] if base.config.scale.name == "paper" else [f"scale={base.config.scale.name}"]
        said.insert(0, f"experiment={name}")
        said += _undone(composed, catalogue.composed(f"hydra.searchpath=[file://{folder.resolve()}]", *said))
        words = ["python", "-m", "repro.train", "--config-dir", str(folder), *said]
        found.command = " ".join(map(shlex.quote, words))
    return folder


def _undone(wanted: Any, composed: Any) -> list[str]:
    """The overrides of what a scale changes in the experiment that was written: ``dataset.resolution=16``."""
    values, others = _flat(values_of(wanted)), _flat(values_of(composed))
    return [f"{key}={_word(value)}" for key, value in values.items() if others.get(key) != value]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _word(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict | bool | None) else str(value)


def values_of(composed: Any) -> dict[str, Any]:
    """What an experiment says of a composed run."""
    values: Any = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    values = {key: values[key] for key in EXPERIMENT}
    del values["dataset"]["cache"], values["dataset"]["digest"]
    values["model"]["name"] = values["model"].pop("factory") or values["model"]["name"]
    return values  # type: ignore[no-any-return]


def experiment(base: Base, found: Found, composed: Any) -> str:
    """The ``composed`` run that a search suggests as a file of ``conf/experiment``, for any defaults."""
    said = merged(base.overrides, found.overrides)
    schedule = next(o.partition("=")[2] for o in said if o.startswith("schedule="))
    lines = [
        "# @package _global_",
        f"# Found by python -m repro.search method={found.method} {' '.join(map(shlex.quote, base.overrides))}",
        f"# {found.why}. It cost {found.cost}.",
        *(f"# {note}" for note in found.notes),
        "defaults:",
        f"  - override /schedule: {schedule}",
        OmegaConf.to_yaml(OmegaConf.create(values_of(composed))).rstrip(),
    ]
    return "\n".join(lines) + "\n"
