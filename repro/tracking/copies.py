"""What a server holds of records: which W&B runs are copies of one, which are whole, which others replaced.

A record has one W&B run an attempt, live or through ``wandb sync``, and one for each time that it was uploaded.
Nothing is ever sent to a run that is there: W&B would append it.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from repro.records import FINISHED, Info, broken, record_id
from repro.tracking import pull
from repro.tracking.server import Project, asked, listed

PAGE = 200  # names in one question
SUPERSEDED = "superseded"  # the tag of a run beside which a newer or more whole one stands


@dataclass(frozen=True)
class Copy:
    """A W&B run of this suite."""

    run: Any  # of wandb's public API
    info: Info  # its record again
    record: str  # that record's id
    whole: bool  # with every row, each once, as far as W&B counts


def found(project: Project, infos: Iterable[Info]) -> list[Copy]:
    """Every W&B run of the runs that these records are attempts at. Raises ReproError; no project, no runs."""
    prints = sorted({info["fingerprint"] for info in infos})
    copies = []
    for start in range(0, len(prints), PAGE):
        chosen = {"config.fingerprint": {"$in": prints[start : start + PAGE]}}
        for run in listed(project, chosen, missing_ok=True):
            info = pull.info_of(run)
            if info is not None and {"attempt", "host", "pid"} <= info.keys():
                copies.append(Copy(run, info, record_id(info), pull.is_whole(run, info)))
    return copies


def holds(copies: Sequence[Copy], info: Info) -> bool:
    """Whether one of ``copies`` is this record, whole."""
    name, digest = record_id(info), info.get("digest")
    return any(copy.whole and copy.record == name and copy.info.get("digest") == digest for copy in copies)


def lacking(project: Project, name: str, info: Info, seconds: float, rows: bool = False) -> str | None:
    """What the W&B run ``name`` lacks of the record that was sent to it; None if it is whole.

    W&B may need a moment to count what it was sent: it is asked again for so many ``seconds``. With ``rows`` the
    values are compared too. Raises ReproError where it cannot be asked.
    """
    deadline, pause = time.monotonic() + seconds, 0.5
    while (problem := _lacking(project, name, info, rows)) and time.monotonic() + pause < deadline:
        time.sleep(pause)
        pause *= 2
    return problem


def _lacking(project: Project, name: str, info: Info, rows: bool) -> str | None:
    runs = listed(project, {"name": name}, missing_ok=True)
    if not runs:
        return f"run {name} is not there; was it deleted?"
    run = runs[0]
    if run.historyLineCount != info["rows"]:
        return f"{run.historyLineCount} of its {info['rows']} rows are there"
    if run.summary_metrics.get("digest") != info["digest"]:
        return "its rows are there, and not its end"
    return broken(info, [*asked(project, f"run {name}", lambda: pull.pulled(run)).values()]) if rows else None


def supersede(copies: Iterable[Copy]) -> int:
    """Mark, of each run, all copies but the newest whole one, so that W&B's charts can leave them out; how many.

    A copy that is running stays as it is. Raises what wandb raises.
    """
    attempts: dict[tuple[str, str], list[Copy]] = {}
    for copy in copies:
        attempts.setdefault((copy.info["fingerprint"], copy.info["curve"]), []).append(copy)
    count = 0
    for several in attempts.values():
        current = max(several, key=_recency)
        unmark(current.run)
        for copy in several:
            if copy is not current and copy.run.state != "running":
                count += mark(copy.run, current.run.id)
    return count


def _recency(copy: Copy) -> tuple[bool, str, int, str]:
    info = copy.info
    return copy.whole and info["status"] in FINISHED, info["started"], info["attempt"], copy.run.id


def mark(run: Any, successor: str) -> bool:
    """Say in a W&B run's tags and configuration that ``successor`` stands for it; whether that was news."""
    if SUPERSEDED in run.tags:
        return False
    run.tags = [*run.tags, SUPERSEDED]
    run.config["superseded_by"] = successor
    run.update()
    return True


def unmark(run: Any) -> None:
    """Take back what ``mark`` said: the run that stood for this one has gone."""
    if SUPERSEDED in run.tags:
        run.tags = [tag for tag in run.tags if tag != SUPERSEDED]
        run.config["superseded_by"] = None
        run.update()


def mark_earlier(project: Project, names: Sequence[str], successor: str) -> None:
    """Mark the W&B runs of a run's earlier attempts, as far as they are there. Raises ReproError."""
    if names:
        for run in listed(project, {"name": {"$in": list(names)}}, missing_ok=True):
            mark(run, successor)


def keep_times(project: Project, name: str, info: Info) -> None:
    """Give an uploaded W&B run the time that its record took: wandb counted that of the upload. ReproError."""
    for run in listed(project, {"name": name}):
        seconds = info.get("wall_seconds", 0.0)
        asked(project, f"run {name}", lambda: _set_runtime(run, seconds))  # noqa: B023


def _set_runtime(run: Any, seconds: float) -> None:
    run.summary.update({"_runtime": seconds, "_wandb": {"runtime": int(seconds)}})
