"""``method=batch_size``: the largest batch that fits into memory, and the learning rates that it allows."""

from repro.config.errors import ReproError
from repro.resources import free_memory
from repro.search import lr_range
from repro.search.dry import Stage
from repro.search.found import Found
from repro.search.runs import Base, Run, base_of, merged, trial
from repro.search.settings import BatchSize
from repro.sweeps import cost, machine

TRIAL = 2  # iterations of a trial
SHARE = 0.8  # of the free memory that a batch may use, on a CPU
FEWEST = 10  # iterations per epoch


def search(base: Base, settings: BatchSize) -> Found:
    """Double the composed batch size as long as it trains; then run a range test at the largest."""
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
    """The largest number of runs that it trains, by stage."""
    trials = max(1, (limit(base, settings) // base.config.batch_size).bit_length())
    return [Stage("batch sizes, a trial each", trials, TRIAL), *lr_range.stages(base, settings)]


def largest_batch(base: Base, settings: BatchSize) -> tuple[int, str, list[Run]]:
    """The largest of the doubled batch sizes that trains, why no larger one does, and the trials.

    Raises ReproError if none trains.
    """
    size, largest = base.config.batch_size, 0
    trials: list[Run] = []
    while True:
        if size > limit(base, settings):
            why = f"batch {size} would leave fewer than {FEWEST} iterations an epoch"
            why = f"batch {size} is above search.largest={settings.largest}" if settings.largest else why
        elif (problem := too_large(base, size, settings.limit_mb)) is not None:
            why = problem
        else:
            iterations = max(TRIAL, round(TRIAL / base.config.scale.iterations))
            options = [f"iterations={iterations}", f"test_every={iterations}"]
            trials.append(trial(base, [*batch_overrides(base, size), *options]))
            if trials[-1].info["status"] != "failed":
                largest, size = size, 2 * size
                continue
            why = f"batch {size} ran out of memory"
        if not largest:
            raise ReproError(f"batch_size={base.config.batch_size}: {why}; start with a smaller one")
        return largest, f"batch {largest} trains, and {why}", trials


def limit(base: Base, settings: BatchSize) -> int:
    """The largest batch size to try; at least the composed one. Raises ReproError if ``largest`` is below that."""
    if settings.largest is not None and settings.largest < base.config.batch_size:
        raise ReproError(
            f"search.largest={settings.largest}: the doubling begins at {base.config.batch_size}; increase it, or "
            "give a smaller batch_size"
        )
    return max(base.config.batch_size, settings.largest or base.images // FEWEST)


def too_large(base: Base, size: int, limit_mb: float | None) -> str | None:
    """Why a batch size is not tried: on a CPU the system kills processes that use too much memory. Else None."""
    planned = machine.plan(base.config, 1)
    free_mb = None if planned.gpus else free_memory()
    allowed_mb = limit_mb or (None if free_mb is None else SHARE * free_mb)
    if allowed_mb is None:
        return None
    needed_mb = cost.estimate(with_batch(base, size).config, planned, []).memory_mb
    if needed_mb <= allowed_mb:
        return None
    return f"batch {size} would take about {needed_mb:,.0f} MB of {allowed_mb:,.0f} (search.limit_mb)"


def with_batch(base: Base, size: int) -> Base:
    """The base with another batch size, for the same number of epochs."""
    return base_of(merged(base.overrides, batch_overrides(base, size)))


def batch_overrides(base: Base, size: int) -> list[str]:
    """The overrides for a batch of ``size`` images, with the iterations of the same number of epochs."""
    unscaled = max(1, round(size / base.config.scale.batch))
    iterations = max(1, round(base.iterations * base.config.batch_size / size))
    return [f"batch_size={unscaled}", f"iterations={iterations}"]
