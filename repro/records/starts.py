"""The run that another starts from: which it is, where its snapshot lies, what is wrong with that. No torch here.

``start.curve`` is the source's experiment; it is run at the same scale and seed, and with the same changes on the
command line, but for keys in which the two experiments differ: what those say is what a restart is about.
``start.changes`` says otherwise. A source is known by the fingerprint of what ``conf/`` says of it now, which its
snapshot must have: it becomes part of what the run is that starts from it.
"""

import copy
import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from repro.config import PROTOCOL, Config, catalogue, fingerprint, from_dict, resolve
from repro.config.errors import ReproError, one_line
from repro.records import naming
from repro.records.info import read_info
from repro.records.types import FINISHED


def snapshot(folder: Path, iteration: int) -> Path:
    """Where a run in ``folder`` keeps its state after ``iteration`` updates."""
    return folder / f"snapshot-{iteration:09d}.pt"


def find(folder: Path) -> list[Path]:
    """The snapshots of a run."""
    return sorted(folder.glob("snapshot-*.pt"))


def settle(config: Config, changes: Sequence[str], later: tuple[tuple[str, ...], ...] = ()) -> None:
    """Fill in which run a resolved ``config`` starts from, if it starts from one and nobody has said it yet.

    ``changes`` is what it changes in its experiment (``naming.changes``), ``later`` what starts from it in turn.
    Raises ReproError for a source that cannot be composed, and for a run that would start from itself.
    """
    start = config.start
    if start.curve is None or start.fingerprint is not None:
        return
    own = _inherited(config, changes) if start.changes is None else sorted(map(naming.canonical, start.changes))
    itself = start.curve == config.curve and start.changes is None
    if itself or (start.curve, *own) in later:
        raise ReproError(
            f"start.curve={start.curve}: a run cannot start from itself; start.changes=[] is its experiment as is"
        )
    chosen = (f"experiment={start.curve}", f"scale={config.scale.name}")
    try:
        composed = copy.deepcopy(_composed(GlobalHydra.instance().hydra, (*chosen, *naming.as_overrides(own))))
    except HydraException as error:
        raise ReproError(f"start.curve={start.curve}: {one_line(error)}") from None
    composed.seed = config.seed
    source = resolve(composed, own)
    source.output = config.output
    settle(source, own, (*later, (start.curve, *own)))
    home = Path(config.output) / config.scale.name / source.curve
    start.fingerprint = fingerprint(source, images=False)
    start.folder = str(home / naming.existing(home, naming.folder_name(own), source) / f"seed{config.seed}")
    kept = f"snapshots=[{round((start.iteration or 0) / config.scale.iterations)}]"
    output = [] if config.output == Config().output else [f"output={config.output}"]
    arguments = [*chosen, *own, f"seed={config.seed}", kept, *output]
    start.command = shlex.join(["python", "-m", "repro.train", *arguments])


def problem(config: Config) -> str | None:
    """Why a settled run cannot start from its snapshot, in a line that says what to run; None where it can.

    Raises ReproError where the source's record cannot be read.
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
        if info.get("protocol") != PROTOCOL or fingerprint(known, images=False) != start.fingerprint:
            return stale(config, folder, force=info["status"] in FINISHED)
        force = " force=true" if info["status"] in FINISHED else ""
    if path.exists():
        return None
    return f"start: there is no {path}; {start.command}{force} makes it"


def stale(config: Config, path: Path, force: bool = True) -> str:
    """The line for a snapshot, or a folder, of another run than ``conf/`` has now."""
    start = config.start
    again = " force=true" if force else ""
    return f"start: {path} is of another run than {start.curve} is now; {start.command}{again} trains that"


def _inherited(config: Config, changes: Sequence[str]) -> list[str]:
    """What the source changes as ``config`` does: all but the keys that set their experiments apart."""
    scale = f"scale={config.scale.name}"
    try:
        started, source = (naming.leaves_of(f"experiment={c}", scale) for c in (config.curve, config.start.curve))
    except HydraException as error:
        raise ReproError(f"start.curve={config.start.curve}: {one_line(error)}") from None
    values = [{key: value for key, (_, value) in leaves.items()} for leaves in (started, source)]
    differ = {key for key in {*started, *source} if values[0].get(key) != values[1].get(key)}

    def belongs_to_one(key: str) -> bool:
        return key in differ or key.startswith("start.") or any(d.startswith(f"{key}.") for d in differ)

    return [change for change in changes if not belongs_to_one(change.partition("=")[0])]


@lru_cache(maxsize=64)
def _composed(hydra: object, overrides: tuple[str, ...]) -> DictConfig:
    """What ``overrides`` compose; ``hydra`` has the search path, and makes the cache that app's alone."""
    made: DictConfig = catalogue.composed(*overrides)
    return made
