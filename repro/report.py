"""One self-contained page of every figure and table of a scale: the Hydra app ``python -m repro.report``.

It draws and judges them as ``repro.figures`` does and takes the same options.
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from repro.config.errors import ReproError, run_app
from repro.config.folders import CONF
from repro.figures import app as figures
from repro.figures import captions, page
from repro.figures.captions import Table


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="figures")
def app(composed: DictConfig) -> None:
    """Draw every chosen figure and write ``<to>/<scale>/index.html``; ``index-<figure>.html`` if not all are."""
    drawn, errors = [], []
    config = figures.settings(composed, HydraConfig.get().overrides.task)
    for result in figures.figures(composed, config):
        if isinstance(result, str):
            errors.append(result)
        else:
            drawn.append(result)
            errors += result.errors
    if not drawn:
        raise ReproError("; ".join(errors) or "no figure was chosen")
    chosen = HydraConfig.get().runtime.choices["figure"]
    target = Path(f"{figures.target_of('index' if chosen == 'all' else f'index-{chosen}', config)}.html")
    target.write_text(page.page(drawn, composed.scale.name, errors), encoding="utf-8")
    summary = page.verdict_table({figure.name: figure.judged for figure in drawn})
    narrow = Table(summary.header[:4], [row[:4] for row in summary.rows])  # the numbers are on the page
    print("\n".join(captions.markdown(narrow)))
    for figure in drawn:
        print(f"{figure.target}.png, .svg, .pdf, .csv, .md: {figure.title}; {page.counts(figure)}")
    print(f"the report: {target}")
    figures.fail(errors)


def main() -> None:
    """The console script ``repro-report``."""
    figures.register_schema()
    run_app(app)


if __name__ == "__main__":
    main()
