"""The settings of a search: one dataclass per method, set by ``conf/method/<method>.yaml`` and ``search.KEY=``."""

from dataclasses import dataclass, field
from enum import Enum

from repro.config.schema import NOT_NEGATIVE, POSITIVE, number


class Growth(Enum):
    """How the LR of a range test grows."""

    linear = "linear"
    exponential = "exponential"


class Watch(Enum):
    """The curve whose minimum a range test looks for."""

    auto = "auto"  # the test loss, or the error rate if the test loss rises by overfitting
    test_loss = "test_loss"
    test_error = "test_error"


class Strategy(Enum):
    """How the values of a regularizer are compared."""

    range_test = "range_test"  # by a range test of each
    snapshot = "snapshot"  # by restarts of one run at the plateau of its loss


@dataclass
class Common:
    """The settings of every method."""

    seeds: int = number(1, POSITIVE)  # runs of each setting, counting from seed=
    epochs: float | None = number(None, POSITIVE)  # per run; null: ``share`` of the composed run's
    share: float = number(1.0, POSITIVE)
    tests: int = number(50, "[5, inf)")  # per run
    momentum: list[float] = field(default_factory=lambda: [0.95, 0.85])  # at low and at high LR; one is constant
    divergence: float | None = number(4.0, "(1, inf)")  # ends a run early: Config.divergence
    name: str | None = None  # of the written experiment; null: <data set>-<network>-<fingerprint>/<method>
    to: str | None = None  # the folder for the written experiment; null: <output>/search/...


@dataclass
class LRRange(Common):
    """``method=lr_range``."""

    growth: Growth = Growth.linear
    low: float = number(0.0, NOT_NEGATIVE)  # the LR at the start of the range
    high: float = number(1.0, POSITIVE)  # the LR at its end, in the first round
    watch: Watch = Watch.auto
    rounds: int = number(4, POSITIVE)  # at most; each takes another range if the last one missed the minimum
    # With several factors or ratios, short runs choose among them.
    factors: list[float] = field(
        default_factory=lambda: [1.0], metadata={"interval": POSITIVE}
    )  # of the suggested max LR
    ratios: list[float] = field(
        default_factory=lambda: [10.0], metadata={"interval": "[1, inf)"}
    )  # max LR / min LR


@dataclass
class Momentum(Common):
    """``method=momentum``."""

    values: list[float] = field(default_factory=lambda: [0.99, 0.97, 0.95, 0.9], metadata={"interval": "[0, 1)"})
    lowest: float = number(0.85, "[0, 1)")  # the value that cyclical momentum falls to while the LR rises
    max_lr: float | None = number(None, POSITIVE)  # of the short 1cycle runs; null: the composed schedule's
    min_lr: float | None = number(None, POSITIVE)
    range_test: bool = True  # also run the range test of Figure 7b


@dataclass
class Regularizer(LRRange):
    """``method=weight_decay``."""

    mode: Strategy = Strategy.range_test
    # to compare; null: by the depth of the network and the size of the data
    values: list[float] | None = field(default=None, metadata={"interval": NOT_NEGATIVE})
    bisections: int = number(1, NOT_NEGATIVE)  # between the chosen value and the next larger one


@dataclass
class Dropout(Regularizer):
    """``method=dropout``."""

    values: list[float] | None = field(default=None, metadata={"interval": "[0, 1)"})


@dataclass
class BatchSize(LRRange):
    """``method=batch_size``."""

    largest: int | None = number(None, POSITIVE)  # batch size to try; null: a tenth of the training images
    limit_mb: float | None = number(None, POSITIVE)  # of memory; null: 0.8 of the free memory (CPU), all (GPU)


@dataclass
class Recipe(Regularizer):
    """``method=recipe``."""

    stages: list[str] = field(
        default_factory=lambda: ["batch_size", "lr_range", "momentum", "weight_decay", "dropout"]
    )
    budget_epochs: float | None = number(None, POSITIVE)  # of all runs; it sets the length of the final training
    minutes: float | None = number(None, POSITIVE)  # the same budget as time
    final_seeds: int = number(2, POSITIVE)  # of the final training, and of the defaults that it is compared with


METHODS: dict[str, type[Common]] = {
    "lr_range": LRRange,
    "momentum": Momentum,
    "weight_decay": Regularizer,
    "dropout": Dropout,
    "batch_size": BatchSize,
    "recipe": Recipe,
}
