"""From what was composed to what is trained: the scale applied, every value checked. No torch here."""

from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro import schedules
from repro.config.errors import ReproError, one_line
from repro.config.schema import Config, Filler, Replicates


def resolve(composed: Any) -> Config:
    """The run that a composed configuration describes: scale applied, every value checked.

    Raises ReproError, one line that names the key, for a value that cannot be trained.
    """
    try:
        config = cast(Config, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ReproError(one_line(error)) from None
    config.model.options = config.model.options or None  # as records without options have it
    scale = config.scale
    for key in ("iterations", "batch"):
        factor = getattr(scale, key)
        _require(0 < factor <= 1, f"scale.{key}", factor, "is not a factor above 0, 1 at most")
    if config.replicates is Replicates.author:
        _as_author(config)
    _check(config)
    config.iterations = _scaled(config.iterations, scale.iterations)
    config.batch_size = _scaled(config.batch_size, scale.batch)
    config.test_every = _scaled(config.test_every, scale.iterations)
    if scale.tests is not None:
        _require(scale.tests > 0, "scale.tests", scale.tests, "is not positive")
        config.test_every = max(1, round(config.iterations / scale.tests))
    schedule, factor = config.schedule, scale.iterations
    schedule.lr = schedules.scaled(schedule.lr, lambda count: _scaled(count, factor))
    schedule.momentum = schedules.scaled(schedule.momentum, lambda count: _scaled(count, factor))
    _check(config)
    return config


def _as_author(config: Config) -> None:
    """Replicate k, the seed: k images more a GPU, xavier for odd k, the iterations of the nominal batch."""
    if config.model.gpus != 4:
        raise ReproError(
            f"replicates=author: only known on 4 GPUs, and {config.model.name} had {config.model.gpus}; "
            "use replicates=seeds"
        )
    config.batch_size += config.model.gpus * config.seed
    config.model.init = Filler.xavier if config.seed % 2 else Filler.msra


def _check(config: Config) -> None:
    positive = {
        "batch_size": config.batch_size,
        "iterations": config.iterations,
        "test_every": config.test_every,
        "model.blocks": config.model.blocks,
        "model.width": config.model.width,
        "model.bn_groups": config.model.bn_groups,
        "model.bn_eps": config.model.bn_eps,
        "dataset.resolution": config.dataset.resolution,
        "dataset.train_images": config.dataset.train_images,
        "dataset.test_images": config.dataset.test_images,
        "threads": config.threads,
        "workers": config.workers,
        "checkpoint_seconds": config.checkpoint_seconds,
        "checkpoint_iterations": config.checkpoint_iterations,
        "tracking.patience": config.tracking.patience,
    }
    for key, value in positive.items():
        _require(value is None or value > 0, key, value, "is not positive")
    decay, fraction = config.regularization.weight_decay, config.model.bn_fraction
    _require(config.seed >= 0, "seed", config.seed, "is negative")
    _require(decay >= 0, "regularization.weight_decay", decay, "is negative")
    _require(0 <= fraction < 1, "model.bn_fraction", fraction, "is not in [0, 1)")
    resolution, groups = config.dataset.resolution, config.model.bn_groups
    _require(
        not (resolution or 0) % 4,
        "dataset.resolution",
        resolution,
        "is not a multiple of 4: it is halved twice",
    )
    _require(
        config.batch_size % groups == 0,
        "model.bn_groups",
        groups,
        f"does not divide the batch of {config.batch_size} images",
    )
    try:
        schedules.build(config.schedule.lr, config.schedule.momentum)
    except ValueError as error:
        raise ReproError(str(error)) from None


def _require(holds: bool, key: str, value: Any, problem: str) -> None:
    if not holds:
        raise ReproError(f"{key}={value} {problem}")


def _scaled(value: int, factor: float) -> int:
    return max(1, round(value * factor))
