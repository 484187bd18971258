"""Where every run stands, read off its record. No torch here."""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.config import Config
from repro.config.errors import ReproError
from repro.records import FINISHED, last_row, outdated, read_info
from repro.records.lock import holder

if TYPE_CHECKING:
    from rich.table import Table

SECONDS = 5.0  # between two looks of --watch
COLUMNS = ("run", "state", "iteration", "accuracy", "images/s", "left", "host", "reason")


def look(folder: Path, config: Config | None = None) -> dict[str, Any]:
    """One run: its state ("missing", "running", "stopped", or what its record says), progress, host, reason.

    "stopped" is a run that died without saying so. ``config`` is what the run should be: "outdated" is a record of
    other values, as its reason says. Speed is in images a second, time left in seconds, accuracy a fraction.
    """
    iterations = config.iterations if config else None
    nothing = dict.fromkeys(("iteration", "accuracy", "images_per_second", "seconds_left", "host", "reason"))
    found: dict[str, Any] = {"run": str(folder), "state": "missing", "iterations": iterations, **nothing}
    try:
        info = read_info(folder)
    except ReproError as error:
        return {**found, "state": "broken", "reason": str(error)}
    if info is None:
        return found
    row = last_row(folder) or {"iteration": 0}
    total = info["config"]["iterations"]
    state = info["status"]
    reason = info.get("reason")
    if state == "running" and holder(folder) is None:
        state = "stopped"
    if config and (other := outdated(info, config)):
        state, reason = "outdated", other
    speed = row.get("images_per_second")
    left = None
    if state == "running" and speed:
        left = (total - row["iteration"]) * info["config"]["batch_size"] / speed
    return {
        **found,
        "state": state,
        "iteration": row["iteration"],
        "iterations": total,
        "accuracy": row.get("test_accuracy"),
        "images_per_second": speed,
        "seconds_left": left,
        "host": info.get("host"),
        "reason": reason,
    }


def show(runs: Iterable[tuple[Path, Config | None]], mode: str) -> None:
    """Print runs, folder and what they should be, as a table or as JSON; mode is "table", "watch" or "json"."""
    wanted = list(runs)
    if mode == "json":
        print(json.dumps(rows(wanted), indent=1))
    elif mode == "watch":
        _watch(wanted)
    else:
        from rich.console import Console

        console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=200)
        console.print(table(rows(wanted)))


def rows(runs: Iterable[tuple[Path, Config | None]]) -> list[dict[str, Any]]:
    """Every run as ``look`` sees it."""
    return [look(folder, config) for folder, config in runs]


def _watch(runs: list[tuple[Path, Config | None]]) -> None:
    from rich.live import Live

    with Live(table(now := rows(runs)), auto_refresh=False) as live:
        while any(row["state"] not in FINISHED for row in now):
            time.sleep(SECONDS)
            now = rows(runs)
            live.update(table(now), refresh=True)


def table(rows: list[dict[str, Any]]) -> "Table":
    """A line a run, under how many there are in each state."""
    from rich.table import Table

    states: dict[str, int] = {}
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + 1
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    table = Table(title=f"{len(rows)} runs: {counts}" if rows else "no runs", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, overflow="fold", min_width=40 if column == "run" else None)
    for row in rows:
        done = "" if row["iteration"] is None else f"{row['iteration']}/{row['iterations']}"
        accuracy, speed, left = (row.get(key) for key in ("accuracy", "images_per_second", "seconds_left"))
        table.add_row(
            row["run"],
            row["state"],
            done,
            "" if accuracy is None else f"{accuracy:.1%}",
            "" if speed is None else f"{speed:,.0f}",
            "" if left is None else f"{left / 60:,.1f} min",
            (row.get("host") or "") if row["state"] in ("running", "stopped") else "",
            row.get("reason") or "",
        )
    return table
