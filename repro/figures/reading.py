"""Which figure or table, and its runs, from any source: ``load`` for notebooks, the rest for drawing."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from repro.config.errors import ReproError, describe, no_such_key, one_line
from repro.config.folders import CONF, cache_folder
from repro.figures.settings import (
    App,
    Source,
    add_missing_keys,
    commands,
    project_of,
    register_schema,
    settings_of,
    suffix,
)

if TYPE_CHECKING:
    from repro.figures.figure import Figure
    from repro.figures.tables import Table
    from repro.records.runs import Runs


def load(figure: str, *overrides: str) -> "Runs":
    """The runs of a figure or table from any source, as ``python -m repro.figures figure=<figure>`` reads them.

    Its ``frame`` has one row per test: curve, seed, status, iteration, lr, momentum, train_loss, test_loss,
    test_accuracy (a fraction), images_per_second. ``info`` is each run's ``run.json`` by (curve, seed); ``broken``
    has one line for each excluded run, ``notes`` one for each choice among several runs.

    Raises ReproError if there is no run, and for an unknown figure, scale or setting.
    """
    from repro.config import catalogue

    folders = [CONF, *catalogue.folders_of(overrides)]
    found = [g for g in ("figure", "table") for folder in folders if (folder / g / f"{figure}.yaml").exists()]
    group = found[0] if found else "figure"
    register_schema()
    try:
        with catalogue.hydra_of_our_own():
            all_overrides = [f"{group}={figure}", *add_missing_keys(list(overrides))]
            composed = compose("figures", all_overrides, return_hydra_config=True)
            HydraConfig.instance().set_config(composed)  # the records are compared with the added folders too
            with open_dict(composed):
                del composed["hydra"]
            if list(composed[f"{group}s"]) != [figure]:
                raise ReproError(f"{group}={figure}: load reads one figure at a time")
            config = settings_of(composed, overrides)
            chosen = typed_node(group, figure, composed[f"{group}s"][figure])
            return collect(f"{group} {figure}", homes_of(chosen, folders), config)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ReproError(describe(error)) from None


def typed_node(group: str, name: str, node: DictConfig, is_chosen: bool = True) -> "Figure | Table":
    """The figure or table that a node of the configuration describes; ``group`` is "figure" or "table".

    Raises ReproError for an unknown key, an impossible value, and a node that only overrides have made, because
    the figure is not among those that the command draws (not ``is_chosen``).
    """
    from repro.figures import claims
    from repro.figures.figure import Figure, require_drawable
    from repro.figures.tables import Table

    key = f"{group}s.{name}"
    schema = Figure if group == "figure" else Table
    required = [field.name for field in dataclasses.fields(schema) if field.default == MISSING]
    if not is_chosen and any(k not in node for k in required):  # it has what an override edits, and nothing else
        raise ReproError(f"{key}: {group}={name} is not among what this command draws")
    known = [field.name for field in dataclasses.fields(schema)]
    for unknown in [str(k) for k in node if k not in known]:
        raise ReproError(no_such_key(f"{key}.{unknown}", [f"{key}.{k}" for k in known]))
    try:
        typed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), node))
    except OmegaConfBaseException as error:
        line, inner = one_line(error), str(error.full_key or "")
        raise ReproError(f"{key}: {'' if inner in line else f'{inner}: '}{line}") from None
    if isinstance(typed, Figure):
        require_drawable(typed, key)
    else:
        claims.require_rules(typed.claims, key)
    return cast("Figure | Table", typed)


def homes_of(chosen: "Figure | Table", sources: list[Path]) -> dict[str, str]:
    """The curves of a figure, or the rows of a table that are experiments: name -> whose runs it shows."""
    from repro.config import catalogue
    from repro.figures import tables

    if not isinstance(chosen, tables.Table):
        return catalogue.curves(chosen.experiments, sources)
    folders = dict.fromkeys(group.experiments for group in chosen.groups.values())
    homes = {f"{folder}/{c}": home for folder in folders for c, home in catalogue.curves(folder, sources).items()}
    return {curve: homes[curve] for curve, *_ in tables.rows(chosen) if curve in homes}


def collect(what: str, homes: dict[str, str], config: App) -> "Runs":
    """The runs of ``what`` ("figure fig5b"), whose curves are ``homes`` (name -> whose runs it shows).

    Runs that are broken, or whose values differ from the current ``conf/``, are excluded and named in ``broken``.
    Raises ReproError if no run has a test.
    """
    from repro.records import runs

    scale = config.scale.name
    if not homes:
        raise ReproError(f"{what}: conf/experiment has no curves of it")
    found = _read(homes, config)
    has_unreadable = bool(found.broken)
    for (curve, seed), problem in runs.outdated(found, scale).items():
        found.broken.append(
            f"{what}: {curve} seed {seed} was trained with other values than conf/ has now ({problem}) and "
            "is excluded; force=true trains it again"
        )
        found.drop(curve, seed)
    if found.frame.empty:
        place = f"at scale {scale} in {found.place}"
        problem = f"no runs {place}; {commands(what, config)[0]} trains them"
        if has_unreadable and config.source is Source.wandb:
            problem = f"no run {place} is complete; run the same command again to pull them once more"
        elif found.info:
            problem = f"none of the runs {place} has reached its first test yet"
        raise ReproError("\n".join([*found.broken, f"{what}: {problem}"]))
    return found


def _read(homes: Mapping[str, str], config: App) -> "Runs":
    """The runs of every curve (name -> whose runs it shows) from the configured source."""
    from repro.records import runs

    scale, own = config.scale.name, suffix(config)
    if config.source is Source.local:
        folders = {curve: Path(config.output) / scale / home for curve, home in homes.items()}
        figure_runs = runs.local(folders, config.variants, own)
        figure_runs.place = config.output
        return figure_runs
    from repro.tracking import pull

    project = project_of(config)
    cache = cache_folder(config.wandb.cache) / "wandb"
    if config.source is Source.offline:
        pulled_runs, source = pull.offline(Path(config.path)), config.path
    elif config.source is Source.cache:
        pulled_runs, source = pull.cached(project, cache), f"the cache of {project}"
    else:
        pulled_runs, source = pull.server(project, list(homes.values()), cache), str(project)
    figure_runs = runs.pulled(pulled_runs, homes, scale, own, config.variants)
    figure_runs.place = f"{source} ({figure_runs.counts})"
    return figure_runs
