"""``method=weight_decay``: the largest weight decay that still trains at a high learning rate."""

import math

from repro.search import regularizer, snapshot
from repro.search.dry import Stage
from repro.search.found import Found
from repro.search.network import depth
from repro.search.regularizer import Kind
from repro.search.runs import Base
from repro.search.settings import Regularizer, Strategy

# The report's advice: 1e-3, 1e-4, 1e-5 and 0 if nothing is known; shallow networks and small data need more.
USUAL = [1e-3, 1e-4, 1e-5, 0.0]
LARGER = [1e-2, 1e-3, 1e-4, 1e-5]
SHALLOW = 8  # layers with weights
SMALL = 10_000  # training images


def middle(smaller: float, larger: float) -> float:
    """The geometric mean, which bisects the exponent: 10**-3.5 for 1e-4 and 1e-3. Zero counts as larger / 100."""
    value = math.sqrt((smaller or larger / 100) * larger)
    return float(f"{value:.2g}")


def larger(value: float) -> float:
    """Ten times as large; above 0 the smallest of the usual ones."""
    return 10 * value or min(LARGER)


KIND = Kind("weight_decay", "weight decay", "regularization.weight_decay", middle, larger)


def search(base: Base, settings: Regularizer) -> Found:
    """Compare values by range tests, or by restarts from one run's snapshot."""
    if settings.mode is Strategy.snapshot:
        return snapshot.search(base, settings, KIND, values(base, settings))
    return regularizer.search(base, settings, KIND, values(base, settings))


def stages(base: Base, settings: Regularizer) -> list[Stage]:
    """The largest number of runs that it trains, by stage."""
    if settings.mode is Strategy.snapshot:
        return snapshot.stages(base, settings, values(base, settings))
    return regularizer.stages(base, settings, values(base, settings))


def values(base: Base, settings: Regularizer) -> list[float]:
    """The configured values, or a default by the depth of the network and the size of the data."""
    if settings.values is not None:
        return settings.values
    return LARGER if base.images < SMALL or depth(base.config) <= SHALLOW else USUAL
