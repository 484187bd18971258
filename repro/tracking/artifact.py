"""A figure's files on Weights & Biases, as an artifact."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from repro.config.errors import ReproError
from repro.records.naming import shortened
from repro.tracking import _compat
from repro.tracking.server import Project, first_line


def log_figure(name: str, scale: str, files: Sequence[Path], project: Project) -> str:
    """Log a figure's files (png, csv, ...) as the artifact ``<figure>-<scale>``; returns the URL of its W&B run.

    Unchanged files make no new version. Raises ReproError if W&B fails.
    """
    import wandb

    project.sign_in()
    with tempfile.TemporaryDirectory(prefix="repro-figure-") as staging:
        try:
            run = wandb.init(
                entity=project.entity,
                project=project.name,
                dir=staging,
                name=shortened(f"{name} at {scale} scale", 128),
                group=shortened(name, 128),
                job_type="figure",
                tags=[name[:64], scale[:64]],
                reinit="create_new",
                settings=project.settings(mode="online", **_compat.quiet(system_metrics=False, code=False)),
            )
            artifact = wandb.Artifact(shortened(f"{name}-{scale}", 128), type="figure")
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
