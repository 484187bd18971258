"""Sending runs to Weights & Biases: live while they train, or from their records on disk.

The record on disk is authoritative. A failure of W&B never stops or delays training: it is logged once and stored
in ``run.json``, and ``python -m repro.tracking upload`` sends the record later. wandb is imported only where it is
used.
"""

import logging
import queue
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from omegaconf import OmegaConf

from repro.config import Config, Mode, Tracking, from_dict
from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.records import ENDING, FINISHED, Info, read_history, record_id
from repro.records.naming import shortened
from repro.tracking import _compat, copies, environment
from repro.tracking.pull import offline_file
from repro.tracking.server import Project, find_project, first_line

log = logging.getLogger(__name__)
FLUSH = 1.0  # seconds of rows that an offline file can lose when the process is killed; wandb's default is 15
NAME = 128  # W&B's limit of characters of a name or group
LOCAL_PATIENCE = 120.0  # least seconds that the end of a run waits for an offline file, which needs no server
SETTLE = 10.0  # seconds for W&B to count the rows that it was sent, or to write the rest of its file
NOTICE = 10.0  # seconds of waiting for W&B until it is logged
COMMAND = "python -m repro.tracking upload"
OFFLINE_SINCE = "mirrored offline since W&B failed in another run"
silent: Any = SimpleNamespace(value=0)  # 1: W&B online did not respond; later runs are mirrored offline at once


def require(tracking: Tracking) -> None:
    """Raise ReproError, before anything is trained, if ``tracking=online`` cannot work: no wandb, no API key."""
    if tracking.mode is Mode.online:
        try:
            find_project(tracking.entity, tracking.project, tracking.base_url).sign_in()
        except ImportError as error:
            raise ReproError(f"tracking=online: {error}; tracking=disabled does not need it") from None
        except ReproError as error:
            raise ReproError(f"tracking=online: {error}; tracking=offline does not need it") from None
        except Exception as error:
            raise ReproError(f"tracking=online: {first_line(error)}") from error


class Mirror:
    """Sends one run's rows to W&B from a separate thread, so that training never waits for it.

    ``outcome`` is the value of ``wandb`` in ``run.json``: the requested mode, the run's id and, online, its URL;
    the state "begun", and at the end "mirrored", "offline", or "failed" with the reason. Empty if W&B is disabled.
    """

    def __init__(self, info: Mapping[str, Any], folder: Path):
        tracking = from_dict(info["config"]).tracking
        self.rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.end: dict[str, Any] = {}
        self.outcome: dict[str, Any] = {}
        self.folder, self.thread = folder, None
        self.online = tracking.mode is Mode.online and not silent.value
        self.patience = tracking.patience if self.online else max(tracking.patience, LOCAL_PATIENCE)
        if tracking.mode is not Mode.disabled:
            self.outcome = {"mode": tracking.mode.value, "id": record_id(info), "state": "begun"}
            arguments = (dict(info), folder, tracking)
            self.thread = threading.Thread(target=self._work, args=arguments, name="wandb", daemon=True)
            self.thread.start()

    def row(self, values: Mapping[str, Any]) -> None:
        """Send a row of the record."""
        self.rows.put(dict(values))

    def finish(self, info: Mapping[str, Any]) -> None:
        """Send the record's end and wait for W&B, at most ``patience`` seconds; then ``outcome`` is final."""
        if self.thread is None:
            return
        self.end = dict(info)
        self.rows.put(None)
        self.thread.join(min(NOTICE, self.patience))
        if self.thread.is_alive() and self.patience > NOTICE:
            log.info("waiting for W&B, %.0f s at most (tracking.patience)", self.patience)
            self.thread.join(self.patience - NOTICE)
        if self.thread.is_alive():
            if self.online:
                silent.value = 1
            self._fail(f"has not responded for {self.patience:.0f} s", "no answer")
        elif "url" in self.outcome and self.outcome["state"] == "mirrored":
            log.info("W&B: %s", self.outcome["url"])

    def _work(self, info: dict[str, Any], folder: Path, tracking: Tracking) -> None:
        project = find_project(tracking.entity, tracking.project, tracking.base_url)
        try:
            with started(info, folder, project, self.online) as run:
                if self.online:
                    project = replace(project, entity=run.entity)
                    self._add(url=run.url)
                    with suppress(Exception):  # ``upload`` tags them too
                        copies.mark_earlier(project, info.get("earlier", []), run.id)
                while (row := self.rows.get()) is not None:
                    run.log(_present(row))
                run.summary.update(ending(self.end))
            if not self.online:
                _require_end(_compat.offline_file(run), self.end, SETTLE)
            elif "rows" in self.end and (
                problem := copies.lacking(project, run.id, cast(Info, self.end), min(SETTLE, self.patience / 3))
            ):
                raise ReproError(problem)
            if self.online or tracking.mode is Mode.offline:
                self._add(state="mirrored" if self.online else "offline")
            else:
                self._add(state="failed", reason=OFFLINE_SINCE)
        except Exception as error:
            if self.online:
                silent.value = 1
            kind, line = type(error).__name__, first_line(error)
            reason = line if isinstance(error, ReproError) else f"{kind}: {line}" if line else kind
            self._fail(f"failed ({reason})", line or kind)

    def _add(self, **more: Any) -> None:
        if self.outcome["state"] != "failed":
            self.outcome = {**self.outcome, **more}  # replaced atomically: another thread reads it

    def _fail(self, what: str, reason: str) -> None:
        if self.outcome["state"] != "failed":
            self._add(state="failed", reason=reason)
            folder = shlex.quote(str(self.folder))
            log.warning("W&B %s; the record on disk is whole; %s %s sends it later", what, COMMAND, folder)


@contextmanager
def started(
    info: Mapping[str, Any], folder: Path, project: Project, online: bool, name: str | None = None
) -> Iterator[Any]:
    """A W&B run for a record, finished on leaving (wandb would merge the next run of a process into an open one).

    Its id is ``name``, for an upload, or the record's. Raises what wandb raises, and ReproError without an API key
    (wandb would prompt for one).
    """
    import wandb

    config = from_dict(info["config"])
    tracking, live = config.tracking, name is None
    described = _described(config, info, live)
    settings = project.settings(
        **_compat.quiet(live and tracking.system_metrics, live and tracking.code),
        **_compat.flushed_every(FLUSH),
        **described.pop("settings"),
        init_timeout=tracking.patience if online else max(tracking.patience, LOCAL_PATIENCE),
        finish_timeout=tracking.patience if online else max(tracking.patience, LOCAL_PATIENCE),
        finish_timeout_raises=True,
    )
    if online:
        project.sign_in()
    run = wandb.init(
        id=name or record_id(info),
        mode="online" if online else "offline",
        entity=project.entity,
        project=project.name,
        dir=folder,
        reinit="create_new",
        settings=settings,
        **described,
    )
    x = x_axis(config.curve.split("/")[0])
    run.define_metric("iteration")
    run.define_metric(x)
    run.define_metric("*", step_metric=x)
    failed = 1
    try:
        yield run
        failed = int(run.summary.get("status") not in FINISHED)
    finally:
        run.finish(exit_code=failed)


def _described(config: Config, info: Mapping[str, Any], live: bool) -> dict[str, Any]:
    """Name, group, tags, job type, notes and configuration of a W&B run, and the settings that describe it.

    A run with further overrides has another group, job type and tag than the figure's runs, so that W&B's means
    over a group are the figure's.
    """
    figure, scale, variant = config.curve.split("/")[0], config.scale, info.get("variant") or ""
    tags = [figure, config.curve, scale.name, config.replicates.value, *(["variant"] if variant else [])]
    parts = [f"experiment={config.curve}", variant, f"seed={config.seed}", f"attempt={info['attempt']}"]
    parts += [scale.note, config.tracking.notes]
    tags, group, notes = environment.described(
        [*tags, *config.tracking.tags],
        shortened(f"{config.curve}{f', {variant}' if variant else ''}", NAME),
        " ".join(filter(None, parts)),
    )
    begun = {k: v for k, v in info.items() if k not in (*ENDING, "config", "wandb")}
    commit = (info.get("commit") or "").removesuffix("-dirty")
    settings: dict[str, Any] = {"git_commit": commit} if commit and not config.tracking.code else {}
    if not live:  # the host that trained it, not the one that uploads it
        settings["host"] = info["host"]
    if "command" in info and not config.tracking.code:
        settings["program"] = info["command"]
    return {
        "name": _name(config, variant),
        "group": shortened(group, NAME),
        "job_type": "variant" if variant else "train",
        "tags": tags,
        "notes": notes,
        "config": {"figure": figure, **begun, **info["config"]},
        "settings": settings,
    }


def _name(config: Config, variant: str) -> str:
    """The display name of a W&B run, at most 128 characters."""
    seed = f" seed {config.seed}"
    return shortened(f"{config.curve}{f', {variant}' if variant else ''}", NAME - len(seed)) + seed


def ending(info: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a record adds at its end, as the summary of a W&B run."""
    return {key: info[key] for key in ENDING if key in info}


def x_axis(figure: str) -> str:
    """The x axis of W&B's charts of a figure's runs: "lr" or "momentum" if the figure has it, else "iteration"."""
    path = CONF / "figure" / f"{figure}.yaml"
    x = OmegaConf.select(OmegaConf.load(path), "x") if path.exists() else None
    return x if x in ("lr", "momentum") else "iteration"


def send(folder: Path, info: Info, project: Project, name: str, staging: Path) -> tuple[str, str]:
    """Upload one finished record as the W&B run ``name``; returns its entity and URL.

    wandb's files go below ``staging``. Raises what wandb raises.
    """
    rows = read_history(folder)
    start, seconds = datetime.fromisoformat(info["started"]).timestamp(), info.get("wall_seconds", 0.0)
    last = max((row["iteration"] for row in rows), default=0) or 1
    run_staging = Path(tempfile.mkdtemp(dir=staging))
    with started(info, run_staging, project, online=True, name=name) as run:
        for row in rows:  # with the time at which the run reached it, assuming constant speed
            reached = start + seconds * row["iteration"] / last
            run.log({**_present(row), "_timestamp": reached})
        run.summary.update(ending(info))
    return str(run.entity), str(run.url)


def _require_end(file: Path, end: Mapping[str, Any], seconds: float) -> None:
    """Raise OSError if an offline file lacks its run's end after ``seconds``: wandb does not report a full disk.

    wandb's core may still write to the file after it has finished the run, so it is read again until then.
    Nothing is checked if the installed wandb cannot read its files.
    """
    deadline, pause = time.monotonic() + seconds, 0.05
    while True:
        try:
            written = offline_file(file)
        except ReproError:
            return
        if written is not None and written.info["status"] == end["status"]:
            return
        if time.monotonic() + pause > deadline:
            raise OSError(f"{file} is incomplete; is the disk full?")
        time.sleep(pause)
        pause *= 2


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v is not None}
