"""Snapshots: the state of a run after some iteration (``snapshots``), which other runs start from (``start``).

A snapshot has the weights, the velocities and the fingerprint of its run; it is written like a checkpoint and
stays when its run is finished.
"""

from pathlib import Path
from typing import Any

from repro.config import Config, fingerprint
from repro.config.errors import ReproError, first_line
from repro.records import starts
from repro.training import checkpoints
from repro.training.state import State


def save(folder: Path, config: Config, state: State) -> None:
    """Keep the state of a run in its folder. Raises OSError."""
    saved = state.state_dict()
    kept = {key: saved[key] for key in ("network", "velocity", "iteration")}
    images = [config.dataset.name, config.dataset.digest]
    run = {"fingerprint": fingerprint(config, images=False), "images": images}
    checkpoints.write(starts.snapshot(folder, state.iteration), {**kept, **run})


def load(config: Config, state: State, device: str) -> None:
    """Begin at the snapshot that ``config.start`` names.

    Raises ReproError, one line that says what to run, where it is missing, broken, of another run than ``conf/``
    has now or of other images of the same name, or of another network.
    """
    start = config.start
    if problem := starts.problem(config):
        raise ReproError(problem)
    path = starts.snapshot(Path(start.folder or ""), start.iteration or 0)
    saved: dict[str, Any] | None = checkpoints.read(path, device)
    if saved is None:
        raise ReproError(f"start: {path} is truncated or corrupt; {start.command} force=true makes it again")
    name, digest = saved["images"]
    other_images = name == config.dataset.name and digest != config.dataset.digest
    if saved["fingerprint"] != start.fingerprint or other_images:
        raise ReproError(starts.stale(config, path))
    try:
        state.start_from(saved)
    except (RuntimeError, ValueError) as error:
        raise ReproError(f"start: {path} is of another network ({first_line(error)})") from error
