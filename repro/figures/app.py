"""Draw figures and tables from recorded runs and judge their claims: the Hydra app ``python -m repro.figures``."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from repro import command
from repro.config.errors import ReproError
from repro.figures import captions
from repro.figures.captions import Drawn
from repro.figures.reading import collect, homes_of, typed_node
from repro.figures.settings import (
    App,
    add_missing_keys,
    commands,
    project_of,
    register_schema,
    selected,
    settings_of,
    target_of,
)
from repro.records.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from repro.figures.figure import Figure
    from repro.figures.tables import Table


def app(composed: DictConfig) -> None:
    """Draw every chosen figure and table, and print its tables and notes."""
    errors = []
    config = settings_of(composed, HydraConfig.get().overrides.task)
    for drawn in figures(composed, config):
        if isinstance(drawn, str):
            errors.append(drawn)
            continue
        errors += drawn.errors
        print(f"\n{drawn.title}\n{drawn.subtitle}\n")
        print("\n".join(captions.described(drawn)))
        kinds = sorted(path.name.removeprefix(f"{drawn.name}.") for path in written(drawn, config))
        print(f"wrote {drawn.target}.* ({', '.join(kinds)})")
    fail(errors)


def figures(composed: DictConfig, config: App) -> Iterator[Drawn | str]:
    """Every chosen figure and table of a composed configuration, drawn; or the line that says why it is not.

    The command line chooses with figure= and table=; without either, all are chosen.
    """
    sources = [Path(s.path) for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    named = selected(HydraConfig.get().overrides.task)
    groups = [group for group in ("figure", "table") if group in named] or ["figure", "table"]
    for edit in config.edits:
        if (group := edit.lstrip("~").partition("s.")[0]) not in groups:
            raise ReproError(f"{edit}: this command draws no {group}; add {group}=NAME")
    for group in groups:
        for name, node in composed[f"{group}s"].items():
            is_chosen = not {str(name), "all"}.isdisjoint(named.get(group, ["all"]))
            chosen: Any = typed_node(group, str(name), node, is_chosen)
            try:
                yield (make if group == "figure" else make_table)(name, chosen, config, sources)
            except ReproError as error:
                yield str(error)


def make(name: str, figure: "Figure", config: App, sources: list[Path]) -> Drawn:
    """Read, draw, judge and write one figure. Raises ReproError if there is no run to draw."""
    from repro.figures import claims, printed, reference
    from repro.figures.drawing import draw, save

    scale = config.scale.name
    homes = homes_of(figure, sources)
    figure_runs = collect(f"figure {name}", homes, config)
    unknown = [c for c in figure.curves if c not in homes]
    errors = [f"figure {name}: curves.{c}: no conf/experiment/{figure.experiments}/{c}.yaml" for c in unknown]
    known = {*homes, *figure_runs.frame["curve"]}
    errors += [f"figure {name}: {line}" for line in claims.unknown_curves(figure.claims, known)]
    published = dict.fromkeys(value.curve for value in figure.published if value.curve not in known)
    errors += [f"figure {name}: published: no curve {curve}" for curve in published]
    errors += figure_runs.broken
    order = [c for c in figure.curves if c in homes] + sorted(set(homes) - set(figure.curves))
    order += sorted(set(figure_runs.frame["curve"]) - set(order))
    expected = {curve: config.seeds if curve in homes else [] for curve in order}
    labels, notes = captions.describe(figure_runs, expected, figure.curves)
    notes = figure_runs.notes + notes
    overlays = scale == "paper" or config.reference_rescaled
    printed_curves = printed.load(name, figure.y, sources) if overlays else None
    if printed_curves is not None and printed_curves.empty:
        printed_curves = None
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
    drawing = draw(figure_runs, labels, figure, subtitle, references, printed_curves, overlays)
    save(drawing, target, config.formats)
    judged = claims.table(figure.claims, figure_runs.frame, config.seeds, scale)
    results = captions.results(figure_runs, labels)
    if printed_curves is not None:
        results.notes.append(captions.described_print(figure))
    beside = captions.beside(figure_runs, figure, scale, printed_curves)
    tables = [results, beside, captions.verdicts(judged)]
    tables = [table for table in tables if table.rows]
    exact = commands(f"figure {name}", config)
    drawn = Drawn(
        "figure", target.name, figure.title, captions.BAND, figure_runs, target, subtitle, exact,
        tables, judged, notes, errors,
    )  # fmt: skip
    # The same runs give the same files on every machine: speeds are only in the records and the report.
    rows = figure_runs.frame.drop(columns="images_per_second")
    write_whole(Path(f"{target}.csv"), rows.to_csv(index=False))
    return publish(drawn, config)


def make_table(name: str, table: "Table", config: App, sources: list[Path]) -> Drawn:
    """Read, draw, judge and write one table. Raises ReproError if none of its rows has a run."""
    from repro.figures import claims, table_drawing, tables
    from repro.figures.drawing import save

    scale, seeds = config.scale.name, len(config.seeds)
    homes = homes_of(table, sources)
    found = collect(f"table {name}", homes, config)
    unknown = [curve for curve, *_ in tables.rows(table) if curve not in homes]
    errors = [f"table {name}: no conf/experiment/{curve}.yaml" for curve in unknown]
    known = [curve for curve, *_ in tables.rows(table)]
    errors += [f"table {name}: {line} among its rows" for line in claims.unknown_curves(table.claims, known)]
    errors += found.broken
    judged = claims.table(tables.all_claims(table), found.frame, config.seeds, scale)
    numbers = tables.beside(table, judged, found.frame)
    begun = {curve: config.seeds for curve in homes if curve in {curve for curve, _ in found.info}}
    notes = found.notes + captions.describe(found, begun, {})[1]  # a row without a run shows that in the table
    subtitle = f"{scale} scale: {captions.note(found)}"
    target = target_of(name, config)
    save(table_drawing.draw(table, numbers, found.frame, seeds, subtitle, scale), target, config.formats)
    text = tables.as_text(table, numbers, seeds, scale)
    table_claims = judged[judged["claim"].isin(list(table.claims))]  # the rows show their own claims
    judged = judged[judged["claim"].isin(table_claims["claim"]) | (judged["seeds"] != "0")]
    exact = commands(f"table {name}", config)
    drawn = Drawn(
        "table", target.name, table.title, table_drawing.reading(table), found, target, subtitle, exact,
        [text, captions.verdicts(table_claims)], judged, notes, errors,
    )  # fmt: skip
    write_whole(Path(f"{target}.csv"), numbers.to_csv(index=False, float_format="%.6g"))
    write_whole(Path(f"{target}.tex"), captions.latex(text))
    return publish(drawn, config)


def publish(drawn: Drawn, config: App) -> Drawn:
    """Write the claims and the caption of a figure or table; log all its files to W&B if configured."""
    write_whole(Path(f"{drawn.target}.claims.csv"), drawn.judged.to_csv(index=False))
    write_whole(Path(f"{drawn.target}.md"), captions.caption(drawn))
    if config.wandb.artifact:
        from repro.tracking import artifact

        url = artifact.log_figure(drawn.name, config.scale.name, written(drawn, config), project_of(config))
        drawn.notes.append(f"note: the files are an artifact of {url}")
    return drawn


def fail(errors: list[str]) -> None:
    """If there are errors, print one line for each and exit with code 1."""
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if errors:
        sys.exit(1)


def written(drawn: Drawn, config: App) -> list[Path]:
    """The files of a figure or table that this command has written."""
    kinds = [*config.formats, "csv", "claims.csv", "md", *(["tex"] if drawn.kind == "table" else [])]
    return [Path(f"{drawn.target}.{kind}") for kind in kinds]


def main() -> None:
    """The console script ``repro-figures``."""
    register_schema()
    sys.argv[1:] = add_missing_keys(sys.argv[1:])
    command.hydra_app(app, "figures")
