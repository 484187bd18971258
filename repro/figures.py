"""Draw figures from recorded runs and judge their claims: the Hydra app ``python -m repro.figures``."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from repro.config import CONF, Replicates, ReproError, Scale, cache_folder, run_app

if TYPE_CHECKING:
    import pandas as pd

    from repro.drawing import Figure
    from repro.runs import Runs
    from repro.tracking import Place


FINAL = "final: mean over the last 3 tests of a run; ± is the standard deviation over seeds"
BAND = "Mean over seeds, band of one sample standard deviation; below, the learning rate and momentum recorded."


class Source(Enum):
    """Where the runs come from; the figure is the same from each."""

    local = "local"  # the records on disk
    wandb = "wandb"  # a W&B server, through the cache
    cache = "cache"  # what was pulled before; no network
    offline = "offline"  # W&B's offline files


@dataclass
class Wandb:
    """Where the runs are on W&B."""

    entity: str | None = None  # null: WANDB_ENTITY, or wandb's default
    project: str | None = None  # null: WANDB_PROJECT, or disciplined-repro
    base_url: str | None = None  # null: WANDB_BASE_URL, or wandb's
    cache: str | None = None  # what was pulled; null is the user's cache folder
    artifact: bool = False  # log the figure's files there as an artifact


@dataclass
class App:
    """The figures app's configuration."""

    figures: dict[str, Any] = field(default_factory=dict)  # name -> repro.drawing.Figure
    scale: Scale = field(default_factory=Scale)
    model: dict[str, Any] = field(default_factory=dict)  # what the scale changes in a run; not used in drawing
    dataset: dict[str, Any] = field(default_factory=dict)
    replicates: Replicates = Replicates.seeds
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3])  # what a complete curve has
    source: Source = Source.local
    output: str = "multirun_outputs"  # where the runs are: source=local
    path: str = "multirun_outputs"  # the folder of W&B's files: source=offline
    wandb: Wandb = field(default_factory=Wandb)  # source=wandb and source=cache
    to: str = "paper_figures"  # where the figures go, in a folder a scale
    formats: list[str] = field(default_factory=lambda: ["pdf", "svg", "png"])
    variants: bool = False  # draw runs with further overrides too, each as a curve of its own
    reference: str | None = None  # a folder with the author's curves: CSV, or clones of his repositories
    reference_rescaled: bool = False  # overlay what was published at other scales than paper too


ConfigStore.instance().store(name="figures_schema", node=App)


@dataclass
class Table:
    """Rows of text under a header, for the terminal, a caption and the report alike."""

    header: list[str]
    rows: list[list[str]]


@dataclass
class Drawn:
    """One figure as drawn and judged, and all that is said about it."""

    name: str
    figure: "Figure"
    found: "Runs"
    target: Path  # its files, without suffix
    subtitle: str
    commands: list[str]
    results: Table
    published: Table
    claims: Table
    notes: list[str]  # what is missing, unfinished or diverged
    errors: list[str]  # what could not be read


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="figures")
def app(composed: DictConfig) -> None:
    """Draw every chosen figure; say what it shows and what is missing."""
    errors = []
    for drawn in figures(composed):
        if isinstance(drawn, str):
            errors.append(drawn)
            continue
        errors += drawn.errors
        print(f"\n{drawn.figure.title}\n{drawn.subtitle}\n")
        print("\n".join(described(drawn)))
        print(f"wrote {drawn.target}.* ({', '.join(sorted(p.suffix[1:] for p in written(drawn)))})")
    fail(errors)


def figures(composed: DictConfig) -> Iterator[Drawn | str]:
    """Every figure of a composed configuration, drawn; or the line that says why it cannot be."""
    from repro.drawing import Figure

    config = cast(App, OmegaConf.to_object(composed))
    sources = [Path(s.path) for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    for name, node in composed.figures.items():
        figure = cast(Figure, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Figure), node)))
        try:
            yield make(name, figure, config, sources)
        except ReproError as error:
            yield str(error)


def make(name: str, figure: "Figure", config: App, sources: list[Path]) -> Drawn:
    """Read, draw, judge and write one figure. Raises ReproError where there is no run to draw."""
    from repro import claims, reference
    from repro.drawing import draw, save

    scale = config.scale.name
    homes = curves(figure.experiments, sources)
    if not homes:
        raise ReproError(f"figure {name}: no curves in conf/experiment/{figure.experiments}")
    found = read(homes, config)
    unknown = [c for c in figure.curves if c not in homes]
    errors = [f"figure {name}: curves.{c}: no conf/experiment/{figure.experiments}/{c}.yaml" for c in unknown]
    errors += found.broken
    exact = commands(name, config)
    if found.frame.empty:
        none = f"figure {name}: no runs at scale {scale} in {found.place}; {exact[0]} trains them"
        raise ReproError("\n".join([*errors, none]))
    order = [c for c in figure.curves if c in homes] + sorted(set(homes) - set(figure.curves))
    order += sorted(set(found.frame["curve"]) - set(order))
    expected = {curve: config.seeds if curve in homes else [] for curve in order}
    labels, notes = describe(found, expected, figure.curves)
    notes = found.notes + notes
    overlays = scale == "paper" or config.reference_rescaled
    references: dict[str, pd.DataFrame] = {}
    if config.reference and overlays:
        try:
            references = reference.load(Path(config.reference), name, order, figure.logs)
        except ReproError as error:
            errors.append(str(error))
    elif config.reference:
        notes.append("note: the author's curves are drawn at paper scale, or with reference_rescaled=true")
    subtitle = f"{scale} scale: {note(found)}"
    target = Path(config.to) / scale / name
    save(draw(found, labels, figure, subtitle, references, overlays), target, config.formats)
    judged = claims.table(figure.claims, found.frame, len(config.seeds), scale)
    drawn = Drawn(
        name,
        figure,
        found,
        target,
        subtitle,
        exact,
        results(found, labels),
        beside(found, figure, scale),
        verdicts(judged),
        notes,
        errors,
    )
    found.frame.to_csv(f"{target}.csv", index=False)
    judged.to_csv(f"{target}.claims.csv", index=False)
    Path(f"{target}.md").write_text(caption(drawn))
    if config.wandb.artifact:
        from repro import tracking

        url = tracking.log_figure(name, scale, written(drawn), place(config))
        drawn.notes.append(f"note: the files are an artifact of {url}")
    return drawn


def fail(errors: list[str]) -> None:
    """Exit with code 1 after a line for everything that went wrong, if anything did."""
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if errors:
        sys.exit(1)


def curves(experiments: str, sources: list[Path]) -> dict[str, str]:
    """Curve -> whose runs it shows, of every file in an experiment folder.

    Usually its own, <figure>/<curve>; a file with a key ``curve`` shows another's.
    """
    found = {}
    for source in sources:
        for path in sorted((source / "experiment" / experiments).glob("*.yaml")):
            own = OmegaConf.load(path)
            home = own.get("curve") if isinstance(own, DictConfig) else None
            found[path.stem] = home or f"{experiments}/{path.stem}"
    return found


def read(homes: Mapping[str, str], config: App) -> "Runs":
    """The runs of every curve (name -> whose runs it shows) from the configured source."""
    from repro import runs

    scale, own = config.scale.name, suffix(config)
    if config.source is Source.local:
        folders = {curve: Path(config.output) / scale / home / own for curve, home in homes.items()}
        found = runs.local(folders, config.variants)
        found.place = config.output
        return found
    from repro import pull

    where = place(config)
    cache = cache_folder(config.wandb.cache) / "wandb"
    if config.source is Source.offline:
        there, source = pull.offline(Path(config.path)), config.path
    elif config.source is Source.cache:
        there, source = pull.cached(where, cache), f"the cache of {where}"
    else:
        there, source = pull.server(where, list(homes.values()), cache), str(where)
    found = runs.pulled(there, homes, scale, own, config.variants)
    found.place = f"{source} ({found.counts})"
    return found


def place(config: App) -> "Place":
    """Where the runs are on W&B."""
    from repro import tracking

    return tracking.place(config.wandb.entity, config.wandb.project, config.wandb.base_url)


def suffix(config: App) -> str:
    """The folder between a curve and its seeds where the replicates are not the default."""
    return "" if config.replicates is Replicates.seeds else f"replicates={config.replicates.value}"


def commands(name: str, config: App) -> list[str]:
    """The exact commands that train and draw a figure."""
    options = f"scale={config.scale.name} {suffix(config)}".strip()
    source = ""
    if config.source is Source.offline:
        source = f" source=offline path={config.path}"
    elif config.source is not Source.local:
        where = {k: getattr(config.wandb, k) for k in ("entity", "project", "base_url")}
        source = f" source={config.source.value}" + "".join(f" wandb.{k}={v}" for k, v in where.items() if v)
    return [
        f"python -m repro.train sweep={name} {options}",
        f"python -m repro.figures figure={name} {options}{source}",
    ]


def describe(
    found: "Runs", expected: Mapping[str, list[int]], names: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Legend labels that count the seeds, and a line for everything that is missing, unfinished or diverged.

    ``expected`` has each curve's seeds, in the legend's order; ``names`` what the legend calls a curve.
    """
    from repro.records import FINISHED

    labels, missing = {}, []
    for curve, seeds in expected.items():
        status = {seed: info["status"] for (c, seed), info in found.info.items() if c == curve}
        finished = [s for s, state in status.items() if state in FINISHED]
        diverged = sorted(s for s, state in status.items() if state == "diverged")
        wanted = sorted({*seeds, *status})
        absent = [s for s in wanted if s not in finished]
        count = f"{len(finished)} of {len(wanted)} seeds" if absent else _plural(len(finished), "seed")
        extra = f", {len(diverged)} diverged" if diverged else ""
        if status and not finished:
            extra = ", unfinished"
        labels[curve] = f"{names.get(curve, curve)} ({count}{extra})"
        for state in dict.fromkeys(status.get(seed, "missing") for seed in absent):
            missing.append(_note(curve, [s for s in absent if status.get(s, "missing") == state], state))
        if diverged:
            missing.append(_note(curve, diverged, "diverged, the last test is kept to the end"))
    return labels, missing


def note(found: "Runs") -> str:
    """What the scale changed, as the runs themselves recorded it."""
    return " / ".join(sorted({info["config"]["scale"]["note"] for info in found.info.values()}))


def results(found: "Runs", labels: Mapping[str, str]) -> Table:
    """Each curve's final accuracy and loss: mean and standard deviation over its seeds."""
    from repro.runs import averaged, final

    frame = averaged(found)
    accuracy, loss = (final(frame, y) for y in ("test_accuracy", "test_loss"))
    rows = [
        [
            label,
            *(_mean(values[values.index.get_level_values("curve") == curve]) for values in (100 * accuracy, loss)),
        ]
        for curve, label in labels.items()
    ]
    return Table(["curve", "final test accuracy (%)", "final test loss"], rows)


def beside(found: "Runs", figure: "Figure", scale: str) -> Table:
    """The published values, with ours at the same share of the run beside them."""
    from repro.runs import at_share, averaged

    rows = []
    frame = averaged(found)
    for value in figure.published:
        unit, digits = (100.0, 2) if value.y.endswith("accuracy") else (1.0, 3)
        error = "" if value.error is None else f" ± {value.error:g}"
        end = "the end" if value.iteration is None else f"{value.iteration:,} iterations"
        ours = _mean(unit * at_share(frame, found, value.curve, value.y, value.iteration), digits)
        rows.append([value.curve, end, f"{value.value:g}{error}", ours, value.tested, value.source])
    return Table(["curve", "at", "published", f"ours, {scale} scale", "published on", "source"], rows)


def verdicts(judged: "pd.DataFrame") -> Table:
    """The claims: what the text says, and what the runs say to it."""
    rows = []
    for claim, part in judged.groupby("claim", sort=False):
        for number, row in enumerate(part.to_dict("records")):
            known = row["low"] == row["low"]
            interval = f"{row['estimate']:.3g} [{row['low']:.3g}, {row['high']:.3g}]" if known else "-"
            head = [str(claim), row["says"], row["verdict"]] if number == 0 else ["", "", ""]
            rows.append([*head, row["rule"], interval, row["seeds"], row["finding"]])
    header = ["claim", "the text says", "verdict", "rule", "ours, with 95 % interval", "runs", "finding"]
    return Table(header, rows)


def described(drawn: Drawn) -> list[str]:
    """What a figure shows, as lines that read in a terminal and in Markdown alike."""
    lines = [*markdown(drawn.results), "", FINAL, ""]
    for table in (drawn.published, drawn.claims):
        if table.rows:
            lines += [*markdown(table), ""]
    return lines + drawn.notes


def caption(drawn: Drawn) -> str:
    """The figure's caption file: what it shows, how it was made, and the commands that make it again."""
    head = [f"# {drawn.figure.title}", "", drawn.subtitle, "", BAND, "", "```", *drawn.commands, "```", ""]
    return "\n".join([*head, *described(drawn)]).rstrip() + "\n"


def written(drawn: Drawn) -> list[Path]:
    """The files of a figure."""
    return list(drawn.target.parent.glob(f"{drawn.name}.*"))


def markdown(table: Table) -> list[str]:
    """The lines of a Markdown table, its columns aligned."""
    rows = [table.header, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _mean(seeds: "pd.Series", digits: int = 2) -> str:
    if seeds.empty:
        return "-"
    return f"{seeds.mean():.{digits}f}" + (f" ± {seeds.std():.{digits}f}" if len(seeds) > 1 else "")


def _note(curve: str, seeds: list[int], state: str) -> str:
    return f"note: {curve} {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}: {state}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def main() -> None:
    """The console script ``repro-figures``."""
    run_app(app)


if __name__ == "__main__":
    main()
