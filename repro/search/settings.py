"""What a search can be told: a dataclass a method, filled by ``conf/method/<method>.yaml`` and ``search.KEY=``."""

from dataclasses import dataclass, field
from enum import Enum

from repro.config.schema import NOT_NEGATIVE, POSITIVE, number


class Growth(Enum):
    """How the LR of a range test grows."""

    linear = "linear"
    exponential = "exponential"


class Watch(Enum):
    """What a range test is read by."""

    auto = "auto"  # the test loss; where it rises by overfitting, the error rate
    test_loss = "test_loss"
    test_error = "test_error"


class Strategy(Enum):
    """How the values of a regularizer are compared."""

    range_test = "range_test"  # a range test each
    snapshot = "snapshot"  # restarts of one run, from where its loss has plateaued


@dataclass
class Common:
    """What every method takes."""

    seeds: int = number(1, POSITIVE)  # runs of each setting, from seed= on
    epochs: float | None = number(None, POSITIVE)  # of one of its runs; null: ``share`` of the composed run's
    share: float = number(1.0, POSITIVE)
    tests: int = number(50, "[5, inf)")  # of one of its runs
    momentum: list[float] = field(default_factory=lambda: [0.95, 0.85])  # at low and at high LR; one is constant
    divergence: float | None = number(4.0, "(1, inf)")  # ends a run early: Config.divergence
    name: str | None = None  # of the experiment that is written; null: <data set>-<network>-<fingerprint>/<method>
    to: str | None = None  # where it is written; null: <output>/search/...


@dataclass
class LRRange(Common):
    """``method=lr_range``."""

    growth: Growth = Growth.linear
    low: float = number(0.0, NOT_NEGATIVE)  # the LR that the range begins at
    high: float = number(1.0, POSITIVE)  # and where it ends, in the first round
    watch: Watch = Watch.auto
    rounds: int = number(4, POSITIVE)  # at most, each with another range where the one before missed the minimum
    factors: list[float] = field(default_factory=lambda: [1.0])  # of the suggested max LR; of several, and of
    ratios: list[float] = field(default_factory=lambda: [10.0])  # several max LR / min LR, short runs choose


@dataclass
class Momentum(Common):
    """``method=momentum``."""

    values: list[float] = field(default_factory=lambda: [0.99, 0.97, 0.95, 0.9])
    lowest: float = number(0.85, "[0, 1)")  # that cyclical momentum falls to while the LR rises
    max_lr: float | None = number(None, POSITIVE)  # of the short 1cycle runs; null: the composed schedule's
    min_lr: float | None = number(None, POSITIVE)
    range_test: bool = True  # and the range test of Figure 7b


@dataclass
class Regularizer(LRRange):
    """``method=weight_decay`` and ``method=dropout``."""

    mode: Strategy = Strategy.range_test
    values: list[float] | None = None  # to compare; null: by the depth of the network and the size of the data
    bisections: int = number(1, NOT_NEGATIVE)  # between the chosen value and the next larger one


@dataclass
class BatchSize(LRRange):
    """``method=batch_size``."""

    largest: int | None = number(None, POSITIVE)  # that is tried; null: a tenth of the training images
    limit_mb: float | None = number(None, POSITIVE)  # of memory; null: on a CPU 0.8 of what is free, on a GPU all


@dataclass
class Recipe(Regularizer):
    """``method=recipe``."""

    stages: list[str] = field(
        default_factory=lambda: ["batch_size", "lr_range", "momentum", "weight_decay", "dropout"]
    )
    budget_epochs: float | None = number(None, POSITIVE)  # of everything; it sets the length of the last training
    minutes: float | None = number(None, POSITIVE)  # the same as time
    final_seeds: int = number(2, POSITIVE)  # of the last training, and of the defaults beside it


METHODS: dict[str, type[Common]] = {
    "lr_range": LRRange,
    "momentum": Momentum,
    "weight_decay": Regularizer,
    "dropout": Regularizer,
    "batch_size": BatchSize,
    "recipe": Recipe,
}
