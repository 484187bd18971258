"""``method=momentum``: short 1cycle runs with constant and with cyclical momentum, and the momentum range test."""

import numpy as np

from repro.config.errors import ReproError
from repro.search.dry import Stage
from repro.search.found import Found, curves_of, finals_of
from repro.search.runs import Base, Run, momentum_words, often, onecycle, train, watched
from repro.search.settings import Momentum

LOWEST, HIGHEST = 0.7, 1.0  # momentum of the range test, Figure 7b


def search(base: Base, settings: Momentum) -> Found:
    """Choose the momentum whose short 1cycle runs end at the lowest test loss; note the result of its range test.

    Raises ReproError without a max LR.
    """
    max_lr, min_lr = limits(base, settings)
    iterations = base.length(settings.epochs, settings.share)
    values = list(dict.fromkeys(settings.values))
    choices = [[value] for value in values]
    choices += [[value, settings.lowest] for value in values if value > settings.lowest]
    options = [[*onecycle(max_lr, min_lr, m, iterations), often(iterations, settings.tests)] for m in choices]
    results = train(base, options, settings.seeds)
    losses = [float(np.mean([run.final("test_loss") for run in runs])) for runs in results]
    first, *others = (int(index) for index in np.argsort(losses))
    best = choices[first]
    all_runs = [run for runs in results for run in runs]
    notes = list[str]()
    pairs = [(momentum_words(m), run) for m, runs in zip(choices, results, strict=True) for run in runs]
    tried, curves = finals_of(pairs).sort_values("final_loss", ignore_index=True), curves_of(pairs)
    if not np.isfinite(losses[first]):
        why = f"every run diverged at max LR {max_lr:.3g}: search for that first, method=lr_range"
        return Found("momentum", [], {}, why, notes, tried, curves, all_runs)
    why = f"{momentum_words(best)} ends at a test loss of {losses[first]:.4g}"
    if not others:
        why += "; no other was tried"
    else:
        second = others[0]
        why += f", {momentum_words(choices[second])} at {losses[second]:.4g}"
        if (spread := _spread(results[first])) is None:
            notes.append("one seed: search.seeds=4 says whether the difference is more than chance")
        elif losses[second] - losses[first] < spread:
            notes.append(f"the difference is within the seeds' standard deviation of {spread:.2g}")
    if settings.range_test:
        runs, note = _range_test(base, settings, (max_lr + min_lr) / 2, iterations)
        all_runs += runs
        notes.append(note)
    overrides = onecycle(max_lr, min_lr, best, base.iterations)
    chosen = {"momentum": best, "max LR": max_lr, "min LR": min_lr}
    return Found("momentum", overrides, chosen, why, notes, tried, curves, all_runs)


def stages(base: Base, settings: Momentum) -> list[Stage]:
    """The largest number of runs that it trains, by stage."""
    iterations = base.length(settings.epochs, settings.share)
    cyclical = sum(value > settings.lowest for value in settings.values)
    found = [Stage("1cycle by momentum", (len(settings.values) + cyclical) * settings.seeds, iterations)]
    return [*found, Stage("momentum range test", settings.seeds, iterations)] if settings.range_test else found


def limits(base: Base, settings: Momentum) -> tuple[float, float]:
    """Max and min LR of the short runs: those of ``settings``, or of the base's schedule. Raises ReproError."""
    lr = base.config.schedule.lr
    max_lr = settings.max_lr or lr.get("max_lr")
    if max_lr is None:
        raise ReproError("search.max_lr: the composed schedule has no max_lr; method=lr_range finds one")
    min_lr = settings.min_lr or (lr.get("base_lr") if settings.max_lr is None else 0) or max_lr / 10
    if min_lr > max_lr:
        raise ReproError(f"search.min_lr={min_lr:g} is above the max LR of {max_lr:g}; give search.max_lr too")
    return float(max_lr), float(min_lr)


def _spread(runs: list[Run]) -> float | None:
    losses = [run.final("test_loss") for run in runs]
    return float(np.std(losses, ddof=1)) if len(losses) > 1 else None


def _range_test(base: Base, settings: Momentum, lr: float, iterations: int) -> tuple[list[Run], str]:
    """The momentum range test of Figure 7b, from 0.7 to 1 at a constant LR, and a note; it chooses nothing."""
    options = [
        f"iterations={iterations}",
        "schedule=constant_cm",
        f"schedule.lr.value={lr:.6g}",
        f"schedule.momentum.max_momentum={LOWEST}",  # max_momentum is the value at the start of the cycle
        f"schedule.momentum.min_momentum={HIGHEST}",
        f"schedule.momentum.step_size={iterations}",
        *watched(iterations, settings.tests, settings.divergence),
    ]
    [runs] = train(base, [options], settings.seeds)
    lowest = [float(run.rows["momentum"].iloc[int(run.rows["test_loss"].argmin())]) for run in runs]
    at = float(np.median(lowest))
    found = "up to its end" if at > 0.97 else f"up to {at:.3g} and not beyond it"
    note = (
        f"range test of the momentum ({LOWEST} to {HIGHEST:g} at LR {lr:.3g}): the test loss falls {found}. In "
        "Figure 7b it falls all the way to 1: such a test shows no optimum, and nothing is chosen by it"
    )
    return runs, note
