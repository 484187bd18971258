"""One self-contained page of every figure and table of a scale: the Hydra app ``python -m repro.report``.

It draws and judges them as ``repro.figures`` does and takes the same options.
"""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.report")

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from repro import command
from repro.config.errors import ReproError
from repro.figures import app as figures
from repro.figures import captions, page, settings
from repro.figures.captions import Table
from repro.records.files import write_whole


def app(composed: DictConfig) -> None:
    """Draw what is chosen and write ``<to>/<scale>/index.html``, or ``index-<names>.html`` if not all are."""
    drawn, errors = [], []
    overrides = HydraConfig.get().overrides.task
    config = settings.settings_of(composed, overrides)
    if "svg" not in config.formats:
        raise ReproError(f"formats={config.formats}: the report needs svg among them")
    for result in figures.figures(composed, config):
        if isinstance(result, str):
            errors.append(result)
        else:
            drawn.append(result)
            errors += result.errors
    if not drawn:
        figures.fail(errors or ["no figure was chosen"])
    named = settings.selected(overrides)
    name = settings.page_name(named)
    target = Path(f"{settings.target_of(name, config)}.html")
    commands = [settings.report_command(named, config)]
    if name == "index":  # otherwise each command stands with its figure
        sweeps = [figure.commands[0] for figure in drawn if figure.kind == "table" or settings.suffix(config)]
        everything = [] if settings.suffix(config) else [settings.commands("figure all", config)[0]]
        commands = [*everything, *sweeps, *commands]
    write_whole(target, page.page(drawn, composed.scale.name, errors, commands))
    summary = page.verdict_table({figure.name: figure.judged for figure in drawn})
    narrow = Table(summary.header[:4], [row[:4] for row in summary.rows])  # the numbers are on the page
    print("\n".join(captions.markdown(narrow)))
    for figure in drawn:
        kinds = [path.name.removeprefix(figure.name) for path in figures.written(figure, config)]
        print(f"{figure.target}{', '.join(kinds)}: {figure.title}; {page.counts(figure)}")
    print(f"the report: {target}")
    figures.fail(errors)


def main() -> None:
    """The console script ``repro-report``."""
    settings.register_schema()
    sys.argv[1:] = settings.add_missing_keys(sys.argv[1:])
    command.hydra_app(app, "figures")
