"""One self-contained page of every figure and table of a scale: the Hydra app ``python -m repro.report``.

It draws and judges them as ``repro.figures`` does and takes the same options.
"""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.report")

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
    """Draw every chosen figure and write ``<to>/<scale>/index.html``; ``index-<figure>.html`` if not all are."""
    drawn, errors = [], []
    config = settings.settings_of(composed, HydraConfig.get().overrides.task)
    for result in figures.figures(composed, config):
        if isinstance(result, str):
            errors.append(result)
        else:
            drawn.append(result)
            errors += result.errors
    if not drawn:
        raise ReproError("; ".join(errors) or "no figure was chosen")
    chosen = HydraConfig.get().runtime.choices["figure"]
    target = Path(f"{settings.target_of('index' if chosen == 'all' else f'index-{chosen}', config)}.html")
    commands = settings.commands("report all", config)
    if chosen != "all":  # only the command that draws it
        commands = [f"{commands[1]} figure={chosen}"]
    write_whole(target, page.page(drawn, composed.scale.name, errors, commands))
    summary = page.verdict_table({figure.name: figure.judged for figure in drawn})
    narrow = Table(summary.header[:4], [row[:4] for row in summary.rows])  # the numbers are on the page
    print("\n".join(captions.markdown(narrow)))
    for figure in drawn:
        print(f"{figure.target}.png, .svg, .pdf, .csv, .md: {figure.title}; {page.counts(figure)}")
    print(f"the report: {target}")
    figures.fail(errors)


def main() -> None:
    """The console script ``repro-report``."""
    settings.register_schema()
    command.hydra_app(app, "figures")
