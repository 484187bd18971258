"""A server's copies of records: which W&B runs are copies of a record, which are complete, which are superseded.

A record has one W&B run per attempt, live or by ``wandb sync``, and one for each upload. Nothing is ever sent to
an existing run: W&B would append it.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from repro.records import FINISHED, Info, broken, record_id
from repro.tracking import pull
from repro.tracking.server import Project, asked, listed

PAGE = 200  # fingerprints per query
SUPERSEDED = "superseded"  # the tag of a run that a newer or more complete one replaces


@dataclass(frozen=True)
class Copy:
    """A W&B run of this suite."""

    run: Any  # of wandb's public API
    info: Info  # the record's run.json, read from the W&B run
    record: str  # the record's id
    whole: bool  # whether it has every row exactly once, by W&B's count


def found(project: Project, infos: Iterable[Info]) -> list[Copy]:
    """Every W&B run with the fingerprint of one of these records; none if the project does not exist.

    Raises ReproError if the server cannot be queried.
    """
    fingerprints = sorted({info["fingerprint"] for info in infos})
    copies = []
    for start in range(0, len(fingerprints), PAGE):
        filters = {"config.fingerprint": {"$in": fingerprints[start : start + PAGE]}}
        for run in listed(project, filters, missing_ok=True):
            info = pull.info_of(run)
            if info is not None and {"attempt", "host", "pid"} <= info.keys():
                copies.append(Copy(run, info, record_id(info), pull.is_whole(run, info)))
    return copies


def holds(copies: Sequence[Copy], info: Info) -> bool:
    """Whether one of ``copies`` is a complete copy of this record."""
    name, digest = record_id(info), info.get("digest")
    return any(copy.whole and copy.record == name and copy.info.get("digest") == digest for copy in copies)


def lacking(project: Project, name: str, info: Info, seconds: float, rows: bool = False) -> str | None:
    """What the W&B run ``name`` lacks of the record that was sent to it; None if it is complete.

    W&B may need a moment to count the rows, so it is queried again for up to ``seconds``. With ``rows`` their
    values are compared too. Raises ReproError if the server cannot be queried.
    """
    deadline, pause = time.monotonic() + seconds, 0.5
    while (problem := _lacking(project, name, info, rows)) and time.monotonic() + pause < deadline:
        time.sleep(pause)
        pause *= 2
    return problem


def _lacking(project: Project, name: str, info: Info, rows: bool) -> str | None:
    runs = listed(project, {"name": name}, missing_ok=True)
    if not runs:
        return f"run {name} does not exist; was it deleted?"
    run = runs[0]
    if run.historyLineCount != info["rows"]:
        return f"it has {run.historyLineCount} of {info['rows']} rows"
    if run.summary_metrics.get("digest") != info["digest"]:
        return "it has all rows, but not the end of the record"
    return broken(info, [*asked(project, f"run {name}", lambda: pull.pulled(run)).values()]) if rows else None


def supersede(copies: Iterable[Copy]) -> int:
    """Tag all copies of each run except the newest complete one, so that W&B's charts can exclude them.

    Returns how many were newly tagged. A copy that is running is skipped. Raises what wandb raises.
    """
    attempts: dict[tuple[str, str], list[Copy]] = {}
    for copy in copies:
        attempts.setdefault((copy.info["fingerprint"], copy.info["curve"]), []).append(copy)
    count = 0
    for group in attempts.values():
        current = max(group, key=_recency)
        unmark(current.run)
        for copy in group:
            if copy is not current and copy.run.state != "running":
                count += mark(copy.run, current.run.id)
    return count


def _recency(copy: Copy) -> tuple[bool, str, int, str]:
    info = copy.info
    return copy.whole and info["status"] in FINISHED, info["started"], info["attempt"], copy.run.id


def mark(run: Any, successor: str) -> bool:
    """Tag a W&B run as superseded by the run ``successor``; returns whether it was not tagged before."""
    if SUPERSEDED in run.tags:
        return False
    run.tags = [*run.tags, SUPERSEDED]
    run.config["superseded_by"] = successor
    run.update()
    return True


def unmark(run: Any) -> None:
    """Undo ``mark``: the run that superseded this one is gone."""
    if SUPERSEDED in run.tags:
        run.tags = [tag for tag in run.tags if tag != SUPERSEDED]
        run.config["superseded_by"] = None
        run.update()


def mark_earlier(project: Project, names: Sequence[str], successor: str) -> None:
    """Tag the existing W&B runs of a run's earlier attempts as superseded. Raises ReproError."""
    if names:
        for run in listed(project, {"name": {"$in": list(names)}}, missing_ok=True):
            mark(run, successor)


def keep_times(project: Project, name: str, info: Info) -> None:
    """Set the run time of an uploaded W&B run to its record's, in place of the upload's. Raises ReproError."""
    for run in listed(project, {"name": name}):
        seconds = info.get("wall_seconds", 0.0)
        asked(project, f"run {name}", lambda: _set_runtime(run, seconds))  # noqa: B023


def _set_runtime(run: Any, seconds: float) -> None:
    run.summary.update({"_runtime": seconds, "_wandb": {"runtime": int(seconds)}})
