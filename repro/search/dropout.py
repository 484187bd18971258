"""``method=dropout``: the largest dropout that still trains at a high learning rate, found as for weight decay."""

from repro.config.errors import ReproError
from repro.search import network, regularizer, snapshot
from repro.search.dry import Stage
from repro.search.found import Found
from repro.search.regularizer import Kind
from repro.search.runs import Base
from repro.search.settings import Regularizer, Strategy

VALUES = [0.0, 0.1, 0.2, 0.4]


def middle(smaller: float, larger: float) -> float:
    """The arithmetic mean."""
    return round((smaller + larger) / 2, 3)


def larger(value: float) -> float:
    """Halfway to 1, where nothing would be left."""
    return middle(value, 1.0)


KIND = Kind("dropout", "dropout", "++model.options.dropout", middle, larger)


def search(base: Base, settings: Regularizer) -> Found:
    """Compare values by range tests, or by restarts from one run's snapshot.

    Raises ReproError for a network without dropout.
    """
    require(base)
    method = snapshot.search if settings.mode is Strategy.snapshot else regularizer.search
    return method(base, settings, KIND, settings.values or VALUES)


def stages(base: Base, settings: Regularizer) -> list[Stage]:
    """The largest number of runs that it trains, by stage."""
    require(base)
    method = snapshot.stages if settings.mode is Strategy.snapshot else regularizer.stages
    return method(base, settings, settings.values or VALUES)


def require(base: Base) -> None:
    """Raise ReproError for a network whose function has no parameter dropout."""
    if not network.takes(base.config, "dropout"):
        raise ReproError(
            f"method=dropout: {base.config.model.name} has no dropout; choose a network whose function has a "
            "parameter dropout, such as densenet40"
        )
