"""What Weights & Biases is sent: a run live while it trains, a record from disk, a figure's files.

The record on disk is the truth. A failure of W&B never stops a training and never makes it wait: it is reported
once, and ``python -m repro.tracking upload`` sends the record later. wandb is imported only where it is used.
"""

import hashlib
import logging
import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from omegaconf import OmegaConf

from repro.config import Config, Mode, Tracking, from_dict
from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.records import ENDING, FINISHED, read_history
from repro.records.naming import shortened
from repro.tracking.pull import offline_file
from repro.tracking.server import Project, find_project, first_line

log = logging.getLogger(__name__)
FLUSH = 1.0  # seconds of rows that an offline file can lose when the process is killed; wandb's own are 15
LATER = "the record on disk is whole; python -m repro.tracking upload sends it later"
silent: Any = SimpleNamespace(value=0)  # 1: W&B online did not answer; later runs are mirrored offline at once


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
        project = find_project(tracking.entity, tracking.project, tracking.base_url)
        try:
            with started(info, folder, project, online) as run:
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
def started(info: Mapping[str, Any], folder: Path, project: Project, online: bool) -> Iterator[Any]:
    """A W&B run for a record, finished on leaving (wandb would merge the next run of a process into an open one).

    Raises what wandb raises, ReproError at once where there is no key (it would ask for one on the terminal).
    """
    import wandb

    config = from_dict(info["config"])
    settings = project.settings(
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=FLUSH,
        init_timeout=config.tracking.patience,
        finish_timeout=config.tracking.patience,
        finish_timeout_raises=True,
    )
    if online:
        project.sign_in()
    figure, scale = config.curve.split("/")[0], config.scale
    begun = {k: v for k, v in info.items() if k not in (*ENDING, "config")}
    variant = info.get("variant") or ""
    run = wandb.init(
        id=run_id(info),
        mode="online" if online else "offline",
        entity=project.entity,
        project=project.name,
        dir=folder,
        name=_name(config, variant),
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


def _name(config: Config, variant: str) -> str:
    """What W&B calls a run; it takes 128 characters."""
    seed = f" seed {config.seed}"
    return shortened(f"{config.curve}{f', {variant}' if variant else ''}", 128 - len(seed)) + seed


def ending(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says at its end, as the summary of a W&B run."""
    return {key: info[key] for key in ENDING if key in info}


def x_axis(figure: str) -> str:
    """What W&B's own charts of a figure's runs have as x: the iteration, or the LR where the figure has it."""
    path = CONF / "figure" / f"{figure}.yaml"
    return "lr" if path.exists() and OmegaConf.select(OmegaConf.load(path), "x") == "lr" else "iteration"


def send(folder: Path, info: Mapping[str, Any], project: Project) -> None:
    """Make the W&B run of one finished record. Raises what wandb raises."""
    with (
        tempfile.TemporaryDirectory(prefix="repro-upload-") as staging,
        started(info, Path(staging), project, online=True) as run,
    ):
        for row in read_history(folder):
            run.log(_present(row))
        run.summary.update(ending(info))


def log_figure(name: str, scale: str, files: Sequence[Path], project: Project) -> str:
    """Log a figure's files (png, csv, ...) as the artifact ``<figure>-<scale>``; the URL of the run that holds it.

    Files that did not change make no new version. Raises ReproError.
    """
    import wandb

    project.sign_in()
    with tempfile.TemporaryDirectory(prefix="repro-figure-") as staging:
        try:
            run = wandb.init(
                entity=project.entity,
                project=project.name,
                dir=staging,
                name=f"{name} at {scale} scale",
                group=name,
                job_type="figure",
                tags=[name, scale],
                reinit="create_new",
                settings=project.settings(x_disable_stats=True, x_save_requirements=False),
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
            raise ReproError(f"W&B, {project} on {project.server}: the artifact: {first_line(error)}") from error
    return str(run.url)


def _check(file: Path, end: Mapping[str, Any]) -> None:
    """OSError if an offline file does not hold its run's end: wandb says nothing about a full disk."""
    written = offline_file(file)
    if written is None or written.info["status"] != end["status"]:
        raise OSError(f"{file} is not whole; is the disk full?")


def _present(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v is not None}
