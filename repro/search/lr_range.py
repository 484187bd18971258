"""``method=lr_range``: the LR range test, and the learning rates of a cycle that it suggests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from repro.config.errors import ReproError
from repro.data import registry
from repro.search.dry import Stage
from repro.search.found import Found, curves_of
from repro.search.runs import Base, Run, often, onecycle, range_test, train, watched
from repro.search.settings import Growth, LRRange, Watch
from repro.search.suggestion import Suggestion, overfits, suggest

FACTOR = 4.0  # between the ranges of two rounds
FEW = 0.1  # smallest share of the tests before the suggestion; with fewer, the range is too wide
FEWEST = 5  # tests of a run
BETTER = 0.9  # largest share of the loss or error rate of chance at which a network has learnt
WORDS = {Watch.test_loss: "test loss", Watch.test_error: "error rate"}


@dataclass
class Ranged:
    """The range tests of one setting over several seeds, and their suggestions."""

    runs: list[Run]  # of the last round
    suggestions: list[Suggestion | None]
    every: list[Run] = field(default_factory=list)  # the runs of all rounds
    notes: list[str] = field(default_factory=list)
    low: float = 0.0  # the ends of the range
    high: float = float("nan")
    watched: Watch = Watch.test_loss  # or the error rate

    @property
    def values(self) -> list[float]:
        """The suggested max LR of every seed that has one."""
        return _values(self.suggestions)

    @property
    def max_lr(self) -> float:
        """The median over the seeds; NaN if at least half of them suggest none."""
        return _median(self.suggestions)

    def read(self, watch: Watch) -> None:
        """Compute the suggestions by test loss or error rate; ``auto``: by error rate if most runs overfit."""
        if watch is Watch.auto:
            watch = Watch.test_error if self.overfit else Watch.test_loss
        self.watched = watch
        self.suggestions = [suggestion_of(run, watch) for run in self.runs]

    @property
    def overfit(self) -> bool:
        """Whether most of the runs overfit."""
        rows = [run.rows[["lr", "test_loss", "train_loss"]] for run in self.runs if _is_long(run.rows)]
        return 2 * sum(overfits(*columns.to_numpy().T) for columns in rows) > len(self.runs)

    @property
    def note(self) -> str:
        """The note for the case that most runs overfit."""
        why = "the training loss still falls where the test loss rises, as when a network overfits"
        if self.watched is Watch.test_loss:
            return f"{why}: by its accuracy another max LR may be better (search.watch=test_error)"
        other = _median([suggestion_of(run, Watch.test_loss) for run in self.runs])
        by_test = "nothing" if np.isnan(other) else f"{other:.3g}"
        return f"{why}: the error rate is watched; search.watch=test_loss would suggest {by_test}"

    @property
    def lowest_loss(self) -> float:
        """Median over the seeds of the smallest test loss, averaged over three tests in a row."""
        means = [run.rows["test_loss"].rolling(3, min_periods=1).mean().min() for run in self.runs]
        return float(np.median(means))


def search(base: Base, settings: LRRange) -> Found:
    """Run range tests until one shows the minimum of the watched curve; max LR lies just before it.

    Min LR follows from it by ``ratios``.

    With several ``factors`` of max LR, or ratios, the choice is the pair whose short 1cycle runs end at the lowest
    test loss.
    """
    [ranged] = ranges(base, [[]], settings)
    notes, all_runs, tried = list(ranged.notes), list(ranged.every), table(ranged)
    curves, word = curves_of([("", run) for run in ranged.runs]), WORDS[ranged.watched]
    band = (min(ranged.values), max(ranged.values)) if ranged.values else None
    if np.isnan(ranged.max_lr):
        first = float(np.median([run.rows["test_loss"].iloc[0] for run in ranged.runs]))
        why = f"no range showed a {word} that falls and rises again"
        why += f"; in the last the test loss began at {first:.3g} and its lowest was {ranged.lowest_loss:.3g}"
        notes.append("a longer range test (search.epochs=), or another search.high=, may show one")
        return Found("lr_range", [], {}, why, notes, tried, curves, all_runs, "lr")
    max_lr = round_to(ranged.max_lr * settings.factors[0])
    min_lr = round_to(max_lr / settings.ratios[0])
    minimum = float(np.median([s.minimum for s in ranged.suggestions if s is not None]))
    why = f"the {word} still improves up to LR {ranged.max_lr:.3g}, its minimum is at {minimum:.3g}"
    if len(ranged.values) > 1:
        why += f" (seeds: {min(ranged.values):.3g} to {max(ranged.values):.3g})"
    if all(s is None or s.diverged is None for s in ranged.suggestions):
        notes.append(f"the {word} has not risen for good up to LR {ranged.runs[0].rows['lr'].max():.3g}")
    if settings.seeds == 1:
        notes.append("one seed: search.seeds=4 says how far the suggestion depends on it")
    if len(settings.factors) * len(settings.ratios) > 1:
        limits, runs, rows = _by_short_runs(base, ranged.max_lr, settings)
        all_runs += runs
        tried = pd.concat([tried, rows], ignore_index=True)
        if limits is None:
            why += "; but every short 1cycle run diverged; try smaller search.factors, or a larger search.epochs"
            return Found("lr_range", [], {}, why, notes, tried, curves, all_runs, "lr")
        max_lr, min_lr = limits
        why += f"; of the short 1cycle runs, that of {min_lr:.3g} to {max_lr:.3g} ends at the lowest test loss"
    elif settings.factors[0] != 1:
        why += f"; max LR is {settings.factors[0]:g} of it (search.factors)"
    overrides = onecycle(max_lr, min_lr, settings.momentum, base.iterations)
    chosen = {"max LR": max_lr, "min LR": min_lr}
    marks = {"max LR": max_lr}
    return Found("lr_range", overrides, chosen, why, notes, tried, curves, all_runs, "lr", marks, band)


def stages(base: Base, settings: LRRange) -> list[Stage]:
    """The largest number of runs that it trains, by stage."""
    iterations = base.length(settings.epochs, settings.share)
    found = [Stage("LR range test, by rounds", settings.rounds * settings.seeds, iterations)]
    choices = len(settings.factors) * len(settings.ratios)
    return found if choices == 1 else [*found, Stage("1cycle by LR", choices * settings.seeds, iterations)]


def ranges(base: Base, variations: Sequence[Sequence[str]], settings: LRRange) -> list[Ranged]:
    """Range tests of every variation of the base, in parallel; further rounds where a range missed the minimum.

    Raises ReproError for runs that are too short.
    """
    exponential = settings.growth is Growth.exponential
    low = settings.low or (settings.high / 1e6 if exponential else 0.0)
    limits = [(low, settings.high) for _ in variations]
    bounds = [(0.0, float("inf")) for _ in variations]  # ends of a range that were too low, and too high
    first = Watch.test_loss if settings.watch is Watch.auto else settings.watch
    results = [Ranged([], [], watched=first) for _ in variations]
    unsettled = list(range(len(variations)))
    iterations = base.length(settings.epochs, settings.share)
    if (length := max(1, round(iterations * base.config.scale.iterations))) < FEWEST:
        key, value = ("share", settings.share) if settings.epochs is None else ("epochs", settings.epochs)
        problem = f"too short for a range test: {length} of at least {FEWEST} iterations"
        raise ReproError(f"search.{key}={value:g}: {problem}; increase it, or iterations=")
    for number in range(1, settings.rounds + 1):
        options = [
            [*variations[i], *_options(limits[i], iterations, settings, results[i].watched)] for i in unsettled
        ]
        repeated = []
        for i, runs in zip(unsettled, train(base, options, settings.seeds), strict=True):
            result = results[i]
            result.runs = runs
            result.read(settings.watch)
            result.every += runs
            result.low, result.high = limits[i]
            next_limits, problem = _next_limits(result, limits[i], exponential)
            if next_limits is None:
                continue
            next_limits, bounds[i] = _restrict(next_limits, limits[i][1], bounds[i])
            finding = f"LR {limits[i][0]:.3g} to {limits[i][1]:.3g}: {problem}"
            if number == settings.rounds:
                result.notes.append(f"{finding}, and no round is left")
            else:
                result.notes.append(f"{finding}; again from {next_limits[0]:.3g} to {next_limits[1]:.3g}")
                limits[i] = next_limits
                repeated.append(i)
        if not (unsettled := repeated):
            break
    for result in results:
        result.notes += [result.note] if result.overfit else []
    return results


def suggestion_of(run: Run, watched: Watch = Watch.test_loss) -> Suggestion | None:
    """The suggestion of a run by its test loss or error rate; None if it diverged within its first three tests.

    A curve that stays at chance level suggests no max LR.
    """
    rows = run.rows
    values = rows["test_loss"]
    if watched is Watch.test_error:  # whose logarithm is taken: no wrong image counts as half of one
        images = run.config.dataset.test_images or registry.get(run.config.dataset).test
        values = (1 - rows["test_accuracy"]).clip(lower=0.5 / images)
    loss = values.where(rows["train_loss"].notna() & rows["test_loss"].notna())
    if not _is_long(rows):
        return None
    found = suggest(rows["lr"].to_numpy(), loss.to_numpy())
    if loss.rolling(3, min_periods=1).median().min() > BETTER * _by_chance(run, watched):
        return replace(found, max_lr=float("nan"), is_first=found.is_first or not found.is_last)
    return found


def _by_chance(run: Run, watched: Watch) -> float:
    """The test loss, or the error rate, of a network that gives every class the same probability."""
    classes = registry.get(run.config.dataset).classes
    return 1 - 1 / classes if watched is Watch.test_error else math.log(classes)


def table(ranged: Ranged) -> pd.DataFrame:
    """One row per seed: the suggestion of its range test."""
    rows = []
    for run, s in zip(ranged.runs, ranged.suggestions, strict=True):
        row = {"setting": f"LR to {run.rows['lr'].max():.3g}", "seed": run.config.seed, "tests": len(run.rows)}
        row["watched"] = WORDS[ranged.watched]
        if s is not None:
            row |= {"max_lr": s.max_lr, "minimum_lr": s.minimum, "diverged_lr": s.diverged}
        rows.append(
            row | {"lowest_loss": run.rows["test_loss"].min(), "best_accuracy": run.rows["test_accuracy"].max()}
        )
    return pd.DataFrame(rows)


def round_to(value: float, digits: int = 2) -> float:
    """``value`` to ``digits`` significant digits; a range test is no more exact than two."""
    return float(f"{value:.{digits}g}")


def _is_long(rows: pd.DataFrame) -> bool:
    """Whether the run had at least three tests before it diverged."""
    first_losses = rows[["test_loss", "train_loss"]].head(3).to_numpy()
    return len(first_losses) == 3 and bool(np.isfinite(first_losses).all())


def _values(suggestions: Sequence[Suggestion | None]) -> list[float]:
    return [s.max_lr for s in suggestions if s is not None and not np.isnan(s.max_lr)]


def _median(suggestions: Sequence[Suggestion | None]) -> float:
    values = _values(suggestions)
    if 2 * len(values) <= len(suggestions):
        return float("nan")
    return round_to(float(np.exp(np.median(np.log(values)))))


def _options(limits: tuple[float, float], iterations: int, settings: LRRange, watch: Watch) -> list[str]:
    """The overrides of a range test; if ``watch`` is the error rate, the test loss does not end it early."""
    divergence = None if watch is Watch.test_error else settings.divergence
    shape = "lr_range_exponential" if settings.growth is Growth.exponential else "lr_range"
    options = range_test(*limits, settings.momentum, iterations, shape)
    return [*options, *watched(iterations, settings.tests, divergence)]


def _next_limits(
    result: Ranged, limits: tuple[float, float], exponential: bool
) -> tuple[tuple[float, float] | None, str]:
    """The range of a further round, and why; None if the seeds suggest a max LR and most show the minimum."""
    low, high = limits
    too_high, too_low, lowest = 0, 0, []
    for run, s in zip(result.runs, result.suggestions, strict=True):
        lr = run.rows["lr"]
        has_few = s is not None and not exponential and int((lr < s.max_lr).sum()) < FEW * run.tests
        is_too_high = s is None or s.is_first or (has_few and not np.isnan(s.max_lr))
        too_high += is_too_high
        too_low += s is not None and not is_too_high and s.is_last
        lowest.append(float(lr.iloc[0]) if s is None else s.minimum)
    if 2 * too_low > len(result.runs):
        return (low, high * FACTOR), f"the {WORDS[result.watched]} still falls at its end"
    if 2 * too_high > len(result.runs) or np.isnan(result.max_lr):  # at exactly half there is no max LR either
        if exponential:
            return (low / 100, max(float(np.median(lowest)), low)), "it begins at too high an LR"
        return (
            low / FACTOR,
            min(high / FACTOR, FACTOR * float(np.median(lowest))),
        ), "the minimum is among its first tests"
    return None, ""


def _restrict(
    limits: tuple[float, float], high: float, bounds: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """``limits`` of the next range, restricted so that it ends within ``bounds``, and the new bounds.

    The bounds are the largest end that was too low and the smallest that was too high; ``high`` is the end of the
    last range. Without them, two ranges could alternate for ever.
    """
    bounds = (max(bounds[0], high), bounds[1]) if limits[1] > high else (bounds[0], min(bounds[1], high))
    if not bounds[0] < limits[1] < bounds[1]:
        high = float(np.sqrt(bounds[0] * bounds[1])) if bounds[0] else bounds[1] / FACTOR
        limits = limits[0], round_to(high)
    return limits, bounds


def _by_short_runs(
    base: Base, suggested: float, settings: LRRange
) -> tuple[tuple[float, float] | None, list[Run], pd.DataFrame]:
    """(Max LR, min LR) whose 1cycle runs, as long as a range test, end at the lowest test loss; runs and table.

    None in place of the pair if every one diverged.
    """
    iterations = base.length(settings.epochs, settings.share)
    highest = [round_to(suggested * factor) for factor in settings.factors]
    limits = [(high, round_to(high / ratio)) for high in highest for ratio in settings.ratios]
    options = [[*onecycle(*limit, settings.momentum, iterations), often(iterations, 20)] for limit in limits]
    results = train(base, options, settings.seeds)
    losses = [float(np.mean([run.final("test_loss") for run in runs])) for runs in results]
    rows = [
        {"setting": f"1cycle, LR {low:.3g} to {high:.3g}", "seed": run.config.seed, "tests": len(run.rows)}
        | {"lowest_loss": run.final("test_loss"), "best_accuracy": run.final("test_accuracy")}
        for (high, low), runs in zip(limits, results, strict=True)
        for run in runs
    ]
    best = limits[int(np.argmin(losses))] if np.isfinite(losses).any() else None
    return best, [run for runs in results for run in runs], pd.DataFrame(rows)
