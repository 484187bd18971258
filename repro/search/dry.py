"""``--dry-run``: the runs that a search trains at most, and their cost. Nothing is trained."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from repro.config import terminal
from repro.search.runs import Base
from repro.search.settings import Common
from repro.sweeps import cost, machine


@dataclass(frozen=True)
class Stage:
    """A part of a search."""

    name: str
    runs: int  # at most
    iterations: int  # of each run, before the scale


def show(method: str, base: Base, settings: Common) -> None:
    """Print the stages of a search, and their time by the last benchmark of this machine."""
    import importlib

    module: Any = importlib.import_module(f"repro.search.{method}")
    stages: list[Stage] = module.stages(base, settings)
    table = Table()
    for column in ("stage", "runs at most", "epochs a run", "epochs"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        epochs = base.epochs(stage.iterations)
        table.add_row(stage.name, str(stage.runs), f"{epochs:.3g}", f"{stage.runs * epochs:.4g}")
    console = terminal.console()
    console.print(table)
    total = sum(stage.runs * base.epochs(stage.iterations) for stage in stages)
    runs = terminal.plural(sum(stage.runs for stage in stages), "run")
    console.print(f"at most {runs}, {total:,.4g} epochs of {base.images:,} images")
    console.print(_time(base, total, max(stage.runs for stage in stages)))
    if minutes := getattr(settings, "minutes", None):
        console.print(f"search.minutes={minutes:g} makes them shorter or longer; a short run measures that first")


def _time(base: Base, epochs: float, runs: int) -> str:
    """The line for the time of ``epochs`` epochs by the last benchmark of this machine, with the base's tests."""
    benchmark = cost.read_benchmark()
    planned = machine.plan(base.config, runs)
    run = cost.estimate(base.config, planned, benchmark["rows"] if benchmark else [])
    if run.seconds is None:
        return cost.NO_BENCHMARK
    minutes = run.seconds / base.epochs(base.iterations) * epochs / planned.workers / 60
    return f"about {minutes:,.2g} minutes, {terminal.plural(planned.workers, 'run')} at once (from {run.basis})"
