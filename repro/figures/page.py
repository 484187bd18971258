"""The self-contained page with all figures and tables of a scale. Does not import torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from repro.config.folders import CONF
from repro.config.terminal import plural
from repro.figures import captions, claims
from repro.figures.captions import Drawn, Table
from repro.records import FINISHED

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = {  # key -> heading in the configuration table
    "iterations": "iterations",
    "batch_size": "batch",
    "schedule.lr": "LR",
    "schedule.momentum": "momentum",
    "regularization.weight_decay": "weight decay",
    "model.name": "network",
    "model.blocks": "blocks a group",
    "model.bn_groups": "BN groups",
    "model.bn_fraction": "BN fraction",
    "model.nesterov": "Nesterov",
    "update": "update",
    "dataset.name": "data",
    "test_every": "test every",
    "replicates": "replicates",
}
MANY = 6  # the most curves that fit side by side
VERDICT_CLASSES = {claims.REPRODUCED: "good", claims.NOT_REPRODUCED: "bad", claims.UNDECIDED: "open"}


def page(drawn: list[Drawn], scale: str, errors: list[str], commands: list[str]) -> str:
    """The page as HTML, from ``page.html.jinja``; ``commands`` train and draw its content.

    Raises ReproError if a figure has no SVG.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja").render(
        scale=scale,
        note=" / ".join(dict.fromkeys(captions.note(figure.runs) for figure in drawn)),
        errors=errors,
        figures=drawn,
        svgs={figure.name: svg(figure) for figure in drawn},
        settings={figure.name: settings(figure) for figure in drawn},
        verdicts=verdict_table({figure.name: figure.judged for figure in drawn}),
        verdict_classes={claims.in_words(verdict, scale): name for verdict, name in VERDICT_CLASSES.items()},
        runs=run_table(drawn),
        urls=urls(drawn),
        versions=version_table(drawn),
        differences=differences(),
        commands=commands,
    )


def svg(drawn: Drawn) -> str:
    """The figure's SVG from its first attribute on, without metadata, with ids prefixed by the figure's name."""
    body = Path(f"{drawn.target}.svg").read_text(encoding="utf-8").partition("<svg ")[2]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{drawn.name}-", body)


def verdict_table(tables: Mapping[str, "pd.DataFrame"]) -> Table:
    """One row per claim of every figure, failures first: what the text says, the verdict, and the numbers."""
    rows = claims.overview(tables).to_numpy().tolist()
    return Table(["figure", "claim", "the text says", "verdict", "rule: ours, with 95 % interval"], rows)


def settings(drawn: Drawn) -> Table:
    """The resolved configuration of every curve (its first seed), in columns, or in rows if there are many."""
    configs: dict[str, DictConfig] = {}
    for (curve, _), info in sorted(drawn.runs.info.items()):
        configs.setdefault(curve, OmegaConf.create(info["config"]))
    rows = [[name, *(_value(config, key) for config in configs.values())] for key, name in SETTINGS.items()]
    columns = [["", *configs], *(row for row in rows if any(row[1:]))]
    header, *rows = columns if len(configs) <= MANY else [list(row) for row in zip(*columns, strict=True)]
    return Table(header, rows)


def run_table(drawn: list[Drawn]) -> Table:
    """Run counts, wall time and speed of every figure."""
    rows = []
    for figure in drawn:
        infos = list(figure.runs.info.values())
        wall = sum(info.get("wall_seconds", 0) for info in infos)
        speeds = figure.runs.frame["images_per_second"].dropna()
        speed = f"{median(speeds):,.0f}" if len(speeds) else "-"
        devices = ", ".join(sorted({str(info["environment"].get("device")) for info in infos}))
        rows.append([figure.name, counts(figure), f"{wall / 60:,.1f} min", speed, devices])
    return Table(["figure", "runs", "wall time, all runs", "images/s, median", "device"], rows)


def urls(drawn: list[Drawn]) -> dict[str, str]:
    """The W&B page of every run that has one, by the run's name."""
    pages = {}
    for figure in drawn:
        for (curve, seed), info in sorted(figure.runs.info.items()):
            url = str(info.get("wandb", {}).get("url", ""))
            if url.startswith(("https://", "http://")):
                pages[f"{figure.name} {curve} seed {seed}"] = url
    return pages


def counts(drawn: Drawn) -> str:
    """The number of runs in each state, as text."""
    states = [info["status"] for info in drawn.runs.info.values()]
    finished = sum(state in FINISHED for state in states)
    diverged = states.count("diverged")
    words = f"{plural(finished, 'run')} finished" + (f", {diverged} of them diverged" if diverged else "")
    return words + (f", {len(states) - finished} unfinished" if finished < len(states) else "")


def version_table(drawn: list[Drawn]) -> Table:
    """Every version that the runs were made with, and the number of runs."""
    seen: dict[tuple[str, str], int] = {}
    for figure in drawn:
        for info in figure.runs.info.values():
            python = info["environment"].get("python")
            versions = {**info["versions"], "python": python, "commit": info.get("commit")}
            for name, version in versions.items():
                key = (name, str(version))
                seen[key] = seen.get(key, 0) + 1
    return Table(["package", "version", "runs"], [[*key, str(count)] for key, count in sorted(seen.items())])


def differences() -> Table:
    """conf/differences.yaml: choices that the paper or its files leave open or make otherwise, and the switch."""
    rows: list[Any] = list(OmegaConf.load(CONF / "differences.yaml"))
    return Table(
        ["choice", "the paper and its files", "here", "switch"],
        [[row["what"], row["paper"], row["here"], row["switch"]] for row in rows],
    )


def _value(config: DictConfig, key: str) -> str:
    value = OmegaConf.select(config, key)
    if isinstance(value, DictConfig):
        rest = ", ".join(f"{k!s} {v}" for k, v in value.items() if k != "shape")
        return f"{value.shape}: {rest}"
    return "" if value is None else str(value)
