"""Draw figures from recorded runs: the Hydra app ``python -m repro.figures``."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from repro.config import CONF, ReproError, Scale, run_app

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from repro.runs import Runs


@dataclass
class Figure:
    """What is drawn: ``conf/figure/<name>.yaml``."""

    title: str = MISSING
    experiments: str = MISSING  # the folder of conf/experiment whose curves are drawn
    x: str = "iteration"
    y: str = "test_accuracy"
    xlabel: str = "Iteration"
    ylabel: str = "Test accuracy (%)"
    ylim: list[float] | None = None
    curves: dict[str, str] = field(default_factory=dict)  # name -> label, in the legend's order


@dataclass
class App:
    """The figures app's configuration."""

    figures: dict[str, Figure] = field(default_factory=dict)
    scale: Scale = field(default_factory=Scale)
    model: dict[str, Any] = field(default_factory=dict)  # what the scale changes in a run; not used in drawing
    dataset: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3])  # what a complete curve has
    output: str = "multirun_outputs"  # where the runs are
    to: str = "paper_figures"  # where the figures go, in a folder a scale
    formats: list[str] = field(default_factory=lambda: ["pdf", "svg", "png"])
    variants: bool = False  # draw runs with further overrides too, each as a curve of its own


ConfigStore.instance().store(name="figures_schema", node=App)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="figures")
def app(composed: DictConfig) -> None:
    """Draw every chosen figure; say what is missing."""
    config = cast(App, OmegaConf.to_object(composed))
    sources = [Path(s.path) for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    broken: list[str] = []
    drawn = 0
    for name, figure in config.figures.items():
        try:
            broken += make(name, figure, config, sources)
            drawn += 1
        except ReproError as error:
            broken.append(str(error))
    for line in broken:
        print(f"error: {line}", file=sys.stderr)
    if broken:
        sys.exit(1)


def make(name: str, figure: Figure, config: App, sources: list[Path]) -> list[str]:
    """Read, draw, write and summarise one figure; returns a line for each run that could not be read.

    Raises ReproError where there is no run to draw.
    """
    from repro import runs

    scale = config.scale.name
    folders = {
        curve: Path(config.output) / scale / home for curve, home in curves(figure.experiments, sources).items()
    }
    if not folders:
        raise ReproError(f"figure {name}: no curves in conf/experiment/{figure.experiments}")
    found = runs.local(folders, config.variants)
    if found.frame.empty:
        raise ReproError(
            f"figure {name}: no runs at scale {scale} under {config.output}; "
            f"python -m repro.train sweep={name} scale={scale} trains them"
        )
    order = [c for c in figure.curves if c in folders] + sorted(set(folders) - set(figure.curves))
    order += sorted(set(found.frame["curve"]) - set(order))
    expected = {curve: config.seeds if curve in folders else [] for curve in order}
    labels, missing = describe(found, expected, figure.curves)
    drawing = draw(found, order, labels, figure, scale)
    target = Path(config.to) / scale / name
    save(drawing, target, config.formats)
    found.frame.to_csv(f"{target}.csv", index=False)
    summarise(found, order, labels, figure, config)
    for line in missing:
        print(f"note: {line}")
    print("wrote " + ", ".join(f"{target}.{kind}" for kind in [*config.formats, "csv"]))
    return found.broken


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
        for seed in absent:
            missing.append(f"{curve} seed {seed}: {status.get(seed, 'missing')}")
        missing += [f"{curve} seed {seed}: diverged, its last test is kept to the end" for seed in diverged]
    return labels, missing


def draw(found: "Runs", order: list[str], labels: Mapping[str, str], figure: Figure, scale: str) -> "Drawing":
    """Mean over seeds with a band of one standard deviation; LR and momentum in two small panels below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    from repro.runs import averaged, over_seeds

    frame = averaged(found)
    drawn = [c for c in order if c in set(frame["curve"])]
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"):
        drawing, (main, rate, mass) = plt.subplots(
            3, 1, sharex=True, figsize=(6.4, 5.6), height_ratios=[6, 1, 1], layout="constrained"
        )
        palette = dict(zip(order, sns.color_palette("colorblind", len(order)), strict=True))
        style = {
            "hue": "curve",
            "style": "curve",
            "hue_order": drawn,
            "style_order": drawn,
            "palette": palette,
        }
        lines = {"estimator": None, "errorbar": None, "legend": False, **style}
        summary = over_seeds(frame, figure.x, figure.y)
        sns.lineplot(summary, x=figure.x, y="mean", ax=main, **lines)
        for curve in drawn:
            part = summary[summary["curve"] == curve]
            low, high = part["mean"] - part["std"], part["mean"] + part["std"]
            main.fill_between(part[figure.x], low, high, color=palette[curve], alpha=0.2, linewidth=0)
        protocol = frame.dropna(subset="lr").drop_duplicates(["curve", figure.x])
        sns.lineplot(protocol, x=figure.x, y="lr", ax=rate, **lines)
        sns.lineplot(protocol, x=figure.x, y="momentum", ax=mass, **lines)
        _legend(main, drawn, order, labels, palette)
        if figure.y.endswith("accuracy"):
            main.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        if figure.ylim:
            main.set_ylim(*figure.ylim)
        main.set(ylabel=figure.ylabel, xlabel="")
        rate.set(ylabel="LR", xlabel="")
        mass.set(ylabel="Momentum", xlabel=figure.xlabel)
        mass.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        drawing.align_ylabels()
        drawing.suptitle(figure.title, fontsize=11, fontweight="bold")
        main.set_title(f"{scale} scale: {note(found)}", fontsize=7.5, wrap=True)
    plt.close(drawing)
    return drawing


def save(drawing: "Drawing", target: Path, formats: list[str]) -> None:
    """Write the drawing as ``target``.<format>; the same drawing gives the same bytes."""
    import matplotlib.pyplot as plt

    target.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "repro"}):
        for kind in formats:
            metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
            drawing.savefig(f"{target}.{kind}", dpi=160, metadata=metadata)


def note(found: "Runs") -> str:
    """What the scale changed, as the runs themselves recorded it."""
    notes = {info["config"]["scale"]["note"] for info in found.info.values()}
    return " / ".join(sorted(notes))


def summarise(found: "Runs", order: list[str], labels: Mapping[str, str], figure: Figure, config: App) -> None:
    """Print what a figure shows: each curve's final value, mean and standard deviation over its seeds."""
    from rich.console import Console
    from rich.table import Table

    from repro.runs import averaged, final

    table = Table(title=f"{figure.title}, {config.scale.name} scale ({note(found)})", title_justify="left")
    table.add_column("curve", overflow="fold")
    columns = {"test_accuracy": ("final test accuracy (%)", 100.0), "test_loss": ("final test loss", 1.0)}
    for header, _ in columns.values():
        table.add_column(header, justify="right")
    frame = averaged(found)
    values = {y: final(frame, y) for y in columns}
    for curve in order:
        cells = []
        for y, (_, factor) in columns.items():
            per_seed = values[y].get(curve)
            cells.append("-" if per_seed is None else _mean(factor * per_seed))
        table.add_row(labels[curve], *cells)
    Console().print(table)
    print("final: mean over the last 3 tests of a run; ± is the standard deviation over seeds")


def _mean(values: "pd.Series") -> str:
    spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _legend(
    axes: Any, drawn: list[str], order: list[str], labels: Mapping[str, str], palette: Mapping[str, Any]
) -> None:
    """Every curve by name and seeds, those without a run too."""
    from matplotlib.lines import Line2D

    lines = dict(zip(drawn, axes.get_lines(), strict=False))
    handles = [
        Line2D(
            [],
            [],
            color=palette[c],
            linestyle=lines[c].get_linestyle() if c in lines else "none",
            label=fill(labels[c], 48),
        )
        for c in order
    ]
    for curve, handle in zip(order, handles, strict=True):
        if curve in lines and (dashes := lines[curve]._unscaled_dash_pattern[1]):
            handle.set_dashes(dashes)
    axes.legend(handles=handles, fontsize=8, handlelength=3)


def main() -> None:
    """The console script ``repro-figures``."""
    run_app(app)


if __name__ == "__main__":
    main()
