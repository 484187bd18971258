"""What the figures app can be told, checked, and what follows from it: places, names, commands."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from repro.config import Replicates, Scale, check_folders, refuse_unknown_keys, typed_keys
from repro.config.errors import ReproError
from repro.tracking import server

FORMATS = ["pdf", "svg", "png", "eps", "jpg", "webp"]


class Source(Enum):
    """Where the runs come from; the figure is the same from each."""

    local = "local"  # the records on disk
    wandb = "wandb"  # a W&B server, through the cache
    cache = "cache"  # what was pulled before; no network
    offline = "offline"  # W&B's offline files


@dataclass
class Tracking:
    """Where the runs are on W&B, said as in training."""

    entity: str | None = None  # null: WANDB_ENTITY, or wandb's default
    project: str | None = None  # null: WANDB_PROJECT, or disciplined-repro
    base_url: str | None = None  # null: WANDB_BASE_URL, or wandb's


@dataclass
class Wandb:
    """What else there is to say of W&B."""

    entity: str | None = None  # the former spelling of tracking.entity
    project: str | None = None  # of tracking.project
    base_url: str | None = None  # of tracking.base_url
    cache: str | None = None  # what was pulled; null is the user's cache folder
    artifact: bool = False  # log the figure's files there as an artifact


@dataclass
class App:
    """The figures app's configuration."""

    figures: dict[str, Any] = field(default_factory=dict)  # name -> repro.figures.drawing.Figure
    tables: dict[str, Any] = field(default_factory=dict)  # name -> repro.figures.tables.Table
    scale: Scale = field(default_factory=Scale)
    model: dict[str, Any] = field(default_factory=dict)  # what the scale changes in a run; not used in drawing
    dataset: dict[str, Any] = field(default_factory=dict)
    replicates: Replicates = Replicates.seeds
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3])  # what a complete curve has
    source: Source = Source.local
    output: str = "multirun_outputs"  # where the runs are: source=local
    path: str = "multirun_outputs"  # the folder of W&B's files: source=offline
    tracking: Tracking = field(default_factory=Tracking)  # source=wandb and source=cache
    wandb: Wandb = field(default_factory=Wandb)
    to: str = "paper_figures"  # where the figures go, in a folder a scale
    formats: list[str] = field(default_factory=lambda: ["pdf", "svg", "png"])
    variants: bool = False  # draw runs with further overrides too, each as a curve of its own
    reference: str | None = None  # a folder with the author's curves: CSV, or clones of his repositories
    reference_rescaled: bool = False  # overlay what was published at other scales than paper too
    edits: list[str] = field(
        default_factory=list
    )  # figures.KEY=VALUE, tables.KEY=VALUE of the command line, filled in by it


def register_schema() -> None:
    """Make ``App`` known to Hydra as ``figures_schema``, which ``conf/figures.yaml`` begins with."""
    ConfigStore.instance().store(name="figures_schema", node=App)


def settings_of(composed: DictConfig, overrides: Sequence[str]) -> App:
    """The typed settings. Raises ReproError for an unknown key, and for one that would be read and ignored."""
    refuse_unknown_keys(composed, App)
    config = cast(App, OmegaConf.to_object(composed))
    check_folders("scale.name", [config.scale.name])
    if not config.seeds or sorted({*config.seeds}) != sorted(config.seeds) or min(config.seeds) < 0:
        raise ReproError(f"seeds={config.seeds}: name every seed of a complete curve once, from 0 on")
    if unknown := [kind for kind in config.formats if kind not in FORMATS]:
        raise ReproError(f"formats: no {unknown[0]}; choose from {', '.join(FORMATS)}")
    read = {"output": Source.local, "path": Source.offline}
    for key in sorted(typed_keys(overrides)):
        if key.split(".")[0] in ("model", "dataset") or key.startswith("scale."):
            raise ReproError(f"{key}: runs are drawn as they were recorded; variants=true draws others too")
        if read.get(key, config.source) is not config.source:
            raise ReproError(f"{key}: only source={read[key].value} reads it, not {config.source.value}")
    config.edits += [o for o in overrides if o.lstrip("+~").startswith(("figures.", "tables."))]
    for key in vars(config.tracking):
        if (value := getattr(config.wandb, key)) is not None:
            print(f"note: wandb.{key} is tracking.{key} now, as in training", file=sys.stderr)
            setattr(config.tracking, key, getattr(config.tracking, key) or value)
    return config


def project_of(config: App) -> server.Project:
    """The project on W&B that the runs are in."""
    return server.find_project(config.tracking.entity, config.tracking.project, config.tracking.base_url)


def suffix(config: App) -> str:
    """The folder between a curve and its seeds where the replicates are not the default."""
    return "" if config.replicates is Replicates.seeds else f"replicates={config.replicates.value}"


def departures(config: App) -> dict[str, str]:
    """How a command line draws otherwise than ``conf/`` says: the mark in a file's name -> the option."""
    seeds = config.seeds if config.seeds != App().seeds else []
    options = {
        config.replicates.value: suffix(config),
        "variants": "variants=true" if config.variants else "",
        "-".join(["seeds", *map(str, seeds)]): f"seeds=[{','.join(map(str, seeds))}]" if seeds else "",
        "reference": f"reference={config.reference}" if config.reference else "",
        "rescaled": "reference_rescaled=true" if config.reference_rescaled else "",
        "edited": " ".join(map(shlex.quote, config.edits)),
    }
    return {mark: option for mark, option in options.items() if option}


def target_of(name: str, config: App) -> Path:
    """Where the files of a figure (or the page) go, without suffix: a departure overwrites no published file."""
    return Path(config.to) / config.scale.name / "-".join([name, *departures(config)])


def commands(what: str, config: App) -> list[str]:
    """The exact commands that train and draw ``what`` ("figure fig5b"), or the report of all ("report all")."""
    group, name = what.split()
    options = f"scale={config.scale.name} {suffix(config)}".strip()
    draw = "repro.report" if group == "report" else f"repro.figures {group}={name}"
    drawing = " ".join([f"scale={config.scale.name}", *departures(config).values()])
    if config.output != App().output:
        drawing += f" output={shlex.quote(config.output)}"
    if config.source is Source.offline:
        drawing += f" source=offline path={config.path}"
    elif config.source is not Source.local:
        project_options = "".join(
            f" tracking.{key}={value}" for key, value in vars(config.tracking).items() if value
        )
        drawing += f" source={config.source.value}{project_options}"
    return [
        f"python -m repro.train sweep={name} {options}",
        f"python -m {draw} {drawing}",
    ]
