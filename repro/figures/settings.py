"""The settings of the figures app, their checks, and the paths, names and commands that follow from them."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from repro.config import Replicates, Scale, catalogue, check_folders, refuse_unknown_keys, typed_keys
from repro.config.errors import ReproError
from repro.records import naming
from repro.tracking import server

FORMATS = ["pdf", "svg", "png", "eps", "jpg", "webp"]


class Source(Enum):
    """The source of the runs; the figure is the same from each."""

    local = "local"  # the records on disk
    wandb = "wandb"  # a W&B server, through the cache
    cache = "cache"  # what was pulled before; no network
    offline = "offline"  # W&B's offline files


@dataclass
class Tracking:
    """The location of the runs on W&B, with the same keys as in training."""

    entity: str | None = None  # null: WANDB_ENTITY, or wandb's default
    project: str | None = None  # null: WANDB_PROJECT, or disciplined-repro
    base_url: str | None = None  # null: WANDB_BASE_URL, or wandb's


@dataclass
class Wandb:
    """Further W&B settings."""

    entity: str | None = None  # the former spelling of tracking.entity
    project: str | None = None  # of tracking.project
    base_url: str | None = None  # of tracking.base_url
    cache: str | None = None  # folder for pulled runs; null is the user's cache folder
    artifact: bool = False  # log the figure's files there as an artifact


@dataclass
class App:
    """The figures app's configuration."""

    figures: dict[str, Any] = field(default_factory=dict)  # name -> repro.figures.figure.Figure
    tables: dict[str, Any] = field(default_factory=dict)  # name -> repro.figures.tables.Table
    scale: Scale = field(default_factory=Scale)
    model: dict[str, Any] = field(default_factory=dict)  # set by the scale; not used for drawing
    dataset: dict[str, Any] = field(default_factory=dict)
    replicates: Replicates = Replicates.seeds
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3])  # of a complete curve
    source: Source = Source.local
    output: str = "multirun_outputs"  # the folder of the runs, for source=local
    path: str = "multirun_outputs"  # the folder of W&B's files, for source=offline
    tracking: Tracking = field(default_factory=Tracking)  # for source=wandb and source=cache
    wandb: Wandb = field(default_factory=Wandb)
    to: str = "paper_figures"  # the folder for the figures, with one subfolder per scale
    formats: list[str] = field(default_factory=lambda: ["pdf", "svg", "png"])
    variants: bool = False  # also draw runs with further overrides, each variant as a separate curve
    reference: str | None = None  # a folder with the author's curves: CSV, or clones of his repositories
    reference_rescaled: bool = False  # overlay published curves at scales other than paper, too
    edits: list[str] = field(default_factory=list)  # filled in: overrides figures.KEY=VALUE and tables.KEY=VALUE


def register_schema() -> None:
    """Register ``App`` with Hydra as ``figures_schema``, which ``conf/figures.yaml`` extends."""
    ConfigStore.instance().store(name="figures_schema", node=App)


def settings_of(composed: DictConfig, overrides: Sequence[str]) -> App:
    """The typed settings. Raises ReproError for an unknown key, and for an override that would be ignored."""
    refuse_unknown_keys(composed, App)
    config = cast(App, OmegaConf.to_object(composed))
    check_folders("scale.name", [config.scale.name])
    config.output, config.path, config.to = (
        str(Path(folder).expanduser()) for folder in (config.output, config.path, config.to)
    )
    if not config.seeds or sorted({*config.seeds}) != sorted(config.seeds) or min(config.seeds) < 0:
        raise ReproError(f"seeds={config.seeds}: list every seed of a complete curve once, from 0 on")
    if not config.formats:
        raise ReproError(f"formats=[]: choose from {', '.join(FORMATS)}")
    if unknown := [kind for kind in config.formats if kind not in FORMATS]:
        raise ReproError(f"formats: no {unknown[0]}; choose from {', '.join(FORMATS)}")
    config.formats = list(dict.fromkeys(config.formats))
    read_by = {"output": Source.local, "path": Source.offline}
    for key in sorted(typed_keys(overrides)):
        if key.split(".")[0] in ("model", "dataset") or key.startswith("scale."):
            raise ReproError(f"{key}: runs are drawn as they were recorded; variants=true draws others too")
        if read_by.get(key, config.source) is not config.source:
            raise ReproError(f"{key}: only source={read_by[key].value} reads it, not {config.source.value}")
    plain = [override.lstrip("+") for override in overrides]
    config.edits += [o for o in plain if o.lstrip("~").startswith(("figures.", "tables."))]
    for key in vars(config.tracking):
        if (value := getattr(config.wandb, key)) is not None:
            print(f"note: wandb.{key} is tracking.{key} now, as in training", file=sys.stderr)
            setattr(config.tracking, key, getattr(config.tracking, key) or value)
    return config


def project_of(config: App) -> server.Project:
    """The W&B project that holds the runs."""
    return server.find_project(config.tracking.entity, config.tracking.project, config.tracking.base_url)


def suffix(config: App) -> str:
    """The folder between a curve and its seeds, "" for the default replicates."""
    return "" if config.replicates is Replicates.seeds else f"replicates={config.replicates.value}"


def departures(config: App) -> dict[str, str]:
    """The options that make a drawing differ from ``conf/``: mark in the file's name -> option."""
    seeds = config.seeds if config.seeds != App().seeds else []
    options = {
        config.replicates.value: suffix(config),
        "variants": "variants=true" if config.variants else "",
        "-".join(["seeds", *map(str, seeds)]): _option("seeds", seeds) if seeds else "",
        "reference": _option("reference", config.reference) if config.reference else "",
        "rescaled": "reference_rescaled=true" if config.reference_rescaled else "",
        "edited": " ".join(map(shlex.quote, config.edits)),
    }
    return {mark: option for mark, option in options.items() if option}


def target_of(name: str, config: App) -> Path:
    """The path of a figure's files (or the page), without suffix; a departure overwrites no published file."""
    return Path(config.to) / config.scale.name / "-".join([name, *departures(config)])


def selected(overrides: Sequence[str]) -> dict[str, list[str]]:
    """The figures and tables that a command line names, by group ("figure", "table"); empty if it names none."""
    named = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if (group := override.get_key_element()) in ("figure", "table"):
            value = override.value()
            named[group] = [str(name) for name in value] if isinstance(value, list) else [str(value)]
    return named


def commands(what: str, config: App) -> list[str]:
    """The exact commands that train and draw ``what`` ("figure fig5b")."""
    group, name = what.split()
    seeds = [f"seed={','.join(map(str, config.seeds))}"] if config.seeds != App().seeds else []
    options = [f"scale={config.scale.name}", suffix(config), *seeds]
    if config.source is Source.local and config.output != App().output:
        options.append(_option("output", config.output))
    train = " ".join(["python -m repro.train", f"sweep={name}", *filter(None, options), *_search_path()])
    return [train, " ".join([f"python -m repro.figures {group}={name}", *_drawing(config)])]


def report_command(named: dict[str, list[str]], config: App) -> str:
    """The exact command of the report of what is ``selected``."""
    choices = [_option(group, names if len(names) > 1 else names[0]) for group, names in named.items()]
    return " ".join(["python -m repro.report", *_drawing(config), *choices])


def page_name(named: dict[str, list[str]]) -> str:
    """The name of the report of what is ``selected``: "index", or, of a part, "index-<names>"."""
    figures, tables = named.get("figure", []), named.get("table", [])
    parts = ["figures"] if figures == ["all"] else figures
    parts = [*parts, *(["tables"] if tables == ["all"] else tables)]
    return "index" if parts in ([], ["figures"], ["figures", "tables"]) else "-".join(["index", *parts])


def _drawing(config: App) -> list[str]:
    """The options of the commands that draw."""
    options = [f"scale={config.scale.name}", *departures(config).values()]
    if config.output != App().output:
        options.append(_option("output", config.output))
    if config.source is Source.offline:
        options += ["source=offline", _option("path", config.path)]
    elif config.source is not Source.local:
        options.append(f"source={config.source.value}")
        options += [_option(f"tracking.{key}", value) for key, value in vars(config.tracking).items() if value]
    return options + _search_path()


def _search_path() -> list[str]:
    """The option that adds the folders which this command reads beside ``conf/``."""
    return [shlex.quote(override) for override in catalogue.search_path()]


def _option(key: str, value: object) -> str:
    """An override that a shell and Hydra read as ``value``, with no more quotes than it needs."""
    text = naming.override(key, value)
    is_plain = text == f"{key}={value}" and isinstance(value, str)
    return shlex.quote(text) if is_plain or set(text) & set('"$`\\!') else f'"{text}"'


def add_missing_keys(arguments: list[str]) -> list[str]:
    """The arguments, with ``++`` before figures.NAME.KEY=VALUE, which adds a key that the figure's file lacks."""
    return [f"++{a}" if a.startswith(("figures.", "tables.")) else a for a in arguments]
