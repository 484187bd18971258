"""Reading runs from Weights & Biases: from a server, from the cache of pulled runs, from offline files.

From every source, a run is converted back to its record: ``info`` as in ``run.json``, rows as in
``history.jsonl``.
"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from repro.config import Config
from repro.config.errors import ReproError
from repro.records import ENDING, FINISHED, Info, Row, broken, is_record
from repro.records.files import find, write_whole
from repro.tracking import _compat
from repro.tracking.server import Project, asked, listed

CONFIG = {key.name for key in fields(Config)}
BESIDE = ("figure", "_wandb", "superseded_by")  # keys of a W&B run's configuration that are not in its record
AGAIN = "run the same command again to pull it once more"


@dataclass(frozen=True)
class SourceRun:
    """A run of a source; its history is read later."""

    name: str  # in messages
    info: Info
    rows: Callable[[], list[Row]]  # reads the history; raises ReproError if it is incomplete
    whole: bool = True  # whether the source reports that it has every row
    notes: list[str] = field(default_factory=list)  # filled by rows()


def server(project: Project, curves: Sequence[str], cache: Path) -> list[SourceRun]:
    """The runs of ``curves`` on a W&B server; their histories come from ``cache`` if that is up to date.

    Cached runs that the server no longer has are deleted. Raises ReproError if there is no API key, no such
    project or no response.
    """

    def history(run: Any, info: Info, notes: list[str]) -> list[Row]:
        file = _file(project, run, cache)
        if (kept := _read(file)) and kept["info"] == info:
            rows: list[Row] = kept["rows"]
            return rows
        for _ in range(2):  # twice: W&B may not have processed all rows at first
            steps = asked(project, f"run {run.id}", partial(pulled, run))
            problem = broken(info, [*steps.values()])
            if problem is None:
                break
        else:
            raise ReproError(f"run {run.id} of {project}: {problem}; {AGAIN}, or upload the record again")
        if info["status"] in FINISHED:
            _write(file, {"info": info, "rows": [*steps.values()]})
            return [*steps.values()]
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return usable(steps, f"run {run.id} of {project}", notes, run.historyLineCount)

    runs_found, entity = [], project.entity
    for run in listed(project, {"config.curve": {"$in": sorted(set(curves))}}):
        if (info := info_of(run)) is None:
            line = f"note: run {run.id} of {project} has keys of this suite but is not a record of it; skipped"
            print(line, file=sys.stderr)
            continue
        notes: list[str] = []
        rows = partial(history, run, info, notes)
        whole = "digest" in info and info.get("rows", 0) <= run.historyLineCount  # some rows may be duplicated
        linked = cast(Info, {**info, "wandb": {"id": run.id, "url": run.url}})
        runs_found.append(SourceRun(run.id, linked, rows, whole, notes))
        entity = run.entity
    if entity:
        _delete_stale(replace(project, entity=entity), curves, cache, {_safe(run.name) for run in runs_found})
    return runs_found


def is_whole(run: Any, info: Info) -> bool:
    """Whether W&B has a run's end and exactly as many rows as it recorded; with more, some are duplicated."""
    return "digest" in info and info.get("rows") == run.historyLineCount


def _delete_stale(project: Project, curves: Sequence[str], cache: Path, kept_ids: set[str]) -> None:
    """Delete cached runs of these curves that the server no longer has, with a note."""
    for folder in _folders(project, cache):
        for path in folder.glob("*.json"):
            if path.stem in kept_ids:
                continue
            with suppress(OSError, ValueError, KeyError, TypeError):
                if json.loads(path.read_bytes())["info"]["curve"] in curves:
                    line = f"note: run {path.stem} is no longer in {project}; it is deleted from the cache"
                    print(line, file=sys.stderr)
                    path.unlink()


def cached(project: Project, cache: Path) -> list[SourceRun]:
    """The runs that ``server`` cached. Uses no network. Raises ReproError if there are none."""
    folders = _folders(project, cache)
    if not folders:
        raise ReproError(f"source=cache: no runs of {project} in {cache}; source=wandb pulls them")
    if len(folders) > 1:
        names = ", ".join(sorted(folder.parent.name for folder in folders))
        raise ReproError(
            f"source=cache: several entities have {project.name}; set tracking.entity to one of: {names}"
        )
    kept = {path.stem: run for path in sorted(folders[0].glob("*.json")) if (run := _read(path))}
    return [SourceRun(name, run["info"], partial(run.__getitem__, "rows")) for name, run in kept.items()]


def offline(folder: Path) -> list[SourceRun]:
    """Every run that W&B wrote under ``folder`` (``*.wandb`` files), including those of killed processes.

    A run whose end is not in its file has status "incomplete"; files without a readable run are named in a note.
    Raises ReproError if there is no such file.
    """
    files = find(folder, "*.wandb")
    if not files:
        raise ReproError(f"path={folder}: no W&B files (offline-run-*/run-*.wandb)")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = dict(zip(files, pool.map(offline_file, files), strict=True))
    if skipped := [str(path) for path, run in read.items() if run is None]:
        rest = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        print(f"note: {skipped[0]}{rest}: no run of this suite can be read there; skipped", file=sys.stderr)
    return [run for run in read.values() if run is not None]


def pulled(run: Any) -> dict[int, Row]:
    """A run's history on the server by step, without duplicates, as rows of a record."""
    rows = {row["_step"]: row for row in _compat.scan(run)}
    return {step: _row(rows[step]) for step in sorted(rows)}


def usable(steps: Mapping[int, Row], name: str, notes: list[str], counted: int = 0) -> list[Row]:
    """The rows of an unfinished run up to the first missing step; appends a note to ``notes`` if one is missing.

    An unfinished run did not record its number of rows; ``counted`` is W&B's count.
    """
    rows = []
    for step, row in enumerate(steps.values()):
        if step not in steps:
            break
        rows.append(row)
    lost = max(counted, max(steps, default=-1) + 1)
    if len(rows) < lost:
        notes.append(f"note: {name}: of {lost} rows number {len(rows) + 1} is missing; it is drawn up to there")
    return rows


def _row(values: Mapping[str, Any]) -> Row:
    return cast(Row, {k: _finite(v) for k, v in values.items() if not k.startswith("_")})


def _finite(value: Any) -> Any:
    """A finite number, or None: W&B also returns NaN and infinities, as numbers or as texts such as "NaN".

    Runs of other tools log texts, tables and images.
    """
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def info_of(run: Any) -> Info | None:
    """``run.json`` of a run on the server, or None if it is not a run of this suite."""
    return _info(run.config, run.summary_metrics, "running" if run.state == "running" else "incomplete")


def _info(config: Mapping[str, Any], summary: Mapping[str, Any], status: str) -> Info | None:
    texts = ("fingerprint", "curve", "started")
    if not all(isinstance(config.get(key), str) for key in texts) or not isinstance(config.get("seed"), int):
        return None
    begun = {k: v for k, v in config.items() if k not in CONFIG and k not in BESIDE}
    ended = {k: summary[k] for k in ENDING if k in summary}
    run_config = {k: v for k, v in config.items() if k in CONFIG}
    identity = {"curve": config["curve"], "seed": config["seed"], "config": run_config}
    info = {"status": status, **begun, **identity, **ended}
    is_ours = is_record(info) and isinstance(run_config["scale"].get("name"), str)
    return cast(Info, info) if is_ours else None


def offline_file(path: Path) -> SourceRun | None:
    """The run in one W&B file, as far as the file is intact; None if it is not of this suite.

    Raises ReproError if the installed wandb cannot read such files.
    """
    done = subprocess.run(
        _compat.printing(path), capture_output=True, encoding="utf-8", errors="replace", timeout=600
    )
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    rows: dict[int, Row] = {}
    for line in done.stdout.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break  # a truncated file
        content = record.get(record["type"]) or {}
        if record["type"] in ("run", "config"):
            config |= (content.get("config", content)).get("update", {})
        elif record["type"] == "summary":
            summary |= content.get("update", {})
        elif record["type"] == "history":
            rows[content["step"]["num"]] = _row(content["item"])
    info = _info(config, summary, "incomplete")
    if info is None:
        return None
    steps = {step: rows[step] for step in sorted(rows)}
    history = [*steps.values()]
    notes: list[str] = []

    def read_rows() -> list[Row]:
        if problem := broken(info, history):
            raise ReproError(f"{path}: {problem}; draw from the record on disk: source=local")
        if "digest" in info:
            return history
        kept = usable(steps, str(path), notes)
        if "corrupt" in done.stderr and not notes:  # wandb skips what it cannot read
            notes.append(f"note: {path}: damaged after row number {len(kept)}; it is drawn up to there")
        return kept

    return SourceRun(str(path), info, read_rows, broken(info, history) is None, notes)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept if is_record(kept["info"]) and broken(kept["info"], kept["rows"]) is None else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not a file of _write


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content))
    except OSError as error:
        print(f"note: the pulled run cannot be cached in {path.parent} ({error}); it will be pulled again")


def _folders(project: Project, cache: Path) -> list[Path]:
    return sorted(cache.glob(place(project)))


def _file(project: Project, run: Any, cache: Path) -> Path:
    return cache / _host(project) / _safe(run.entity) / _safe(run.project) / f"{_safe(run.id)}.json"


def place(project: Project) -> str:
    """The folder of a project, relative to that of all projects; a glob pattern if its entity is unknown."""
    return f"{_host(project)}/{_safe(project.entity or '*', '*')}/{_safe(project.name)}"


def _host(project: Project) -> str:
    return _safe(re.sub(r"^https?://", "", project.base_url or "wandb"))


def _safe(name: str, keep: str = "") -> str:
    return re.sub(rf"[^\w.{re.escape(keep)}-]", "_", name)
