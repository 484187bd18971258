"""Saved views on W&B for ``python -m repro.tracking workspace``: one per figure, of its curves over all seeds."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from repro.config.catalogue import curves
from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.tracking import copies
from repro.tracking.mirror import x_axis
from repro.tracking.server import Project, first_line

NEEDS = (
    "saved views need the package wandb-workspaces (pip install -e '.[workspaces]'), an API key, and a project "
    "that has runs"
)
PANELS = ("lr", "momentum", "train_loss", "test_loss", "test_accuracy")  # of every view


def make(names: Sequence[str], project: Project, scale: str) -> None:
    """Save a view of each figure in ``names``, or of all. Raises ReproError that says what is missing."""
    try:
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ReproError(f"{NEEDS}: {error}") from None
    import wandb

    figures = sorted(path.stem for path in (CONF / "figure").glob("*.yaml") if path.stem != "all")
    if unknown := set(names) - set(figures):
        raise ReproError(f"no figure {', '.join(sorted(unknown))}; choose from {', '.join(figures)}")
    project.sign_in(verify=True)
    try:
        entity = str(project.entity or wandb.Api().default_entity)
        for name in names or figures:
            view = described(name, entity, project.name, scale, workspaces)
            print(f"{name}: {view.save().url}")
    except Exception as error:
        raise ReproError(f"W&B, {project} on {project.server}: {first_line(error)}; {NEEDS}") from error


def described(name: str, entity: str, project: str, scale: str, workspaces: Any) -> Any:
    """The view of one figure's runs at ``scale``, grouped by curve; each panel has mean and range over seeds.

    Runs with further overrides, failed or interrupted attempts, and superseded runs are excluded.
    """
    import wandb_workspaces.reports.v2

    reports: Any = wandb_workspaces.reports.v2
    figure: Any = OmegaConf.load(CONF / "figure" / f"{name}.yaml")
    homes = curves(figure.experiments, [CONF])
    x = x_axis(name)
    panels = [
        reports.LinePlot(
            title=y.replace("_", " "),
            x=x,
            y=[y],
            log_y=y == figure.get("y") and figure.get("yscale") == "log",
            groupby=reports.Config("curve"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=100,
        )
        for y in sorted(PANELS, key=lambda y: y != figure.get("y"))
        if y != x
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{figure.title} at {scale} scale",
        sections=[workspaces.Section(name=name, panels=panels, is_open=True)],
        runset_settings=workspaces.RunsetSettings(
            filters=[
                workspaces.Config("curve").isin(sorted(homes.values())),
                workspaces.Config("scale.name") == scale,
                workspaces.Tags().notin(["variant", copies.SUPERSEDED]),
                workspaces.Metric("State").isin(["finished", "running"]),
            ],
            groupby=[workspaces.Config("curve")],
        ),
    )
