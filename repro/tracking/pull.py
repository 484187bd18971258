"""Runs as Weights & Biases has them: on a server, in the cache of what came from it, in its offline files.

Whatever the source, a run is its record again: ``info`` as in ``run.json`` and the rows as in ``history.jsonl``.
"""

import json
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from repro.config import Config
from repro.config.errors import ReproError
from repro.records import ENDING, FINISHED, Info, Row, broken, is_record
from repro.records.files import find, write_whole
from repro.tracking.server import Project, first_line

Answer = TypeVar("Answer")
CONFIG = {field.name for field in fields(Config)}


@dataclass(frozen=True)
class SourceRun:
    """A run that a source has, its history not read yet."""

    name: str  # what a message calls it
    info: Info
    rows: Callable[[], list[Row]]  # raises ReproError where it is not whole


def server(project: Project, curves: Sequence[str], cache: Path) -> list[SourceRun]:
    """The runs of ``curves`` on a W&B server; their histories come from ``cache`` where that is up to date.

    Raises ReproError: no key, no such project, no answer.
    """

    def history(run: Any, info: Info) -> list[Row]:
        file = cache / _host(project) / _safe(run.entity) / _safe(run.project) / f"{_safe(run.id)}.json"
        if (kept := _read(file)) and kept["info"] == info:
            rows: list[Row] = kept["rows"]
            return rows
        rows = _asked(project, f"run {run.id}", partial(_pulled, run))
        if broken(info, rows):  # once more: W&B may not have had all of it yet
            rows = _asked(project, f"run {run.id}", partial(_pulled, run))
        if problem := broken(info, rows):
            raise ReproError(
                f"run {run.id} of {project}: {problem}; python -m repro.tracking upload sends it again"
            )
        if info["status"] in FINISHED:
            _write(file, {"info": info, "rows": rows})
        return rows

    runs_found = []
    for run in listed(project, {"config.curve": {"$in": sorted(set(curves))}}):
        info = _info(run.config, run.summary_metrics, "running" if run.state == "running" else "incomplete")
        if info is not None:
            runs_found.append(SourceRun(run.id, info, partial(history, run, info)))
    return runs_found


def cached(project: Project, cache: Path) -> list[SourceRun]:
    """What ``server`` left in the cache. No network. Raises ReproError where there is nothing."""
    folders = sorted(cache.glob(f"{_host(project)}/{_safe(project.entity or '*', '*')}/{_safe(project.name)}"))
    if not folders:
        raise ReproError(f"source=cache: nothing of {project} in {cache}; source=wandb pulls it there")
    if len(folders) > 1:
        names = ", ".join(sorted(folder.parent.name for folder in folders))
        raise ReproError(f"source=cache: {project.name} of several entities: tracking.entity= one of {names}")
    kept = {path.stem: run for path in sorted(folders[0].glob("*.json")) if (run := _read(path))}
    return [SourceRun(name, run["info"], partial(run.__getitem__, "rows")) for name, run in kept.items()]


def offline(folder: Path) -> list[SourceRun]:
    """Every run that W&B wrote under ``folder`` (``*.wandb`` files), also of killed processes and cut files.

    A run whose end is not in its file has status "incomplete". Raises ReproError where there is none.
    """
    files = find(folder, "*.wandb")
    if not files:
        raise ReproError(f"path={folder}: no W&B files (offline-run-*/run-*.wandb) there")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [run for run in pool.map(offline_file, files) if run is not None]


def listed(project: Project, filters: Mapping[str, Any], missing_ok: bool = False) -> list[Any]:
    """The runs of a project that match W&B's ``filters``, with configuration and summary.

    Raises ReproError in one line; a project that does not exist has no runs if ``missing_ok``.
    """

    def runs() -> list[Any]:
        api = _api(project)
        entity = project.entity or api.default_entity
        try:
            return list(api.runs(f"{entity}/{project.name}", dict(filters), per_page=200, lazy=False))
        except ValueError as error:
            if "Could not find project" not in str(error):
                raise
            if missing_ok:
                return []
            raise ReproError(
                f"tracking.project={project.name}: {entity} has no such project on {project.server}, "
                "or your key may not see it"
            ) from None

    return _asked(project, "the list of runs", runs)


def _api(project: Project) -> Any:
    import wandb

    project.sign_in(verify=True)
    wandb.setup(settings=project.settings(x_graphql_retry_max=4))  # about 30 s of patience, within the 60
    return wandb.Api(overrides={"base_url": project.base_url} if project.base_url else None, timeout=60)


def _asked(project: Project, what: str, question: Callable[[], Answer]) -> Answer:
    """The answer, or what wandb raises as one line. It waits and asks again by itself, but not after a cut one."""
    for attempt in range(3):
        try:
            return question()
        except ReproError:
            raise
        except Exception as error:
            line = first_line(error) or type(error).__name__
            if attempt == 2 or not re.search("EOF|reset by peer", line):
                raise ReproError(f"W&B, {project} on {project.server}: {what}: {line}") from error
            time.sleep(1 + attempt)
    raise AssertionError("unreachable")


def _pulled(run: Any) -> list[Row]:
    """A run's whole history by step, each step once, as our records hold it."""
    rows = {row["_step"]: row for row in run.scan_history(use_cache=False)}
    return [_row(rows[step]) for step in sorted(rows)]


def _row(values: Mapping[str, Any]) -> Row:
    return cast(Row, {k: _finite(v) for k, v in values.items() if not k.startswith("_")})


def _finite(value: Any) -> Any:
    """W&B writes what is not finite as a number or as "NaN", "Infinity", "-Infinity"; our records as null.

    Other runs log texts, tables and pictures.
    """
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _info(config: Mapping[str, Any], summary: Mapping[str, Any], status: str) -> Info | None:
    """``run.json`` again, or None for a run that is not of this suite."""
    if not {"fingerprint", "protocol", "curve", "seed", "scale", "started"} <= set(config):
        return None
    begun = {k: v for k, v in config.items() if k not in CONFIG and k not in ("figure", "_wandb")}
    ended = {k: summary[k] for k in ENDING if k in summary}
    own = {k: v for k, v in config.items() if k in CONFIG}
    named = {"curve": config["curve"], "seed": config["seed"], "config": own}
    info = {"status": status, **begun, **named, **ended}
    return cast(Info, info) if is_record(info) else None


def offline_file(path: Path) -> SourceRun | None:
    """The run in one W&B file, as far as that goes; None if it is not of this suite."""
    from wandb.util import get_core_path

    command = [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file", str(path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=600)
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    rows: dict[int, Row] = {}
    for line in done.stdout.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break  # cut in the middle
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
    history = [rows[step] for step in sorted(rows)]

    def whole() -> list[Row]:
        if problem := broken(info, history):
            raise ReproError(f"{path}: {problem}; the record beside it is the truth: source=local")
        return history

    return SourceRun(str(path), info, whole)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept if is_record(kept["info"]) and broken(kept["info"], kept["rows"]) is None else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not what _write wrote


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content))
    except OSError as error:
        print(f"note: {path.parent} cannot keep what was pulled ({error}); it will be pulled again")


def _host(project: Project) -> str:
    return _safe(re.sub(r"^https?://", "", project.base_url or "wandb"))


def _safe(name: str, keep: str = "") -> str:
    return re.sub(rf"[^\w.{re.escape(keep)}-]", "_", name)
