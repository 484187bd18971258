"""Snapshots: the state of a run after some iteration (``snapshots``), which other runs start from (``start``).

A snapshot has the weights, the velocities and the fingerprint of its run; it is written like a checkpoint, and
kept when its run is finished.
"""

from pathlib import Path
from typing import Any

from repro.config import Config, fingerprint
from repro.config.errors import ReproError
from repro.records import starts
from repro.training import checkpoints
from repro.training.state import State


def save(folder: Path, config: Config, state: State) -> None:
    """Write a snapshot of a run into its folder. Raises OSError."""
    saved = state.state_dict()
    kept = {key: saved[key] for key in ("network", "velocity", "iteration")}
    images = [config.dataset.name, config.dataset.digest]
    run = {"fingerprint": fingerprint(config, images=False), "images": images}
    checkpoints.write(starts.snapshot(folder, state.iteration), {**kept, **run})


def load(config: Config, state: State, device: str) -> None:
    """Load the snapshot that ``config.start`` names into ``state``.

    Raises ReproError, one line that says what to run, if the snapshot is missing, broken, of a run that ``conf/``
    now configures otherwise, of other images of the same name, or of another network.
    """
    start = config.start
    if problem := starts.problem(config):
        raise ReproError(problem)
    path = starts.snapshot(Path(start.folder or ""), start.iteration or 0)
    saved: dict[str, Any] | None = checkpoints.read(path, device)
    if saved is None:
        raise ReproError(f"start: {path} is truncated or corrupt; {start.command} force=true writes it again")
    name, digest = saved["images"]
    other_images = name == config.dataset.name and digest != config.dataset.digest
    if saved["fingerprint"] != starts.source_fingerprint(config) or other_images:
        raise ReproError(starts.stale(config, path))
    try:
        state.start_from(saved)
    except ValueError as error:
        raise ReproError(f"start: {path} is of another network ({error})") from error
