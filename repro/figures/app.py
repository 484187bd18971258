"""Draw figures from recorded runs and judge their claims: the Hydra app ``python -m repro.figures``."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro.config import Replicates, Scale, check_folders, refuse_unknown_keys, typed_keys
from repro.config.errors import ReproError, one_line, run_app
from repro.config.folders import CONF, cache_folder
from repro.figures import captions
from repro.figures.captions import Drawn
from repro.tracking import server

if TYPE_CHECKING:
    import pandas as pd

    from repro.figures.drawing import Figure
    from repro.records.runs import Runs


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
    edits: list[str] = field(default_factory=list)  # figures.KEY=VALUE of the command line; it fills them in


def register_schema() -> None:
    """Make ``App`` known to Hydra as ``figures_schema``, which ``conf/figures.yaml`` begins with."""
    ConfigStore.instance().store(name="figures_schema", node=App)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="figures")
def app(composed: DictConfig) -> None:
    """Draw every chosen figure; say what it shows and what is missing."""
    errors = []
    for drawn in figures(composed, settings(composed, HydraConfig.get().overrides.task)):
        if isinstance(drawn, str):
            errors.append(drawn)
            continue
        errors += drawn.errors
        print(f"\n{drawn.figure.title}\n{drawn.subtitle}\n")
        print("\n".join(captions.described(drawn)))
        kinds = sorted(path.name.removeprefix(f"{drawn.name}.") for path in written(drawn))
        print(f"wrote {drawn.target}.* ({', '.join(kinds)})")
    fail(errors)


def load(figure: str, *overrides: str) -> "Runs":
    """The runs of a figure from any source, as ``python -m repro.figures figure=<figure> <overrides>`` reads them.

    Its ``frame`` has a row a test: curve, seed, status, iteration, lr, momentum, train_loss, test_loss,
    test_accuracy (a fraction), images_per_second. ``info`` is each run's ``run.json`` by (curve, seed); ``broken``
    and ``notes`` say in a line each what was left out and what was chosen among several.

    Raises ReproError where there is no run, and for an unknown figure, scale or setting.
    """
    from repro.config import catalogue

    register_schema()
    try:
        with catalogue.hydra_of_our_own():
            composed = compose("figures", [f"figure={figure}", *overrides])
            config = settings(composed, overrides)
            return collect(figure, _single(composed, figure), config, [CONF])[0]
    except (HydraException, OmegaConfBaseException) as error:
        raise ReproError(one_line(error)) from None


def _single(composed: DictConfig, figure: str) -> "Figure":
    if list(composed.figures) != [figure]:
        raise ReproError(f"figure={figure}: load reads one figure at a time")
    return _figure(composed.figures[figure])


def settings(composed: DictConfig, overrides: Sequence[str]) -> App:
    """The typed settings. Raises ReproError for an unknown key, and for one that would be read and ignored."""
    refuse_unknown_keys(composed, App)
    config = cast(App, OmegaConf.to_object(composed))
    check_folders("scale.name", [config.scale.name])
    if not config.seeds or sorted({*config.seeds}) != sorted(config.seeds) or min(config.seeds) < 0:
        raise ReproError(f"seeds={config.seeds}: name every seed of a complete curve once, from 0 on")
    if unknown := [kind for kind in config.formats if kind not in FORMATS]:
        raise ReproError(f"formats: no {unknown[0]}; there are {', '.join(FORMATS)}")
    read = {"output": Source.local, "path": Source.offline}
    for key in sorted(typed_keys(overrides)):
        if key.split(".")[0] in ("model", "dataset") or key.startswith("scale."):
            raise ReproError(f"{key}: runs are drawn as they were recorded; variants=true draws others too")
        if read.get(key, config.source) is not config.source:
            raise ReproError(f"{key}: only source={read[key].value} reads it, not {config.source.value}")
    config.edits += [o for o in overrides if o.lstrip("+~").startswith("figures.")]
    for key in vars(config.tracking):
        if (value := getattr(config.wandb, key)) is not None:
            print(f"note: wandb.{key} is tracking.{key} now, as in training", file=sys.stderr)
            setattr(config.tracking, key, getattr(config.tracking, key) or value)
    return config


def _figure(node: DictConfig) -> "Figure":
    from repro.figures.drawing import Figure

    return cast(Figure, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Figure), node)))


def figures(composed: DictConfig, config: App) -> Iterator[Drawn | str]:
    """Every figure of a composed configuration, drawn; or the line that says why it cannot be."""
    sources = [Path(s.path) for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    for name, node in composed.figures.items():
        figure = _figure(node)
        try:
            yield make(name, figure, config, sources)
        except ReproError as error:
            yield str(error)


def collect(name: str, figure: "Figure", config: App, sources: list[Path]) -> "tuple[Runs, dict[str, str]]":
    """The runs of a figure, and its curves (name -> whose runs it shows).

    What is broken, or was trained with other values than ``conf/`` has now, is left out and named in ``broken``.
    Raises ReproError where there is no run with a test.
    """
    from repro.config import catalogue
    from repro.records import runs

    scale = config.scale.name
    homes = catalogue.curves(figure.experiments, sources)
    if not homes:
        raise ReproError(f"figure {name}: no curves in conf/experiment/{figure.experiments}")
    figure_runs = read(homes, config)
    for (curve, seed), problem in runs.outdated(figure_runs, scale).items():
        figure_runs.broken.append(
            f"figure {name}: {curve} seed {seed} was trained with other values than conf/ has now ({problem}) and "
            "is left out; force=true trains it again"
        )
        figure_runs.drop(curve, seed)
    if figure_runs.frame.empty:
        where = f"at scale {scale} in {figure_runs.place}"
        none = f"no runs {where}; {commands(name, config)[0]} trains them"
        if figure_runs.info:
            none = f"none of the runs {where} has come to its first test yet"
        raise ReproError("\n".join([*figure_runs.broken, f"figure {name}: {none}"]))
    return figure_runs, homes


def make(name: str, figure: "Figure", config: App, sources: list[Path]) -> Drawn:
    """Read, draw, judge and write one figure. Raises ReproError where there is no run to draw."""
    from repro.figures import claims, printed, reference
    from repro.figures.drawing import draw, save

    scale = config.scale.name
    figure_runs, homes = collect(name, figure, config, sources)
    unknown = [c for c in figure.curves if c not in homes]
    errors = [f"figure {name}: curves.{c}: no conf/experiment/{figure.experiments}/{c}.yaml" for c in unknown]
    errors += figure_runs.broken
    exact = commands(name, config)
    order = [c for c in figure.curves if c in homes] + sorted(set(homes) - set(figure.curves))
    order += sorted(set(figure_runs.frame["curve"]) - set(order))
    expected = {curve: config.seeds if curve in homes else [] for curve in order}
    labels, notes = captions.describe(figure_runs, expected, figure.curves)
    notes = figure_runs.notes + notes
    overlays = scale == "paper" or config.reference_rescaled
    print_ = printed.load(name, figure.y, sources) if overlays else None
    if print_ is not None and print_.empty:
        print_ = None
    references: dict[str, pd.DataFrame] = {}
    if config.reference and overlays:
        try:
            references = reference.load(Path(config.reference), name, order, figure.logs)
        except ReproError as error:
            errors.append(str(error))
    elif config.reference:
        notes.append("note: the author's curves are drawn at paper scale, or with reference_rescaled=true")
    subtitle = f"{scale} scale: {captions.note(figure_runs)}"
    target = target_of(name, config)
    save(draw(figure_runs, labels, figure, subtitle, references, print_, overlays), target, config.formats)
    judged = claims.table(figure.claims, figure_runs.frame, len(config.seeds), scale)
    results = captions.results(figure_runs, labels)
    if print_ is not None:
        results.notes.append(captions.described_print(figure))
    tables = [results, captions.beside(figure_runs, figure, scale, print_), captions.verdicts(judged)]
    tables = [table for table in tables if table.rows]
    drawn = Drawn(target.name, figure, figure_runs, target, subtitle, exact, tables, judged, notes, errors)
    # The same runs give the same files on every machine: a speed stays in its record and in the report.
    figure_runs.frame.drop(columns="images_per_second").to_csv(f"{target}.csv", index=False)
    judged.to_csv(f"{target}.claims.csv", index=False)
    Path(f"{target}.md").write_text(captions.caption(drawn))
    if config.wandb.artifact:
        from repro.tracking import mirror

        url = mirror.log_figure(drawn.name, scale, written(drawn), project_of(config))
        drawn.notes.append(f"note: the files are an artifact of {url}")
    return drawn


def fail(errors: list[str]) -> None:
    """Exit with code 1 after a line for everything that went wrong, if anything did."""
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if errors:
        sys.exit(1)


def read(homes: Mapping[str, str], config: App) -> "Runs":
    """The runs of every curve (name -> whose runs it shows) from the configured source."""
    from repro.records import runs

    scale, own = config.scale.name, suffix(config)
    if config.source is Source.local:
        folders = {curve: Path(config.output) / scale / home / own for curve, home in homes.items()}
        figure_runs = runs.local(folders, config.variants)
        figure_runs.place = config.output
        return figure_runs
    from repro.tracking import pull

    project = project_of(config)
    cache = cache_folder(config.wandb.cache) / "wandb"
    if config.source is Source.offline:
        there, source = pull.offline(Path(config.path)), config.path
    elif config.source is Source.cache:
        there, source = pull.cached(project, cache), f"the cache of {project}"
    else:
        there, source = pull.server(project, list(homes.values()), cache), str(project)
    figure_runs = runs.pulled(there, homes, scale, own, config.variants)
    figure_runs.place = f"{source} ({figure_runs.counts})"
    return figure_runs


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


def commands(name: str, config: App) -> list[str]:
    """The exact commands that train and draw a figure."""
    options = f"scale={config.scale.name} {suffix(config)}".strip()
    drawing = " ".join([f"scale={config.scale.name}", *departures(config).values()])
    if config.source is Source.offline:
        drawing += f" source=offline path={config.path}"
    elif config.source is not Source.local:
        where = "".join(f" tracking.{key}={value}" for key, value in vars(config.tracking).items() if value)
        drawing += f" source={config.source.value}{where}"
    return [
        f"python -m repro.train sweep={name} {options}",
        f"python -m repro.figures figure={name} {drawing}",
    ]


def written(drawn: Drawn) -> list[Path]:
    """The files of a figure."""
    return list(drawn.target.parent.glob(f"{drawn.name}.*"))


def main() -> None:
    """The console script ``repro-figures``."""
    register_schema()
    run_app(app)
