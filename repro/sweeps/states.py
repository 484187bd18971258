"""The state of every run, read from its record. Does not import torch."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.config import Config
from repro.config.errors import ReproError
from repro.config.terminal import console, plural
from repro.records import FINISHED, edited, last_row, outdated, queued, read_info, starts
from repro.records.existing import require_history
from repro.records.lock import holder
from repro.records.types import Info

if TYPE_CHECKING:
    from rich.table import Table

WATCH_SECONDS = 5.0  # between two updates of --watch
COLUMNS = ("run", "state", "iteration", "accuracy", "images/s", "left", "step", "W&B", "host", "job", "reason")


def describe_run(
    folder: Path, config: Config | None = None, alive: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One run: its state, progress, step, host, job and reason; accuracy is a fraction.

    Its state is the status in its record, or "missing", "broken" (unreadable, or with another history than the run
    recorded), "stopped" (its process died without recording an end), "queued" (its job waits in Slurm's queue;
    ``alive`` has the states of the jobs there) or "outdated" (recorded with other values than ``config``; the
    reason names them). ``engine``, ``job`` and ``log`` are those of the cluster job last submitted for it.
    """
    row = _describe_record(folder, config)
    job = queued.read(folder)
    if job is None:
        return row
    state = (alive or {}).get(job["id"])
    if state in queued.WAITING and row["state"] not in FINISHED:
        row["state"], row["reason"] = "queued", f"{job['engine']}: {state}"
    elif state is not None and row["state"] == "stopped":
        row["state"] = "running"  # its lock is not seen from here: some file systems' locks are a node's own
    return {**row, "engine": job["engine"], "job": job["id"], "log": job["log"]}


def _describe_record(folder: Path, config: Config | None) -> dict[str, Any]:
    iterations = config.iterations if config else None
    empty = dict.fromkeys(("iteration", "accuracy", "images_per_second", "seconds_left", "step", "host", "reason"))
    empty |= {"wandb": None, "url": None, "engine": None, "job": None, "log": None}
    missing: dict[str, Any] = {"run": str(folder), "state": "missing", "iterations": iterations, **empty}
    try:
        info = read_info(folder)
        if info is None:
            return {**missing, "reason": starts.problem(config) if config else None}
    except ReproError as error:
        return {**missing, "state": "broken", "reason": str(error)}
    row = last_row(folder) or {"iteration": 0}
    damage = _damage(folder, info)
    total = info["config"]["iterations"]
    state = info["status"]
    mirror = info.get("wandb", {})
    unsent = f"W&B: {mirror.get('reason')}" if mirror.get("state") == "failed" else None
    reason = info.get("reason") or info.get("fallback") or unsent
    if state == "running" and holder(folder) is None:
        state = "stopped"
    if config and (difference := outdated(info, config)):
        state, reason = "outdated", difference
    if config and state in FINISHED and not reason:
        reason = (edits := edited(info, config)) and f"{edits} it was trained"
    if damage:
        state, reason = "broken", damage
    speed = row.get("images_per_second")
    seconds_left = None
    if state == "running" and speed:
        seconds_left = (total - row["iteration"]) * info["config"]["batch_size"] / speed
    return {
        **missing,
        "state": state,
        "iteration": row["iteration"],
        "iterations": total,
        "accuracy": row.get("test_accuracy"),
        "images_per_second": speed,
        "seconds_left": seconds_left,
        "step": info.get("step"),
        "wandb": mirror.get("state"),
        "url": mirror.get("url"),
        "host": info.get("host"),
        "reason": reason,
    }


def _damage(folder: Path, info: Info) -> str | None:
    """Why the history of a run that has ended is not the one that it recorded; None if it is."""
    try:
        if "digest" in info:
            require_history(folder, info)
    except ReproError as error:
        return str(error)
    return None


def print_states(runs: Iterable[tuple[Path, Config | None]], mode: str) -> None:
    """Print the state of each run, a folder and its expected configuration; mode is "table", "watch" or "json"."""
    runs = list(runs)
    if mode == "json":
        print(json.dumps(describe_runs(runs), indent=1))
    elif mode == "watch":
        _watch(runs)
    else:
        options = {"soft_wrap": True} if sys.stdout.isatty() else {"width": 200}
        console(**options).print(build_table(describe_runs(runs)))


def describe_runs(runs: Iterable[tuple[Path, Config | None]]) -> list[dict[str, Any]]:
    """``describe_run`` for each run; Slurm's queue is asked once."""
    runs = list(runs)
    alive = queued.alive(queued.read(folder) for folder, _ in runs)
    return [describe_run(folder, config, alive) for folder, config in runs]


def _watch(runs: list[tuple[Path, Config | None]]) -> None:
    from rich.live import Live

    with Live(build_table(rows := describe_runs(runs)), console=console(), auto_refresh=False) as live:
        while any(row["state"] not in FINISHED for row in rows):
            time.sleep(WATCH_SECONDS)
            rows = describe_runs(runs)
            live.update(build_table(rows), refresh=True)


def build_table(rows: list[dict[str, Any]]) -> "Table":
    """A table with one row per run, titled with the number of runs in each state."""
    from rich.table import Table

    states: dict[str, int] = {}
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + 1
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    table = Table(title=f"{plural(len(rows), 'run')}: {counts}" if rows else "no runs", title_justify="left")
    has_jobs = any(row.get("job") for row in rows)
    for column in COLUMNS:
        if column == "job" and not has_jobs:
            continue
        table.add_column(column, overflow="fold", min_width=40 if column == "run" else None)
    for row in rows:
        progress = "" if row["iteration"] is None else f"{row['iteration']}/{row['iterations']}"
        accuracy, speed, seconds_left = (row.get(key) for key in ("accuracy", "images_per_second", "seconds_left"))
        table.add_row(
            row["run"],
            row["state"],
            progress,
            "" if accuracy is None else f"{accuracy:.1%}",
            "" if speed is None else f"{speed:,.0f}",
            "" if seconds_left is None else f"{seconds_left / 60:,.1f} min",
            row.get("step") or "",
            row.get("wandb") or "",
            (row.get("host") or "") if row["state"] in ("running", "stopped") else "",
            *([f"{row['engine']} {row['job']}" if row.get("job") else ""] if has_jobs else []),
            row.get("reason") or "",
        )
    return table
