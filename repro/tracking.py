"""Weights & Biases as a mirror of the records: live while a run trains, or later from disk.

    python -m repro.tracking upload [FOLDER ...]      send finished records that W&B does not have yet
    python -m repro.tracking workspace [FIGURE ...]   make a saved view a figure (needs wandb-workspaces)

The record on disk is the truth. A failure of W&B never stops a training and never makes it wait: it is reported
once, and ``upload`` sends the record later. wandb is imported only where it is used.
"""

import argparse
import hashlib
import logging
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from omegaconf import OmegaConf

from repro.config import Mode, Tracking, from_dict
from repro.errors import ReproError
from repro.folders import CONF
from repro.records import ENDING, FINISHED, read_history, read_info

log = logging.getLogger(__name__)
PROJECT = "disciplined-repro"
FLUSH = 1.0  # seconds of rows that an offline file can lose when the process is killed; wandb's own are 15
LATER = "the record on disk is whole; python -m repro.tracking upload sends it later"
silent: Any = SimpleNamespace(value=0)  # 1: W&B online did not answer; later runs are mirrored offline at once


@dataclass(frozen=True)
class Place:
    """Where runs are kept on W&B; an entity or base URL of None is wandb's own default."""

    entity: str | None
    project: str
    base_url: str | None

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}" if self.entity else self.project

    def settings(self, **more: Any) -> Any:
        """``wandb.Settings`` of this server, quiet."""
        import wandb

        url: dict[str, Any] = {"base_url": self.base_url} if self.base_url else {}
        return wandb.Settings(console="off", silent=True, **url, **more)

    def sign_in(self, verify: bool = False) -> None:
        """Find the API key, without asking for one on the terminal; ReproError where there is none.

        If ``verify``, ask the server whether it takes the key.
        """
        import wandb

        # wandb's core must give up before wandb's 10 s for this question are over: a question that was left
        # behind can keep the core, and with it the process, from ending.
        wandb.setup(settings=self.settings(x_graphql_retry_max=2 if verify else None))
        if not wandb.login(prompt=False, verify=verify):
            raise ReproError(f"no W&B API key for {self.server}: `wandb login` or WANDB_API_KEY gives one")

    @property
    def server(self) -> str:
        """The server, in words."""
        return self.base_url or "W&B's own server"


def place(entity: str | None = None, project: str | None = None, base_url: str | None = None) -> Place:
    """What is given, otherwise WANDB_ENTITY, WANDB_PROJECT, WANDB_BASE_URL, otherwise the defaults."""
    return Place(
        entity or os.environ.get("WANDB_ENTITY"),
        project or os.environ.get("WANDB_PROJECT") or PROJECT,
        base_url or os.environ.get("WANDB_BASE_URL"),
    )


def run_id(info: Mapping[str, Any]) -> str:
    """The W&B id of one attempt at a run: fingerprint, attempt, and four digits of where and when it began.

    The same for a record and its copies, whoever sends it; another for a run that was trained again elsewhere.
    """
    begun = "|".join(str(info[key]) for key in ("curve", "host", "pid", "started"))
    return f"{info['fingerprint']}-{info['attempt']}-{hashlib.sha256(begun.encode()).hexdigest()[:4]}"


class Mirror:
    """Sends one run's rows to W&B from a thread of its own, so that the training never waits for it."""

    def __init__(self, info: Mapping[str, Any], folder: Path):
        tracking = from_dict(info["config"]).tracking
        self.rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.end: dict[str, Any] = {}
        self.patience = tracking.patience
        self.reported = False
        self.thread = None
        if tracking.mode is not Mode.disabled:
            arguments = (dict(info), folder, tracking)
            self.thread = threading.Thread(target=self._work, args=arguments, name="wandb", daemon=True)
            self.thread.start()

    def row(self, values: Mapping[str, Any]) -> None:
        """Send a row of the record."""
        self.rows.put(dict(values))

    def finish(self, info: Mapping[str, Any]) -> None:
        """Send the record's end and wait for W&B, but not for ever."""
        if self.thread is None:
            return
        self.end = dict(info)
        self.rows.put(None)
        self.thread.join(self.patience)
        if self.thread.is_alive():
            silent.value = 1
            self._report(f"has not answered for {self.patience:.0f} s")

    def _work(self, info: dict[str, Any], folder: Path, tracking: Tracking) -> None:
        online = tracking.mode is Mode.online and not silent.value
        try:
            with started(info, folder, _place(tracking), online) as run:
                while (row := self.rows.get()) is not None:
                    run.log(_present(row))
                run.summary.update(ending(self.end))
            if not online:
                _check(Path(run.settings.sync_file), self.end)
        except Exception as error:
            if online:
                silent.value = 1
            self._report(f"failed ({type(error).__name__}: {first_line(error)})")

    def _report(self, what: str) -> None:
        if not self.reported:
            self.reported = True
            log.warning("W&B %s; %s", what, LATER)


@contextmanager
def started(info: Mapping[str, Any], folder: Path, where: Place, online: bool) -> Iterator[Any]:
    """A W&B run for a record, finished on leaving (wandb would merge the next run of a process into an open one).

    Raises what wandb raises, ReproError at once where there is no key (it would ask for one on the terminal).
    """
    import wandb

    config = from_dict(info["config"])
    settings = where.settings(
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=FLUSH,
        init_timeout=config.tracking.patience,
        finish_timeout=config.tracking.patience,
        finish_timeout_raises=True,
    )
    if online:
        where.sign_in()
    figure, scale = config.curve.split("/")[0], config.scale
    begun = {k: v for k, v in info.items() if k not in (*ENDING, "config")}
    variant = info.get("variant") or ""
    run = wandb.init(
        id=run_id(info),
        mode="online" if online else "offline",
        entity=where.entity,
        project=where.project,
        dir=folder,
        name=f"{config.curve}{f', {variant}' if variant else ''} seed {config.seed}",
        group=config.curve,
        job_type="train",
        tags=[tag[:64] for tag in dict.fromkeys((figure, config.curve, scale.name, config.replicates.value))],
        notes=" ".join(filter(None, (f"experiment={config.curve}", variant, f"seed={config.seed}", scale.note))),
        config={"figure": figure, **begun, **info["config"]},
        reinit="create_new",
        settings=settings,
    )
    x = x_axis(figure)
    run.define_metric("iteration")
    run.define_metric(x)
    run.define_metric("*", step_metric=x)
    failed = 1
    try:
        yield run
        failed = int(run.summary.get("status") not in FINISHED)
    finally:
        run.finish(exit_code=failed)


def ending(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says at its end, as the summary of a W&B run."""
    return {key: info[key] for key in ENDING if key in info}


def x_axis(figure: str) -> str:
    """What W&B's own charts of a figure's runs have as x: the iteration, or the LR where the figure has it."""
    path = CONF / "figure" / f"{figure}.yaml"
    return "lr" if path.exists() and OmegaConf.select(OmegaConf.load(path), "x") == "lr" else "iteration"


def upload(folders: Sequence[Path], where: Callable[[Tracking], Place], jobs: int = 4) -> tuple[int, list[str]]:
    """Send the finished records under ``folders`` that W&B does not have whole: how many, and a line a failure.

    Idempotent: a run that is there already, live or through ``wandb sync``, is known by its id and digest.
    """
    from rich.console import Console
    from rich.progress import Progress

    records: dict[Place, list[tuple[Path, dict[str, Any]]]] = {}
    unfinished, errors = 0, []
    for path in sorted({p.parent for folder in folders for p in folder.rglob("run.json")}):
        try:
            info = read_info(path)
        except ReproError as error:
            errors.append(str(error))
            continue
        if info is None or info["status"] not in FINISHED:
            unfinished += 1
        else:
            records.setdefault(where(from_dict(info["config"]).tracking), []).append((path, info))
    todo = []
    for target, runs in records.items():
        there = present(target, [run_id(info) for _, info in runs])
        missing = [(path, info) for path, info in runs if there.get(run_id(info)) != info.get("digest")]
        print(f"{target}: {len(runs)} finished runs, {len(runs) - len(missing)} there already")
        todo += [(target, path, info) for path, info in missing]
    if unfinished:
        print(f"{unfinished} unfinished runs are left for later")
    bar = Progress(console=Console(stderr=True), transient=True)
    with bar, ThreadPoolExecutor(jobs) as pool:
        sent = {pool.submit(send, path, info, target): path for target, path, info in todo}
        for done in bar.track(as_completed(sent), total=len(sent), description="uploading"):
            if failure := done.exception():
                errors.append(f"{sent[done]}: {type(failure).__name__}: {first_line(failure)}")
    return sum(done.exception() is None for done in sent), errors


def send(folder: Path, info: Mapping[str, Any], where: Place) -> None:
    """Make the W&B run of one finished record. Raises what wandb raises."""
    with (
        tempfile.TemporaryDirectory(prefix="repro-upload-") as staging,
        started(info, Path(staging), where, online=True) as run,
    ):
        for row in read_history(folder):
            run.log(_present(row))
        run.summary.update(ending(info))


def log_figure(name: str, scale: str, files: Sequence[Path], where: Place) -> str:
    """Log a figure's files (png, csv, ...) as the artifact ``<figure>-<scale>``; the URL of the run that holds it.

    Files that did not change make no new version. Raises ReproError.
    """
    import wandb

    where.sign_in()
    with tempfile.TemporaryDirectory(prefix="repro-figure-") as staging:
        try:
            run = wandb.init(
                entity=where.entity,
                project=where.project,
                dir=staging,
                name=f"{name} at {scale} scale",
                group=name,
                job_type="figure",
                tags=[name, scale],
                reinit="create_new",
                settings=where.settings(x_disable_stats=True, x_save_requirements=False),
            )
            artifact = wandb.Artifact(f"{name}-{scale}", type="figure")
            for path in sorted(files):
                artifact.add_file(str(path), name=path.name, policy="immutable")
            run.log(
                {"figure": wandb.Image(str(png[0]))} if (png := [p for p in files if p.suffix == ".png"]) else {}
            )
            run.log_artifact(artifact).wait(60)
            run.finish()
        except Exception as error:
            raise ReproError(f"W&B, {where} on {where.server}: the artifact: {first_line(error)}") from error
    return str(run.url)


def present(where: Place, ids: Sequence[str]) -> dict[str, str | None]:
    """The digest of each of the runs ``ids`` that W&B holds with every row (None: not whole)."""
    from repro.pull import listed

    found: dict[str, str | None] = {}
    for start in range(0, len(ids), 200):
        for run in listed(where, {"name": {"$in": list(ids[start : start + 200])}}, missing_ok=True):
            whole = run.state == "finished" and run.summary_metrics.get("rows") == run.historyLineCount
            found[run.id] = run.summary_metrics.get("digest") if whole else None
    return found


def _check(file: Path, end: Mapping[str, Any]) -> None:
    """OSError if an offline file does not hold its run's end: wandb says nothing about a full disk."""
    from repro.pull import offline_file

    found = offline_file(file)
    if found is None or found.info["status"] != end["status"]:
        raise OSError(f"{file} is not whole; is the disk full?")


def _place(tracking: Tracking) -> Place:
    return place(tracking.entity, tracking.project, tracking.base_url)


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v is not None}


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (str(error).strip().splitlines() or [""])[0]


def main() -> None:
    """The console script ``repro-tracking``."""
    parser = argparse.ArgumentParser("repro.tracking", description="Weights & Biases beside training.")
    commands = parser.add_subparsers(dest="command", required=True)
    sending = commands.add_parser("upload", help="send finished records that W&B does not have yet")
    sending.add_argument("folders", nargs="*", type=Path, help="folders of runs (multirun_outputs)")
    sending.add_argument("--jobs", type=int, default=4, help="uploads at once (4)")
    viewing = commands.add_parser("workspace", help="make a saved view a figure")
    viewing.add_argument("figures", nargs="*", help="names in conf/figure (all)")
    viewing.add_argument("--scale", default="paper")
    for command in (sending, viewing):
        command.add_argument("--entity", help="what the run says, or WANDB_ENTITY, or wandb's default")
        command.add_argument("--project", help=f"what the run says, or WANDB_PROJECT, or {PROJECT}")
        command.add_argument("--base-url", help="a server of your own; WANDB_BASE_URL")
    options = parser.parse_args()
    try:
        if options.command == "workspace":
            from repro import workspace

            target = place(options.entity, options.project, options.base_url)
            workspace.make(options.figures, target, options.scale)
        else:
            _upload(options)
    except ReproError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _upload(options: argparse.Namespace) -> None:
    folders = options.folders or [Path("multirun_outputs")]
    for folder in folders:
        if not folder.is_dir():
            raise ReproError(f"{folder}: no such folder; run it where the runs were started, or name theirs")

    def where(own: Tracking) -> Place:
        return place(
            options.entity or own.entity, options.project or own.project, options.base_url or own.base_url
        )

    count, errors = upload(folders, where, options.jobs)
    print(f"uploaded {count} runs")
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    if errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
