"""One self-contained page of every figure of a scale: the Hydra app ``python -m repro.report``.

It draws and judges the figures as ``repro.figures`` does and takes the same options.
"""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from repro import captions, claims, figures
from repro.captions import BAND, FINAL, Drawn, Table
from repro.errors import ReproError, run_app
from repro.folders import CONF
from repro.records import FINISHED

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = {  # what the configuration table shows, and under which heading
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
COLOURS = {claims.REPRODUCED: "good", claims.NOT_REPRODUCED: "bad", claims.UNDECIDED: "open"}
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 62rem;
  padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
nav a { margin-right: .8rem; } a { color: #0b57a4; }
.scale { background: #fff4d6; border-left: 4px solid #d99a00; padding: .5rem .8rem; }
.wide { overflow-x: auto; } svg { width: 100%; height: auto; max-width: 46rem; display: block; margin: 0 auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .7rem .25rem 0;
  border-bottom: 1px solid #e3e3e3; }
th { white-space: nowrap; } td { min-width: 3.5rem; } p { margin: .5rem 0; }
pre { background: #f5f5f5; padding: .6rem; overflow-x: auto; font-size: .85rem; }
.good { color: #0a6b2d; } .bad { color: #a51d1d; } .open { color: #6a5a00; } .note, .missing { font-size: .85rem; }
.missing { color: #a51d1d; }
@media print { body { max-width: none; font-size: 11px; } nav { display: none; } section { break-inside: auto; }
  .wide { overflow: visible; } svg { max-width: 32rem; break-inside: avoid; } table { font-size: 8px; }
  pre { white-space: pre-wrap; } }
"""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="figures")
def app(composed: DictConfig) -> None:
    """Draw every chosen figure and write ``<to>/<scale>/index.html``."""
    drawn, errors = [], []
    for result in figures.figures(composed):
        if isinstance(result, str):
            errors.append(result)
        else:
            drawn.append(result)
            errors += result.errors
    if not drawn:
        raise ReproError("; ".join(errors) or "no figure was chosen")
    target = Path(composed.to) / composed.scale.name / "index.html"
    target.write_text(page(drawn, composed.scale.name, errors))
    summary = verdict_table({figure.name: figure.judged for figure in drawn})
    narrow = Table(summary.header[:4], [row[:4] for row in summary.rows])  # the numbers are on the page
    print("\n".join(captions.markdown(narrow)))
    for figure in drawn:
        print(f"{figure.target}.png, .svg, .pdf, .csv, .md: {figure.figure.title}; {counts(figure)}")
    print(f"the report: {target}")
    figures.fail(errors)


def page(drawn: list[Drawn], scale: str, errors: list[str]) -> str:
    """The whole page as one string of HTML: nothing in it is fetched."""
    links = " ".join(f'<a href="#{d.name}">{text(d.name)}</a>' for d in drawn)
    warning = (
        ""
        if scale == "paper"
        else f'<p class="scale">This is {text(scale)} scale, not the paper\'s: {text(note(drawn))}. '
        "No verdict here is one about the paper.</p>"
    )
    parts = [
        f"<h1>A disciplined approach, reproduced: {text(scale)} scale</h1>",
        "<p>L. N. Smith, <cite>A disciplined approach to neural network hyper-parameters: Part 1</cite> "
        '(<a href="https://arxiv.org/abs/1803.09820">arXiv 1803.09820</a>), trained again.</p>',
        warning,
        f'<nav>{links} <a href="#runs">runs</a> <a href="#differences">differences</a></nav>',
        "<h2>Claims</h2>",
        f'<p class="note">{text(RULES)}</p>',
        rendered(verdict_table({figure.name: figure.judged for figure in drawn}), scale),
        *(f'<p class="missing">{text(error)}</p>' for error in errors),
        *(section(figure) for figure in drawn),
        '<h2 id="runs">Runs</h2>',
        rendered(run_table(drawn)),
        "<h3>Versions</h3>",
        rendered(version_table(drawn)),
        '<h2 id="differences">Differences from the paper</h2>',
        rendered(differences()),
        "<h2>How to make this page</h2>",
        f"<pre>python -m repro.train sweep=all scale={scale}\npython -m repro.report scale={scale}</pre>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>A disciplined approach, reproduced: {text(scale)} scale</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(filter(None, parts)) + "\n</body></html>\n"
    )


RULES = (
    "Rules fixed before any run. A claim holds where the 95 % interval over seeds lies wholly on the stated side, "
    "fails where it lies wholly on the other, and is undecided otherwise or where seeds are missing. "
    "Accuracies are in points."
)


def section(drawn: Drawn) -> str:
    """One figure: the drawing, its tables, the commands that make it again."""
    parts = [
        f'<section id="{drawn.name}"><h2>{text(drawn.figure.title)}</h2>',
        f'<p class="note">{text(drawn.subtitle)}. {text(BAND)}</p>',
        inline_svg(drawn),
        "<h3>What it shows</h3>",
        rendered(drawn.results),
        f'<p class="note">{text(FINAL)}</p>',
        f'<p class="note">{text(drawn.print)}</p>' if drawn.print else "",
        *(f'<p class="missing">{text(line)}</p>' for line in drawn.notes),
    ]
    for title, table in (("Ours beside the published", drawn.published), ("Claims", drawn.claims)):
        if table.rows:
            parts += [f"<h3>{title}</h3>", rendered(table, drawn.scale)]
    parts += ["<h3>Configuration of every curve</h3>", rendered(settings(drawn))]
    parts += ["<h3>Commands</h3>", f"<pre>{text(chr(10).join(drawn.commands))}</pre>", "</section>"]
    return "\n".join(filter(None, parts))


def inline_svg(drawn: Drawn) -> str:
    """The figure's svg for the page: no prologue, and ids that no other figure has."""
    svg = Path(f"{drawn.target}.svg")
    if not svg.exists():
        raise ReproError(f"formats: the report needs svg among them ({svg} is missing)")
    body = svg.read_text()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{drawn.name}-", body)
    label = html.escape(drawn.figure.title, quote=True)
    return body.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def verdict_table(tables: Mapping[str, "pd.DataFrame"]) -> Table:
    """A row a claim of every figure, those that fail first: what the text says, the verdict, and the numbers."""
    rows = claims.overview(tables).to_numpy().tolist()
    return Table(["figure", "claim", "the text says", "verdict", "rule: ours, with 95 % interval"], rows)


def settings(drawn: Drawn) -> Table:
    """The resolved configuration of every curve, of its first seed."""
    configs: dict[str, DictConfig] = {}
    for (curve, _), info in sorted(drawn.found.info.items()):
        configs.setdefault(curve, OmegaConf.create(info["config"]))
    rows = [[name, *(_value(config, key) for config in configs.values())] for key, name in SETTINGS.items()]
    return Table(["", *configs], [row for row in rows if any(row[1:])])


def run_table(drawn: list[Drawn]) -> Table:
    """Run counts, wall time and speed of every figure."""
    rows = []
    for figure in drawn:
        infos = list(figure.found.info.values())
        wall = sum(info.get("wall_seconds", 0) for info in infos)
        speeds = figure.found.frame["images_per_second"].dropna()
        speed = f"{median(speeds):,.0f}" if len(speeds) else "-"
        devices = ", ".join(sorted({info["environment"]["device"] for info in infos}))
        rows.append([figure.name, counts(figure), f"{wall / 60:,.1f} min", speed, devices])
    return Table(["figure", "runs", "wall time, all runs", "images/s, median", "device"], rows)


def counts(drawn: Drawn) -> str:
    """How many runs there are in each state."""
    states = [info["status"] for info in drawn.found.info.values()]
    finished = sum(state in FINISHED for state in states)
    diverged = states.count("diverged")
    words = f"{finished} runs finished" + (f", {diverged} of them diverged" if diverged else "")
    return words + (f", {len(states) - finished} unfinished" if finished < len(states) else "")


def version_table(drawn: list[Drawn]) -> Table:
    """Every version that a run was made with, and how many runs."""
    seen: dict[tuple[str, str], int] = {}
    for figure in drawn:
        for info in figure.found.info.values():
            versions = {**info["versions"], "python": info["environment"]["python"], "commit": info["commit"]}
            for name, version in versions.items():
                key = (name, str(version))
                seen[key] = seen.get(key, 0) + 1
    return Table(["package", "version", "runs"], [[*key, str(count)] for key, count in sorted(seen.items())])


def differences() -> Table:
    """conf/differences.yaml: what the paper or its files leave open or do otherwise, and the switch."""
    rows: list[Any] = list(OmegaConf.load(CONF / "differences.yaml"))
    return Table(
        ["choice", "the paper and its files", "here", "switch"],
        [[row["what"], row["paper"], row["here"], row["switch"]] for row in rows],
    )


def note(drawn: list[Drawn]) -> str:
    """What the scale changed, in the words of the runs."""
    return " / ".join(dict.fromkeys(captions.note(d.found) for d in drawn))


def rendered(table: Table, scale: str = "") -> str:
    """A table as HTML that scrolls by itself where it is too wide; verdicts at ``scale`` are coloured."""
    colours = {claims.in_words(verdict, scale): colour for verdict, colour in COLOURS.items()} if scale else {}

    def cell(value: str) -> str:
        colour = f' class="{colours[value]}"' if value in colours else ""
        return f"<td{colour}>{text(value)}</td>"

    head = "".join(f"<th>{text(cell)}</th>" for cell in table.header)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def text(value: str) -> str:
    """Plain text for HTML."""
    return html.escape(value, quote=False)


def _value(config: DictConfig, key: str) -> str:
    value = OmegaConf.select(config, key)
    if isinstance(value, DictConfig):
        rest = ", ".join(f"{k!s} {v}" for k, v in value.items() if k != "shape")
        return f"{value.shape}: {rest}"
    return "" if value is None else str(value)


def main() -> None:
    """The console script ``repro-report``."""
    figures.register_schema()
    run_app(app)


if __name__ == "__main__":
    main()
