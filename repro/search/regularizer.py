"""What weight decay and dropout have in common: values compared by range tests, then bisected."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from repro.search.dry import Stage
from repro.search.found import Found, curves_of
from repro.search.lr_range import Ranged, ranges, round_to
from repro.search.runs import Base, onecycle
from repro.search.settings import Regularizer

HIGH = 0.5  # of the largest max LR of all values: what is still a high LR
NEAR = 1.05  # times the lowest test loss of all: what still trains well


@dataclass(frozen=True)
class Kind:
    """A regularizer: how it is called, set and halved."""

    method: str
    name: str
    key: str  # of the configuration
    middle: Callable[[float, float], float]


@dataclass
class Tried:
    """The values that were compared, in order of size, and their range tests."""

    by_value: dict[float, Ranged] = field(default_factory=dict)

    @property
    def good(self) -> list[float]:
        """The values that still train well at a high LR, in order of size."""
        learning = {value: r for value, r in self.by_value.items() if not np.isnan(r.max_lr)}
        if not learning:
            return []
        highest = max(r.max_lr for r in learning.values())
        lowest = min(r.lowest_loss for r in learning.values() if r.max_lr >= HIGH * highest)
        return sorted(
            v for v, r in learning.items() if r.max_lr >= HIGH * highest and r.lowest_loss <= NEAR * lowest
        )


def search(base: Base, settings: Regularizer, kind: Kind, values: Sequence[float]) -> Found:
    """The largest value whose range test still falls to a low loss at a high LR; then bisected."""
    tried = Tried()
    _add(base, settings, kind, tried, [min(values)])  # which allows the highest LR: its range is for all of them
    first = tried.by_value[min(values)]  # and what it is read by: loss and error rate cannot be compared
    settings = replace(settings, high=first.high, rounds=1, watch=first.watched)
    _add(base, settings, kind, tried, values)
    for _ in range(settings.bisections):
        between = _next(tried, kind)
        if between is None:
            break
        _add(base, settings, kind, tried, [between])
    every = [run for ranged in tried.by_value.values() for run in ranged.every]
    curves = curves_of([(label(kind, v), run) for v in sorted(tried.by_value) for run in tried.by_value[v].runs])
    notes = [f"{label(kind, v)}: {note}" for v, r in tried.by_value.items() for note in r.notes]
    if not tried.good:
        why = "no value's range test shows a minimum"
        return Found(kind.method, [], {}, why, notes, table(tried), curves, every, "lr")
    best = tried.good[-1]
    ranged = tried.by_value[best]
    low = round_to(ranged.max_lr / settings.ratios[0])
    larger = [value for value in sorted(tried.by_value) if value > best]
    why = (
        f"{label(kind, best)} is the largest that reaches a low test loss ({ranged.lowest_loss:.3g}) at a high LR"
    )
    if larger:
        other = tried.by_value[larger[0]]
        why += f"; {label(kind, larger[0])} reaches {other.lowest_loss:.3g} and suggests LR {other.max_lr:.2g}, "
        why += f"not {ranged.max_lr:.2g}"
    else:
        notes.append(
            f"it is the largest that was tried: search.values=[{best:g},{10 * best or 0.1:g}] goes further"
        )
    if settings.seeds == 1:
        notes.append("one seed each: search.seeds=4 says whether the differences are more than chance")
    overrides = [f"{kind.key}={best:.6g}", *onecycle(ranged.max_lr, low, settings.momentum, base.iterations)]
    chosen = {kind.name: best, "max LR": ranged.max_lr, "min LR": low}
    return Found(kind.method, overrides, chosen, why, notes, table(tried), curves, every, "lr")


def stages(base: Base, settings: Regularizer, values: Sequence[float]) -> list[Stage]:
    """What it trains at most."""
    iterations = base.length(settings.epochs, settings.share)
    count = (settings.rounds + len(values) - 1 + settings.bisections) * settings.seeds
    return [Stage("LR range tests by value", count, iterations)]


def label(kind: Kind, value: float) -> str:
    """A value as it is told."""
    return f"{kind.name} {value:.2g}"


def table(tried: Tried) -> pd.DataFrame:
    """A row a value: what its range tests suggest together."""
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


def _next(tried: Tried, kind: Kind) -> float | None:
    """Between the chosen value and the next larger one; None where there is none."""
    if not tried.good:
        return None
    larger = [value for value in sorted(tried.by_value) if value > tried.good[-1]]
    return kind.middle(tried.good[-1], larger[0]) if larger else None
