"""What a search can be told: a dataclass a method, filled by ``conf/method/<method>.yaml`` and ``search.KEY=``."""

from dataclasses import dataclass, field
from enum import Enum

from repro.config.schema import NOT_NEGATIVE, POSITIVE, number


class Growth(Enum):
    """How the LR of a range test grows."""

    linear = "linear"
    exponential = "exponential"


@dataclass
class Common:
    """What every method takes."""

    seeds: int = number(1, POSITIVE)  # runs of each setting, from seed= on
    epochs: float | None = number(None, POSITIVE)  # of one of its runs; null: ``share`` of the composed run's
    share: float = number(1.0, POSITIVE)
    tests: int = number(50, "[5, inf)")  # of one of its runs
    momentum: list[float] = field(default_factory=lambda: [0.95, 0.85])  # at low and at high LR; one is constant
    divergence: float | None = number(4.0, "(1, inf)")  # ends a run early: Config.divergence
    name: str | None = None  # of the experiment that is written; null: <data set>-<network>-<method>
    to: str | None = None  # where it is written; null: <output>/search/...


@dataclass
class LRRange(Common):
    """``method=lr_range``."""

    growth: Growth = Growth.linear
    low: float = number(0.0, NOT_NEGATIVE)  # the LR that the range begins at
    high: float = number(1.0, POSITIVE)  # and where it ends, in the first round
    rounds: int = number(4, POSITIVE)  # at most, each with another range where the one before missed the minimum
    ratios: list[float] = field(default_factory=lambda: [10.0])  # max LR / min LR; of several, short runs choose


METHODS: dict[str, type[Common]] = {"lr_range": LRRange}
