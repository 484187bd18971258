"""A sweep's progress, read off the records of its runs: the same display whatever launches them."""

import threading
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)
from rich.table import Column

from repro.config import Config
from repro.config.errors import ReproError
from repro.records import Info, Row, last_row, read_info

SECONDS = 0.3  # between two looks at the records
NARROW = 100  # columns of a terminal; below that only what changes is shown


class Progress:
    """While entered: runs done, the runs in progress with iteration and test accuracy, and the time left.

    On a terminal it is a live display; elsewhere (a log file) it is one line a finished run.
    """

    def __init__(self, runs: list[tuple[Path, Config]]):
        self.runs = runs
        self.waiting = dict(runs)
        self.done = 0
        self.iterations = 0  # of the runs that are done
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.narrow = self.console.width < NARROW
        wide = [] if self.narrow else [BarColumn(), TimeElapsedColumn(), TextColumn("left")]
        self.bar = Bar(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            TextColumn("{task.percentage:>3.0f} %", table_column=Column(min_width=5)),
            *wide,
            TimeRemainingColumn(table_column=Column(min_width=7)),
            console=self.console,
            speed_estimate_period=120,
            transient=True,
        )
        self.overall = self.bar.add_task("", total=sum(config.iterations for _, config in runs))
        self.shown: dict[Path, TaskID] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self.before = {folder: _written(folder) for folder in self.waiting}
        self.bar.start()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        self._look()
        self.bar.stop()

    def _watch(self) -> None:
        while not self.stop.wait(SECONDS):
            self._look()

    def _look(self) -> None:
        reached = 0
        for folder, config in list(self.waiting.items()):
            info = self._fresh(folder)
            if info is None:
                continue
            row = last_row(folder)
            if info["status"] == "running":
                iteration = row["iteration"] if row else 0
                reached += iteration
                task = self.shown.get(folder)
                if task is None:
                    task = self.shown[folder] = self.bar.add_task("", total=config.iterations)
                text = f"  {config.curve} seed {config.seed}  "
                text += "" if self.narrow else "iteration "
                text += f"{iteration}/{config.iterations}"
                self.bar.update(task, description=text + _percent(row, self.narrow), completed=iteration)
            else:
                self._close(folder, config, info, row)
        self.bar.update(
            self.overall,
            description=f"runs {self.done}/{len(self.runs)}",
            completed=self.iterations + reached,
        )

    def _close(self, folder: Path, config: Config, info: Info, row: Row | None) -> None:
        del self.waiting[folder]
        self.done += 1
        self.iterations += config.iterations
        if folder in self.shown:
            self.bar.remove_task(self.shown.pop(folder))
        self.console.print(
            f"[{self.done}/{len(self.runs)}] {folder}  {info['status']}{_percent(row)}"
            f"  {info.get('wall_seconds', 0):.1f} s",
            markup=False,
        )

    def _fresh(self, folder: Path) -> Info | None:
        """The record in ``folder``, unless it is one of an earlier attempt."""
        try:
            return None if _written(folder) == self.before[folder] else read_info(folder)
        except ReproError:
            return None


def _written(folder: Path) -> int | None:
    try:
        return (folder / "run.json").stat().st_mtime_ns
    except OSError:
        return None


def _percent(row: Row | None, short: bool = False) -> str:
    name = "" if short else "accuracy "
    return "" if row is None or row["test_accuracy"] is None else f"  {name}{row['test_accuracy']:.1%}"
