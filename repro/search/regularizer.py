"""The search that weight decay and dropout share: values compared by range tests, then bisected."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from repro.search.dry import Stage
from repro.search.found import Found, curves_of
from repro.search.lr_range import Ranged, ranges, round_to
from repro.search.runs import Base, onecycle
from repro.search.settings import Regularizer

HIGH = 0.5  # smallest share of the largest max LR of all values that is still a high LR
NEAR = 1.05  # largest multiple of the lowest test loss of all values that still trains well


@dataclass(frozen=True)
class Kind:
    """A regularizer."""

    method: str
    name: str  # as printed
    key: str  # of the configuration
    middle: Callable[[float, float], float]  # the bisecting value of a smaller and a larger one
    larger: Callable[[float], float]  # a value to try if this one is the largest that was tried


@dataclass
class Tried:
    """The compared values, and their range tests."""

    by_value: dict[float, Ranged] = field(default_factory=dict)

    @property
    def good(self) -> list[float]:
        """The values that still train well at a high LR, ascending."""
        learning = {value: r for value, r in self.by_value.items() if not np.isnan(r.max_lr)}
        if not learning:
            return []
        highest = max(r.max_lr for r in learning.values())
        lowest = min(r.lowest_loss for r in learning.values() if r.max_lr >= HIGH * highest)
        return sorted(
            v for v, r in learning.items() if r.max_lr >= HIGH * highest and r.lowest_loss <= NEAR * lowest
        )


def search(base: Base, settings: Regularizer, kind: Kind, values: Sequence[float]) -> Found:
    """Find the largest value whose range test still reaches a low loss at a high LR, then refine by bisection."""
    tried = Tried()
    # The smallest value allows the highest LR. Its range, and whether loss or error rate is watched, apply to all
    # values, so that they can be compared.
    _add(base, settings, kind, tried, [min(values)])
    first = tried.by_value[min(values)]
    settings = replace(settings, low=first.low, high=first.high, rounds=1, watch=first.watched)
    _add(base, settings, kind, tried, values)
    for _ in range(settings.bisections):
        value = _next_value(tried, kind)
        if value is None:
            break
        _add(base, settings, kind, tried, [value])
    all_runs = [run for ranged in tried.by_value.values() for run in ranged.every]
    curves = curves_of([(label(kind, v), run) for v in sorted(tried.by_value) for run in tried.by_value[v].runs])
    notes = [f"{label(kind, v)}: {note}" for v, r in tried.by_value.items() for note in r.notes]
    if not tried.good:
        why = "no value's range test shows a minimum"
        return Found(kind.method, [], {}, why, notes, table(tried), curves, all_runs, "lr")
    best = tried.good[-1]
    ranged = tried.by_value[best]
    low = round_to(ranged.max_lr / settings.ratios[0])
    larger = [value for value in sorted(tried.by_value) if value > best]
    why = (
        f"{label(kind, best)} is the largest that reaches a low test loss ({ranged.lowest_loss:.3g}) at a high LR"
    )
    if larger:
        other = tried.by_value[larger[0]]
        its, ours = f"{other.max_lr:.2g}", f"{ranged.max_lr:.2g}"
        suggested = "no LR" if np.isnan(other.max_lr) else f"LR {its}" + ("" if its == ours else f", not {ours}")
        why += f"; {label(kind, larger[0])} reaches {other.lowest_loss:.3g} and suggests {suggested}"
    else:
        notes.append(further(kind, best))
    if settings.seeds == 1:
        notes.append("one seed each: search.seeds=4 says whether the differences are more than chance")
    overrides = [f"{kind.key}={best:.6g}", *onecycle(ranged.max_lr, low, settings.momentum, base.iterations)]
    chosen = {kind.name: best, "max LR": ranged.max_lr, "min LR": low}
    return Found(kind.method, overrides, chosen, why, notes, table(tried), curves, all_runs, "lr")


def stages(base: Base, settings: Regularizer, values: Sequence[float]) -> list[Stage]:
    """The largest number of runs that it trains, by stage."""
    iterations = base.length(settings.epochs, settings.share)
    count = (settings.rounds + len(values) - 1 + settings.bisections) * settings.seeds
    return [Stage("LR range tests by value", count, iterations)]


def label(kind: Kind, value: float) -> str:
    """A value with its name, as printed."""
    return f"{kind.name} {value:.6g}"


def further(kind: Kind, best: float) -> str:
    """The note for a choice that is the largest value that was tried."""
    return f"it is the largest that was tried; search.values=[{best:.6g},{kind.larger(best):.6g}] goes further"


def table(tried: Tried) -> pd.DataFrame:
    """One row per value: the suggestion of its range tests."""
    rows = [
        {
            "value": value,
            "max_lr": ranged.max_lr,
            "lowest_loss": ranged.lowest_loss,
            "good": value in tried.good,
            "seeds": len(ranged.runs),
        }
        for value, ranged in sorted(tried.by_value.items())
    ]
    return pd.DataFrame(rows)


def _add(base: Base, settings: Regularizer, kind: Kind, tried: Tried, values: Sequence[float]) -> None:
    new = [value for value in dict.fromkeys(values) if value not in tried.by_value]
    found = ranges(base, [[f"{kind.key}={value:.6g}"] for value in new], settings)
    tried.by_value |= dict(zip(new, found, strict=True))


def _next_value(tried: Tried, kind: Kind) -> float | None:
    """The value between the best value and the next larger one; None if there is no larger one."""
    if not tried.good:
        return None
    larger = [value for value in sorted(tried.by_value) if value > tried.good[-1]]
    return kind.middle(tried.good[-1], larger[0]) if larger else None
