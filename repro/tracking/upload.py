"""Weights & Biases outside training: upload records later, save views.

python -m repro.tracking upload [FOLDER ...]      upload finished records that W&B does not have yet
python -m repro.tracking workspace [FIGURE ...]   save one view per figure (needs wandb-workspaces)
"""

import argparse
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro.config import Tracking, from_dict
from repro.config.errors import ReproError
from repro.config.folders import cache_folder
from repro.config.terminal import console, plural
from repro.records import FINISHED, Info, files, read_info, record_id, write_info
from repro.records.lock import holder, locked
from repro.tracking import copies
from repro.tracking.mirror import send
from repro.tracking.pull import place
from repro.tracking.server import PROJECT, Project, asked, find_project, first_line, noticed

PLACE = ("entity", "project", "base_url")
KEYS = [f"tracking.{key}" for key in PLACE]  # as in training
SETTLE = 30.0  # seconds for W&B to count the rows that it was sent
Records = dict[str, tuple[Path, Info]]  # record id -> folder, run.json


def upload(folders: Sequence[Path], find: Callable[[Tracking], Project], jobs: int = 4) -> tuple[int, list[str]]:
    """Upload the finished records under ``folders`` of which W&B has no complete copy.

    Returns how many were uploaded, and one line per failure. ``find`` gives a record's project, ``jobs`` is the
    number of concurrent uploads. An incomplete or duplicated copy is uploaded again under a new id, because W&B
    appends to existing runs. Each record is looked up again right before it is sent, and its rows are compared
    afterwards. A lock allows one upload per project at a time. When interrupted, it abandons the threads that wait
    for W&B.
    """
    from rich.progress import Progress

    by_project, unfinished, errors = _records(folders, find)
    count = 0
    stagings = []
    uploads = Path(os.environ.get("WANDB_CACHE_DIR") or cache_folder() / "wandb") / "uploads"
    pool = ThreadPoolExecutor(jobs)
    try:
        with ExitStack() as locks:
            to_send = []
            for target, records in by_project.items():
                lock = uploads / place(replace(target, entity="-"))
                locks.enter_context(locked(lock, f"{target} is being uploaded to"))
                stagings.append(staging := lock / "wandb")
                shutil.rmtree(staging, ignore_errors=True)  # left by a killed upload
                staging.mkdir()
                copies_there = copies.found(target, [info for _, info in records.values()])
                missing = [run for run in records.values() if not copies.holds(copies_there, run[1])]
                print(f"{target}: {len(records)} finished runs, {len(records) - len(missing)} uploaded already")
                for line in _describe_incomplete(target, missing, copies_there):
                    print(line)
                to_send += [(target, path, info, staging) for path, info in missing]
            if unfinished:
                print(f"{unfinished} unfinished runs are skipped")
            sending = {
                pool.submit(_send, path, info, target, staging): path for target, path, info, staging in to_send
            }
            with Progress(console=console(stderr=True), transient=True) as bar:
                for done in bar.track(as_completed(sending), total=len(sending), description="uploading"):
                    count += _is_sent(done, sending[done], errors)
            for target, records in by_project.items():
                infos = [info for _, info in records.values()]
                errors += _mark_superseded(target, infos)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        _clear(stagings, interrupted=True)
        raise
    pool.shutdown()
    _clear(stagings, interrupted=False)
    return count, errors


def _clear(folders: Sequence[Path], interrupted: bool) -> None:
    """Delete wandb's files; for a second after an interruption, threads may still create folders."""
    for _ in range(10 if interrupted else 1):
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1 * interrupted)


def _records(
    folders: Sequence[Path], find: Callable[[Tracking], Project]
) -> tuple[dict[Project, Records], int, list[str]]:
    """The finished records by project, the number of unfinished ones, and one line for each unusable record."""
    records: dict[Project, Records] = {}
    unfinished, errors = 0, []
    for path in sorted({path for folder in folders for path in files.run_folders(folder)}):
        try:
            info = read_info(path)
        except ReproError as error:
            errors.append(str(error))
            continue
        if info is None or info["status"] not in FINISHED or holder(path) is not None:
            unfinished += 1
            continue
        try:
            target, name = find(from_dict(info["config"]).tracking), record_id(info)
        except (ReproError, KeyError) as error:
            missing_key = isinstance(error, KeyError)
            errors.append(f"{path}: {f'its run.json has no {error}' if missing_key else error}; it is not sent")
            continue
        records.setdefault(target, {}).setdefault(name, (path, info))
    return records, unfinished, errors


def _describe_incomplete(
    target: Project, missing: Sequence[tuple[Path, Info]], copies_there: Sequence[copies.Copy]
) -> list[str]:
    """One line for each record whose copy on W&B is incomplete or duplicated, or no longer exists."""
    lines = []
    names = {copy.run.id for copy in copies_there}
    for _, info in missing:
        name, known = record_id(info), info.get("wandb", {})
        incomplete = [c for c in copies_there if c.record == name]
        if incomplete:
            counts = " and ".join(f"{c.run.historyLineCount} (run {c.run.id})" for c in incomplete)
            lines.append(f"note: {name}: of {info.get('rows')} rows W&B has {counts}; it is sent under a new id")
        elif (
            known.get("state") in ("mirrored", "uploaded")
            and known.get("id") not in names
            and f"/{target.name}/runs/" in known.get("url", "")  # not that of another project
        ):
            lines.append(f"note: run {known.get('id')} no longer exists (deleted?); it is sent under a new id")
    return lines


def _send(path: Path, info: Info, target: Project, staging: Path) -> bool:
    """Send a record under a new id; False if W&B has it meanwhile. Raises ReproError if it arrives incomplete."""
    if copies.holds(copies.found(target, [info]), info):
        return False
    name = f"{record_id(info)}-{secrets.token_hex(2)}"  # never the id of an existing run
    with noticed(target, f"{path}: upload"):
        entity, url = send(path, info, target, name, staging)
    target = replace(target, entity=entity)
    if problem := copies.lacking(target, name, info, seconds=SETTLE, rows=True):
        raise ReproError(f"sent as {url}, but {problem}; upload it again")
    copies.keep_times(target, name, info)
    if "wandb" in info:  # records that predate the key are not changed
        _record(path, info, {"mode": info["wandb"].get("mode"), "id": name, "url": url, "state": "uploaded"})
    return True


def _record(path: Path, info: Info, state: dict[str, Any]) -> None:
    """Write the state of its mirror into a record that is still ``info``, and not where it is trained again."""
    with suppress(OSError, ReproError):
        if record_id(info) == record_id(read_info(path) or {}):
            with locked(path):
                current = read_info(path)
                if current is not None and {**current, "wandb": None} == {**info, "wandb": None}:
                    write_info(path, {**current, "wandb": state})


def _is_sent(done: "Future[bool]", path: Path, errors: list[str]) -> bool:
    if failure := done.exception():
        kind = "" if isinstance(failure, ReproError) else f"{type(failure).__name__}: "
        errors.append(f"{path}: {kind}{first_line(failure)}")
        return False
    return done.result()


def _mark_superseded(target: Project, infos: Sequence[Info]) -> list[str]:
    """Tag superseded copies; returns one line if that fails."""
    try:
        copies_there = copies.found(target, infos)
        count = asked(target, "marking superseded runs", lambda: copies.supersede(copies_there))
    except ReproError as error:
        return [str(error)]
    if count:
        print(
            f"{target}: {count} runs now have the tag '{copies.SUPERSEDED}': newer or complete copies replace them"
        )
    return []


def _settings(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The settings ``tracking.<key>=<value>`` among the arguments, and the other arguments."""
    pairs = [argument.partition("=") for argument in arguments]
    settings = {key.removeprefix("tracking."): value for key, _, value in pairs if key in KEYS}
    return settings, [argument for argument in arguments if argument.partition("=")[0] not in KEYS]


def main() -> None:
    """The console script ``repro-tracking``."""
    parser = argparse.ArgumentParser("repro.tracking", description="Weights & Biases outside training.")
    commands = parser.add_subparsers(dest="command", required=True)
    sending = commands.add_parser("upload", help="upload finished records that W&B does not have yet")
    sending.add_argument("folders", nargs="*", type=Path, help="folders of runs (multirun_outputs)")
    sending.add_argument("--jobs", type=int, default=4, help="uploads at once (4)")
    viewing = commands.add_parser("workspace", help="save one view per figure")
    viewing.add_argument("figures", nargs="*", help="names in conf/figure (all)")
    viewing.add_argument("--scale", default="paper")
    for command in (sending, viewing):
        command.epilog = (
            "tracking.entity=, tracking.project= and tracking.base_url= override the values in the record; the "
            f"defaults are WANDB_ENTITY, WANDB_PROJECT ({PROJECT}) and WANDB_BASE_URL"
        )
        for key in PLACE:
            command.add_argument(f"--{key.replace('_', '-')}", help=argparse.SUPPRESS)  # the former spelling
    settings, arguments = _settings(sys.argv[1:])
    options = parser.parse_args(arguments)
    for key in PLACE:
        if getattr(options, key) is not None:
            print(f"note: --{key.replace('_', '-')} is tracking.{key}= now, as in training", file=sys.stderr)
        setattr(options, key, settings.get(key, getattr(options, key)))
    if options.command == "workspace":
        from repro.tracking import views

        target = find_project(options.entity, options.project, options.base_url)
        views.make(options.figures, target, options.scale)
    else:
        _upload(options)


def _upload(options: argparse.Namespace) -> None:
    if options.jobs < 1:
        raise ReproError(f"--jobs {options.jobs}: give the number of uploads at once, from 1 on")
    folders = options.folders or [Path("multirun_outputs")]
    for folder in folders:
        if not folder.is_dir():
            raise ReproError(
                f"{folder}: no such folder; run this where the runs were started, or give their folder"
            )

    def find(tracking: Tracking) -> Project:
        return find_project(
            options.entity or tracking.entity,
            options.project or tracking.project,
            options.base_url or tracking.base_url,
        )

    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        count, errors = upload(folders, find, options.jobs)
        if received:  # where Python ignores exceptions, as in a callback of its garbage collector
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        line = "interrupted; run the same command again to send the missing records"
        print(line, file=sys.stderr, flush=True)
        os._exit(130)  # a normal exit would first wait for wandb to send the rest
    print(f"uploaded {plural(count, 'run')}")
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if errors:
        sys.exit(1)
