"""The source of a run that starts from a snapshot: which run, and which snapshot. Does not import torch.

``start.curve`` is the source's experiment, trained at the same scale and seed and with the same overrides, except
for keys in which the two experiments differ: those differences are the point of the restart. ``start.changes``
replaces these overrides. A source is identified by its fingerprint under the current ``conf/``, which its snapshot
must have and which is part of the fingerprint of the run that starts from it.
"""

import copy
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from repro.config import PROTOCOL, Config, catalogue, fingerprint, from_dict, is_respelled, resolve
from repro.config.errors import ReproError, one_line
from repro.records import naming
from repro.records.info import read_info
from repro.records.types import FINISHED

CHECKPOINTS = "checkpoint-?????????.pt"  # of an unfinished run; the digits are its iteration


def snapshot(folder: Path, iteration: int) -> Path:
    """The path of a run's snapshot after ``iteration`` updates."""
    return folder / f"snapshot-{iteration:09d}.pt"


def find(folder: Path) -> list[Path]:
    """The snapshots of a run, by iteration."""
    return sorted(folder.glob("snapshot-*.pt"))


def settle(config: Config, changes: Sequence[str], dependents: tuple[tuple[str, ...], ...] = ()) -> None:
    """Fill in the source of a resolved ``config``, if it starts from a snapshot and the source is not set yet.

    ``changes`` are its overrides of its experiment (``naming.changes``), ``dependents`` the runs that start from
    it in turn. Raises ReproError for a source that cannot be composed, for ``start.changes`` that do not
    apply to a source, and for a run that would start from itself.
    """
    start = config.start
    if start.curve is None or start.fingerprint is not None:
        return
    source_changes = (
        _inherited(config, changes) if start.changes is None else sorted(map(naming.canonical, start.changes))
    )
    for change in start.changes or []:
        if (key := change.lstrip("+~").partition("=")[0].partition("@")[0]) in naming.APART:
            raise ReproError(
                f"start.changes: {change} does not apply: start.curve names the source's experiment, and its "
                f"scale and seed are this run's; remove {key}"
            )
    is_itself = start.curve == config.curve and start.changes is None
    if is_itself or (start.curve, *source_changes) in dependents:
        raise ReproError(
            f"start.curve={start.curve}: a run cannot start from itself; start.changes=[] starts from the "
            "unchanged experiment"
        )
    chosen = (f"experiment={start.curve}", f"scale={config.scale.name}")
    overrides = (*chosen, *naming.as_overrides(source_changes))
    try:
        composed = copy.deepcopy(_composed(GlobalHydra.instance().hydra, overrides))
    except HydraException as error:
        raise ReproError(f"start.curve={start.curve}: {one_line(error)}") from None
    composed.seed = config.seed
    source = resolve(composed, source_changes)
    source_root, source.output = source.dataset.root, config.output
    settle(source, source_changes, (*dependents, (start.curve, *source_changes)))
    home = Path(config.output) / config.scale.name / source.curve
    name = naming.existing(home, naming.folder_name(source_changes), source)
    start.fingerprint = fingerprint(source, images=False)
    start.folder = str(home / name / f"seed{config.seed}")
    snapshots = f"snapshots=[{round((start.iteration or 0) / config.scale.iterations)}]"
    output = [] if config.output == Config().output else [f"output={config.output}"]
    root = config.dataset.root
    places = [] if root == source_root else [naming.override("dataset.root", root)]
    arguments = [*overrides, f"seed={config.seed}", snapshots, *places, *output]
    start.command = shlex.join(["python", "-m", "repro.train", *arguments])


def problem(config: Config) -> str | None:
    """Why a settled run cannot start from its snapshot, as a line that says what to run; None if it can.

    Raises ReproError if the source's record cannot be read.
    """
    start = config.start
    if start.folder is None or start.iteration is None:
        return None
    folder = Path(start.folder)
    info = read_info(folder)
    path = snapshot(folder, start.iteration)
    force = ""
    if info is not None:
        known = from_dict(info["config"])
        if info.get("protocol") != PROTOCOL or not is_source(known, config):
            return stale(config, folder, force=info["status"] in FINISHED)
        force = " force=true" if info["status"] in FINISHED else ""
    if path.exists():
        return None
    last = info.get("last_iteration") if info is not None and info["status"] == "diverged" else None
    if last is not None and last < start.iteration:
        return f"start: {folder} diverged at iteration {last}, before its snapshot at {start.iteration}"
    if not force and (passed := last_checkpoint(folder) or 0) >= start.iteration:
        advice = f"delete the checkpoints in that folder, and {start.command} writes it"
        return (
            f"start: {path} does not exist, and its run has passed it (checkpoint at iteration {passed}); {advice}"
        )
    return f"start: {path} does not exist; {start.command}{force} writes it"


def last_checkpoint(folder: Path) -> int | None:
    """The iteration of the newest checkpoint of a run; None if it has none."""
    return max((int(path.stem.removeprefix("checkpoint-")) for path in folder.glob(CHECKPOINTS)), default=None)


def is_source(candidate: Config, config: Config) -> bool:
    """Whether ``config`` starts from a run of ``candidate``, in which a whole number may be 1.0 instead of 1."""
    wanted = config.start.fingerprint or ""
    return fingerprint(candidate, images=False) == wanted or is_respelled(candidate, wanted, images=False)


def source_fingerprint(config: Config) -> str | None:
    """The fingerprint that a snapshot of the source has: its record's; without a record the expected one."""
    info = read_info(Path(config.start.folder or ""))
    return config.start.fingerprint if info is None else fingerprint(from_dict(info["config"]), images=False)


def stale(config: Config, path: Path, force: bool = True) -> str:
    """The line for a snapshot, or a folder, of a run that ``conf/`` now configures otherwise."""
    start = config.start
    again = " force=true" if force else ""
    return f"start: {path} is not of {start.curve} as configured now; {start.command}{again} trains it"


def _inherited(config: Config, changes: Sequence[str]) -> list[str]:
    """The overrides that the source takes over from ``config``: all but keys in which their experiments differ."""
    scale = f"scale={config.scale.name}"
    try:
        run, source = (naming.leaves_of(f"experiment={c}", scale) for c in (config.curve, config.start.curve))
    except HydraException as error:
        raise ReproError(f"start.curve={config.start.curve}: {one_line(error)}") from None
    run_values, source_values = ({key: value for key, (_, value) in leaves.items()} for leaves in (run, source))
    differing = {key for key in {*run, *source} if run_values.get(key) != source_values.get(key)}

    def is_specific(key: str) -> bool:
        return key in differing or key.startswith("start.") or any(d.startswith(f"{key}.") for d in differing)

    return [change for change in changes if not is_specific(change.partition("=")[0])]


@lru_cache(maxsize=64)
def _composed(hydra: object, overrides: tuple[str, ...]) -> DictConfig:
    """``catalogue.composed``, cached; ``hydra``, which has the search path, is part of the cache's key."""
    config: DictConfig = catalogue.composed(*overrides)
    return config
