"""Where every run stands: ``python -m repro.status [sweep=fig8b] [scale=...] [--watch] [--json]``.

With a sweep (or any arguments of ``repro.train``) it lists the runs of that sweep, the missing ones too; alone,
every run under ``multirun_outputs``, or under ``output=DIR``.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from repro.checkpoints import holder
from repro.config import Config
from repro.errors import ReproError
from repro.records import FINISHED, last_row, outdated, read_info

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

    def rows() -> list[dict[str, Any]]:
        return [look(folder, config) for folder, config in wanted]

    if mode == "json":
        print(json.dumps(rows(), indent=1))
    elif mode == "watch":
        _watch(rows)
    else:
        from rich.console import Console

        console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=200)
        console.print(_table(rows()))


def _watch(rows: Callable[[], list[dict[str, Any]]]) -> None:
    from rich.live import Live

    with Live(_table(now := rows()), auto_refresh=False) as live:
        while any(row["state"] not in FINISHED for row in now):
            time.sleep(SECONDS)
            now = rows()
            live.update(_table(now), refresh=True)


def _table(rows: list[dict[str, Any]]) -> Any:
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


def main() -> None:
    """The console script ``repro-status``."""
    arguments = [a for a in sys.argv[1:] if a not in ("--json", "--watch")]
    mode = "json" if "--json" in sys.argv else "watch" if "--watch" in sys.argv else "table"
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
    elif any(not argument.startswith("output=") for argument in arguments):
        from repro import train

        train.show(arguments, mode)
    else:
        output = Path(arguments[-1].removeprefix("output=") if arguments else "multirun_outputs")
        if not output.is_dir():
            sys.exit(f"error: output={output}: no such folder; run it where the runs were started, or name theirs")
        show(((path.parent, None) for path in sorted(output.rglob("run.json"))), mode)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
