"""A sweep's progress, read from the records of its runs: the same display for every launcher."""

import shlex
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

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
from repro.config.terminal import console, plural
from repro.records import Info, Row, last_row, read_info
from repro.tracking.mirror import COMMAND, OFFLINE_SINCE

POLL_SECONDS = 0.3  # between two reads of the records
NARROW_COLUMNS = 100  # a narrower terminal shows only what changes


class Progress:
    """While entered, shows runs done, runs in progress with iteration and test accuracy, and the time left.

    It is a live display on a terminal; otherwise (in a log file) one line for each run that ends.
    """

    def __init__(self, runs: list[tuple[Path, Config]], *, queued: bool = False):
        self.runs = runs
        self.queued = queued  # by a cluster, which requeues an interrupted run: that run is not done yet
        self.unfinished = dict(runs)
        self.runs_done = 0
        self.fallbacks: Counter[str] = Counter()  # why runs that are done had a slower step
        self.iterations_done = 0  # of the runs that are done
        self.console = console(stderr=True, soft_wrap=True)
        self.narrow = self.console.width < NARROW_COLUMNS
        wide_columns = [] if self.narrow else [BarColumn(), TimeElapsedColumn(), TextColumn("left")]
        self.bar = Bar(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn("{task.percentage:>3.0f} %", table_column=Column(min_width=5)),
            *wide_columns,
            TimeRemainingColumn(table_column=Column(min_width=7)),
            console=self.console,
            speed_estimate_period=120,
            transient=True,
        )
        self.overall = self.bar.add_task("", total=sum(config.iterations for _, config in runs))
        self.tasks: dict[Path, TaskID] = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self.earlier = {folder: modified_ns(folder) for folder in self.unfinished}
        self.bar.start()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        self._update()
        self.bar.stop()
        for fallback, count in self.fallbacks.items():
            self.console.print(f"note: {count} of {plural(len(self.runs), 'run')}: {fallback}", markup=False)
        infos = [info for folder, _ in self.runs if (info := self._read_info(folder)) is not None]
        if line := describe_mirrors(infos, Path(self.runs[0][1].output) if self.runs else Path()):
            self.console.print(line, markup=False)

    def _watch(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            self._update()

    def _update(self) -> None:
        iterations_running = 0
        for folder, config in list(self.unfinished.items()):
            info = self._read_info(folder)
            if info is None:
                continue
            row = last_row(folder)
            if info["status"] == "running":
                iteration = row["iteration"] if row else 0
                iterations_running += iteration
                task = self.tasks.get(folder)
                if task is None:
                    task = self.tasks[folder] = self.bar.add_task("", total=config.iterations)
                text = f"  {config.curve} seed {config.seed}  "
                text += "" if self.narrow else "iteration "
                text += f"{iteration}/{config.iterations}"
                self.bar.update(task, description=text + _format_accuracy(row, self.narrow), completed=iteration)
            elif self.queued and info["status"] == "interrupted":
                iterations_running += row["iteration"] if row else 0
                if folder in self.tasks:
                    self.bar.update(self.tasks[folder], description=f"  {config.curve} seed {config.seed}  waits")
            else:
                self._end_run(folder, config, info, row)
        self.bar.update(
            self.overall,
            description=f"runs {self.runs_done}/{len(self.runs)}",
            completed=self.iterations_done + iterations_running,
        )

    def _end_run(self, folder: Path, config: Config, info: Info, row: Row | None) -> None:
        del self.unfinished[folder]
        self.runs_done += 1
        self.iterations_done += config.iterations
        if "fallback" in info:
            self.fallbacks[f"{info['fallback']}; their step was '{info['step']}'"] += 1
        if folder in self.tasks:
            self.bar.remove_task(self.tasks.pop(folder))
        self.console.print(
            f"[{self.runs_done}/{len(self.runs)}] {folder}  {info['status']}{_format_accuracy(row)}"
            f"  {info.get('wall_seconds', 0):.1f} s" + (f"  {info['reason']}" if "reason" in info else "")
        )

    def _read_info(self, folder: Path) -> Info | None:
        """The record in ``folder``; None if there is none, or only that of an earlier attempt."""
        try:
            return None if modified_ns(folder) == self.earlier[folder] else read_info(folder)
        except ReproError:
            return None


def describe_mirrors(infos: Sequence[Info], output: Path) -> str | None:
    """One line on the outcomes of a sweep's W&B runs; None if there is nothing to report.

    ``output`` is the folder that holds the records.
    """
    mirrors = [info["wandb"] for info in infos if "wandb" in info]
    failed = Counter(mirror.get("reason", "no reason given") for mirror in mirrors if mirror["state"] == "failed")
    done = sum(mirror["state"] in ("mirrored", "offline") for mirror in mirrors)
    outcome = "mirrored" if any(mirror["mode"] == "online" for mirror in mirrors) else "mirrored offline"
    line = f"W&B: {done} of {plural(len(mirrors), 'run')} {outcome}"
    if failed:
        causes = [reason for reason, _ in failed.most_common() if reason != OFFLINE_SINCE] or [OFFLINE_SINCE]
        causes_text = causes[0] + ("; others for other reasons" if len(causes) > 1 else "")
        later = f"{COMMAND} {shlex.quote(str(output))}"
        return f"{line}; {failed.total()} failed ({causes_text}); upload later with {later}"
    urls = [mirror["url"].rpartition("/runs/")[0] for mirror in mirrors if "url" in mirror]
    return f"{line}: {urls[0]}" if urls else None


def modified_ns(folder: Path) -> int | None:
    """When a run's record was last written, in nanoseconds; None if there is none."""
    try:
        return (folder / "run.json").stat().st_mtime_ns
    except OSError:
        return None


def _format_accuracy(row: Row | None, short: bool = False) -> str:
    name = "" if short else "accuracy "
    return "" if row is None or row["test_accuracy"] is None else f"  {name}{row['test_accuracy']:.1%}"
