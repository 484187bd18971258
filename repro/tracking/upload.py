"""Weights & Biases beside training: send records later, save views.

python -m repro.tracking upload [FOLDER ...]      send finished records that W&B does not have yet
python -m repro.tracking workspace [FIGURE ...]   make a saved view a figure (needs wandb-workspaces)
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from repro.config import Tracking, from_dict
from repro.config.errors import ReproError
from repro.config.terminal import console
from repro.records import FINISHED, Info, files, read_info
from repro.tracking.mirror import run_id, send
from repro.tracking.pull import listed
from repro.tracking.server import PROJECT, Project, find_project, first_line

PLACE = ("entity", "project", "base_url")
KEYS = [f"tracking.{key}" for key in PLACE]  # as in training


def upload(folders: Sequence[Path], find: Callable[[Tracking], Project], jobs: int = 4) -> tuple[int, list[str]]:
    """Send the finished records under ``folders`` that W&B does not have whole: how many, and a line a failure.

    Idempotent: a run that is there already, live or through ``wandb sync``, is known by its id and digest.
    """
    from rich.progress import Progress

    records: dict[Project, dict[str, tuple[Path, Info]]] = {}  # by the run's id
    unfinished, errors = 0, []
    for path in sorted({file.parent for folder in folders for file in files.find(folder, "run.json")}):
        try:
            info = read_info(path)
        except ReproError as error:
            errors.append(str(error))
            continue
        if info is None or info["status"] not in FINISHED:
            unfinished += 1
            continue
        try:
            target, name = find(from_dict(info["config"]).tracking), run_id(info)
        except (ReproError, KeyError) as error:
            missing_key = isinstance(error, KeyError)
            errors.append(f"{path}: {f'its run.json has no {error}' if missing_key else error}; it is not sent")
            continue
        records.setdefault(target, {}).setdefault(name, (path, info))
    todo = []
    for target, runs in records.items():
        there = present(target, [*runs])
        missing = [run for name, run in runs.items() if there.get(name) != run[1].get("digest")]
        print(f"{target}: {len(runs)} finished runs, {len(runs) - len(missing)} there already")
        todo += [(target, path, info) for path, info in missing]
    if unfinished:
        print(f"{unfinished} unfinished runs are left for later")
    bar = Progress(console=console(stderr=True), transient=True)
    with bar, ThreadPoolExecutor(jobs) as pool:
        sent = {pool.submit(send, path, info, target): path for target, path, info in todo}
        for done in bar.track(as_completed(sent), total=len(sent), description="uploading"):
            if failure := done.exception():
                errors.append(f"{sent[done]}: {type(failure).__name__}: {first_line(failure)}")
    return sum(done.exception() is None for done in sent), errors


def present(project: Project, ids: Sequence[str]) -> dict[str, str | None]:
    """The digest of each of the runs ``ids`` that W&B holds with every row (None: not whole)."""
    digests: dict[str, str | None] = {}
    for start in range(0, len(ids), 200):
        for run in listed(project, {"name": {"$in": list(ids[start : start + 200])}}, missing_ok=True):
            whole = run.state == "finished" and run.summary_metrics.get("rows") == run.historyLineCount
            digests[run.id] = run.summary_metrics.get("digest") if whole else None
    return digests


def _settings(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What ``tracking.<key>=<value>`` among the arguments says of the place, and the other arguments."""
    pairs = [argument.partition("=") for argument in arguments]
    settings = {key.removeprefix("tracking."): value for key, _, value in pairs if key in KEYS}
    return settings, [argument for argument in arguments if argument.partition("=")[0] not in KEYS]


def main() -> None:
    """The command ``repro.tracking``."""
    parser = argparse.ArgumentParser("repro.tracking", description="Weights & Biases beside training.")
    commands = parser.add_subparsers(dest="command", required=True)
    sending = commands.add_parser("upload", help="send finished records that W&B does not have yet")
    sending.add_argument("folders", nargs="*", type=Path, help="folders of runs (multirun_outputs)")
    sending.add_argument("--jobs", type=int, default=4, help="uploads at once (4)")
    viewing = commands.add_parser("workspace", help="make a saved view a figure")
    viewing.add_argument("figures", nargs="*", help="names in conf/figure (all)")
    viewing.add_argument("--scale", default="paper")
    for command in (sending, viewing):
        command.epilog = (
            "tracking.entity=, tracking.project= and tracking.base_url= name another place than the run says, or "
            f"WANDB_ENTITY, WANDB_PROJECT ({PROJECT}) and WANDB_BASE_URL"
        )
        for key in PLACE:
            command.add_argument(f"--{key.replace('_', '-')}", help=argparse.SUPPRESS)  # as it was spelt before
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
    folders = options.folders or [Path("multirun_outputs")]
    for folder in folders:
        if not folder.is_dir():
            raise ReproError(f"{folder}: no such folder; run this where the runs started, or name their folder")

    def find(tracking: Tracking) -> Project:
        return find_project(
            options.entity or tracking.entity,
            options.project or tracking.project,
            options.base_url or tracking.base_url,
        )

    count, errors = upload(folders, find, options.jobs)
    print(f"uploaded {count} runs")
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if errors:
        sys.exit(1)
