"""Weights & Biases as a mirror of the record: the same rows, one W&B run a training run.

A failure of W&B never stops a training: it is reported once, and the record on disk stays whole.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro.config import Config, Mode, fingerprint, to_dict

log = logging.getLogger(__name__)
Log = Callable[[Mapping[str, Any]], None]


@contextmanager
def mirror(config: Config, folder: Path) -> Iterator[tuple[Log, Log]]:
    """Two functions while a run trains: one logs a row, one sets the summary.

    With ``tracking=disabled`` they do nothing and wandb is not imported. Otherwise the run is finished on leaving
    (wandb would merge the next run of the same process into one that is not).
    """
    if config.tracking.mode is Mode.disabled:
        yield (lambda row: None), (lambda summary: None)
        return
    run = _guard(lambda: _start(config, folder))
    broken = run is None

    def once(action: Callable[[], Any]) -> None:
        nonlocal broken
        if not broken:
            broken = _guard(lambda: (action(), True)) is None

    def row(values: Mapping[str, Any]) -> None:
        once(lambda: run.log({k: v for k, v in values.items() if v is not None}))

    def summary(values: Mapping[str, Any]) -> None:
        once(lambda: run.summary.update(dict(values)))

    failed = 1
    try:
        yield row, summary
        failed = 0
    finally:
        once(lambda: run.finish(exit_code=failed))


def _start(config: Config, folder: Path) -> Any:
    import wandb

    run = wandb.init(
        mode=config.tracking.mode.value,
        entity=config.tracking.entity,
        project=config.tracking.project,
        dir=folder,
        name=f"{config.curve} seed {config.seed}",
        group=config.curve,
        job_type="train",
        tags=[config.curve.split("/")[0], config.curve, config.scale.name],
        config={**to_dict(config), "fingerprint": fingerprint(config)},
        reinit="create_new",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, x_save_requirements=False),
    )
    run.define_metric("iteration")
    run.define_metric("*", step_metric="iteration")
    return run


def _guard(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:
        log.warning("W&B failed (%s: %s); the record on disk goes on", type(error).__name__, error)
        return None
