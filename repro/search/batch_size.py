"""``method=batch_size``: the largest batch that fits the device, and the learning rates that it allows."""

from repro.config.errors import ReproError
from repro.resources import free_memory
from repro.search import lr_range
from repro.search.dry import Stage
from repro.search.found import Found
from repro.search.runs import Base, Run, base_of, merged, trial
from repro.search.settings import BatchSize
from repro.sweeps import cost, machine

TRIAL = 2  # iterations
SHARE = 0.8  # of the free memory, on a CPU
FEWEST = 10  # iterations an epoch


def search(base: Base, settings: BatchSize) -> Found:
    """Doubled from the composed batch as long as it trains; then a range test at the largest."""
    largest, why, trials = largest_batch(base, settings)
    wider = with_batch(base, largest)
    found = lr_range.search(wider, settings)
    found.runs = [*trials, *found.runs]
    found.method = "batch_size"
    found.overrides = found.overrides and [*batch_overrides(base, largest), *found.overrides]
    found.chosen = {"batch size": largest, **found.chosen}
    found.why = f"{why}; there {found.why}"
    return found


def stages(base: Base, settings: BatchSize) -> list[Stage]:
    """What it trains at most."""
    trials = max(1, (limit(base, settings) // base.config.batch_size).bit_length())
    return [Stage("batch sizes, a trial each", trials, TRIAL), *lr_range.stages(base, settings)]


def largest_batch(base: Base, settings: BatchSize) -> tuple[int, str, list[Run]]:
    """The largest of the doubled batches that trains, why no larger one, and the trials.

    Raises ReproError where none trains.
    """
    size, good = base.config.batch_size, 0
    trials: list[Run] = []
    while True:
        if size > limit(base, settings):
            why = f"batch {size} would leave fewer than {FEWEST} iterations an epoch"
            why = f"batch {size} is above search.largest={settings.largest}" if settings.largest else why
        elif (problem := too_large(base, size, settings.limit_mb)) is not None:
            why = problem
        else:
            few = max(TRIAL, round(TRIAL / base.config.scale.iterations))
            trials.append(trial(base, [*batch_overrides(base, size), f"iterations={few}", f"test_every={few}"]))
            if trials[-1].info["status"] != "failed":
                good, size = size, 2 * size
                continue
            why = f"batch {size} ran out of memory"
        if not good:
            raise ReproError(f"batch_size={base.config.batch_size}: {why}; begin with a smaller one")
        return good, f"batch {good} trains, and {why}", trials


def limit(base: Base, settings: BatchSize) -> int:
    """The largest batch that is tried; the composed one at least."""
    return max(base.config.batch_size, settings.largest or base.images // FEWEST)


def too_large(base: Base, size: int, limit_mb: float | None) -> str | None:
    """Why a batch is not even tried on a CPU, where the system kills what takes too much; None where it is."""
    planned = machine.plan(base.config, 1)
    free = None if planned.gpus else free_memory()
    allowed = limit_mb or (None if free is None else SHARE * free)
    if allowed is None:
        return None
    needed = cost.estimate(with_batch(base, size).config, planned, []).memory_mb
    return f"batch {size} would take about {needed:,.0f} MB of {allowed:,.0f}" if needed > allowed else None


def with_batch(base: Base, size: int) -> Base:
    """The base with another batch size, over as many epochs."""
    return base_of(merged(base.overrides, batch_overrides(base, size)))


def batch_overrides(base: Base, size: int) -> list[str]:
    """The overrides of a batch of so many images, in iterations of as many epochs."""
    unscaled = max(1, round(size / base.config.scale.batch))
    iterations = max(1, round(base.iterations * base.config.batch_size / size))
    return [f"batch_size={unscaled}", f"iterations={iterations}"]
