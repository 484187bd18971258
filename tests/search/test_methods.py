"""What each method trains and concludes, from made curves in place of trained runs."""

import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hydra.conf import ConfigSourceInfo, HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.records import naming
from repro.search import (
    app,
    batch_size,
    dropout,
    files,
    lr_range,
    momentum,
    recipe,
    regularizer,
    runs,
    weight_decay,
)
from repro.search.app import refuse, split
from repro.search.dry import Stage
from repro.search.files import write
from repro.search.found import CURVE_COLUMNS, Found
from repro.search.runs import Base, Run, merged, onecycle
from repro.search.settings import METHODS, BatchSize, LRRange, Momentum, Recipe, Regularizer, Strategy, Watch
from repro.sweeps.machine import Plan


@pytest.fixture(scope="module")
def base(resolved):
    overrides = ("model=resnet56_hyperparam", "scale=demo", "iterations=4000", "tracking=disabled")
    return Base(overrides, 4000, resolved(*overrides), 300, "digits-resnet-abcdef")


def settings_of(variation):
    return {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in variation)}


@pytest.fixture(autouse=True, scope="module")
def composing(resolved):
    """Every variation that a method trains must compose, each kind once."""
    COMPOSING["resolved"] = resolved


COMPOSING = {"seen": set()}


def made(base, variation, seed, rows, status="finished"):
    """A run as if trained: ``rows`` are (lr, momentum, test loss, accuracy)."""
    keys = tuple(override.partition("=")[0] for override in variation)
    if keys not in COMPOSING["seen"]:
        COMPOSING["seen"].add(keys)
        COMPOSING["resolved"](*merged(base.overrides, variation))
    frame = pd.DataFrame(rows, columns=["lr", "momentum", "test_loss", "test_accuracy"])
    frame = frame.assign(iteration=np.arange(1.0, len(frame) + 1), train_loss=frame["test_loss"])
    config = replace(base.config, seed=seed)
    return Run(tuple(variation), config, None, {"status": status, "wall_seconds": 1.0}, frame[runs.COLUMNS])


def range_test(best):
    """What a range test would show of a network whose best LR is ``best``, and which diverges at three times that."""

    def train(base, variations, seeds):
        results = []
        for variation in variations:
            said = settings_of(variation)
            low, high = float(said["schedule.lr.base_lr"]), float(said["schedule.lr.max_lr"])
            lr = np.linspace(low, high, 51)[1:]
            if said["schedule.lr.shape"] == "lr_range_exponential":
                lr = np.geomspace(low, high, 51)[1:]
            loss = 0.3 + 2 * np.clip(1 - lr / best, 0, None) ** 2 + 3 * np.clip(lr / best - 1, 0, None) ** 2
            rows = [(a, 0.9, b, 1 - b / 4) for a, b in zip(lr, loss, strict=True)]
            last = max(2, int((loss < 4).sum()))
            results.append([made(base, variation, s, rows[:last]) for s in range(seeds)])
        return results

    return train


@pytest.mark.parametrize("best", [0.004, 0.05, 0.4, 8.0])
@pytest.mark.parametrize("growth", ["linear", "exponential"])
def test_the_range_is_found_wherever_the_minimum_lies(monkeypatch, base, best, growth):
    monkeypatch.setattr(lr_range, "train", range_test(best))
    found = lr_range.search(base, LRRange(growth=type(LRRange().growth)[growth], rounds=6))
    assert 0.5 * best <= found.chosen["max LR"] <= 1.05 * best
    assert found.chosen["min LR"] == pytest.approx(found.chosen["max LR"] / 10, rel=0.05)
    assert "schedule=onecycle_cm" in found.overrides
    assert "iterations=4000" in found.overrides
    assert f"schedule.lr.max_lr={found.chosen['max LR']:.6g}" in found.overrides


def test_a_curve_that_stays_at_chance_suggests_nothing(monkeypatch, base):
    """It begins beyond chance, 2.3 of ten classes, and falls to it."""
    lr = np.linspace(0.02, 1, 50)
    loss = 2.3 + 2 * np.clip(1 - lr / 0.5, 0, None)
    run = made(base, [], 0, [(a, 0.9, b, 0.1) for a, b in zip(lr, loss, strict=True)])
    assert np.isnan(lr_range.suggestion_of(run).max_lr)
    assert np.isnan(lr_range.suggestion_of(run, Watch.test_error).max_lr)
    learns = made(base, [], 0, [(a, 0.9, b - 1, 0.5) for a, b in zip(lr, loss, strict=True)])
    assert lr_range.suggestion_of(learns).max_lr == pytest.approx(0.5, abs=0.1)


def test_a_range_test_has_no_test_before_it_trains():
    assert "test_at_start=false" in runs.range_test(0.0, 1.0, [0.9], 100, "lr_range")


def test_values_are_compared_over_the_range_in_which_the_first_is_found(monkeypatch, base):
    limits = []
    ranged = range_test(0.6)

    def train(base, variations, seeds):
        limits.extend(
            tuple(float(settings_of(v)[f"schedule.lr.{k}_lr"]) for k in ("base", "max")) for v in variations
        )
        return ranged(base, variations, seeds)

    monkeypatch.setattr(lr_range, "train", train)
    settings = Regularizer(low=20.0, high=64.0, rounds=6, bisections=0)
    regularizer.search(base, settings, weight_decay.KIND, [0.0, 1e-3])
    assert limits[-1] == limits[-2] != (20.0, 64.0)


def test_a_range_that_is_not_found_is_said_to_be_so(monkeypatch, base):
    monkeypatch.setattr(lr_range, "train", range_test(1e4))
    found = lr_range.search(base, LRRange(rounds=2))
    assert "the test loss still falls at its end, and no round is left" in found.notes[1]
    monkeypatch.setattr(lr_range, "train", range_test(1e-7))
    found = lr_range.search(base, LRRange(rounds=2))
    assert found.overrides == []
    assert "no range showed" in found.why


def test_a_range_in_which_only_half_of_the_seeds_learn_is_followed_by_another(monkeypatch, base):
    """As Table 1's 3-layer network does from 0 to .08: two of four seeds stay at chance."""
    ranged = range_test(0.03)

    def train(base, variations, seeds):
        results = ranged(base, variations, seeds)
        [runs] = results
        high = float(settings_of(variations[0])["schedule.lr.max_lr"])
        for run in runs[: 4 if high == 1 else 2 if high > 0.05 else 0]:
            run.rows["test_loss"] = 2.3
        return results

    monkeypatch.setattr(lr_range, "train", train)
    found = lr_range.search(base, LRRange(seeds=4))
    assert 0.015 <= found.chosen["max LR"] <= 0.0315
    monkeypatch.setattr(
        lr_range, "train", lambda *_: [[made(base, [], s, [(0.1, 0.9, 2.3, 0.1)] * 9) for s in range(4)]]
    )
    found = lr_range.search(base, LRRange(seeds=4))
    assert found.why.endswith("in the last the test loss began at 2.3 and its lowest was 2.3")


@pytest.mark.parametrize("growth", ["linear", "exponential"])
def test_a_range_too_low_to_learn_anything_in_is_followed_by_a_higher_one(monkeypatch, base, growth):
    """Up to LR 1e-3 the loss of small networks falls by a hundredth or so."""
    monkeypatch.setattr(lr_range, "train", range_test(0.4))
    found = lr_range.search(base, LRRange(growth=type(LRRange().growth)[growth], high=1e-3, rounds=8))
    assert found.notes[0].endswith(
        "the test loss still falls at its end; again from " + found.notes[0].split()[-3] + " to 0.004"
    )
    assert 0.2 <= found.chosen["max LR"] <= 0.42


def test_an_exponential_range_in_which_chance_alone_puts_the_minimum_last_is_followed_by_a_lower_one(
    monkeypatch, base
):
    """Once to a max LR of 0, which a run refused."""
    highs = []

    def train(base, variations, seeds):
        [said] = map(settings_of, variations)
        low, highest = float(said["schedule.lr.base_lr"]), float(said["schedule.lr.max_lr"])
        highs.append(highest)
        loss = 2.3 + 0.01 * np.random.default_rng(0).standard_normal(50)
        loss[-1] = 2.26
        lr = np.geomspace(low, highest, 50)
        return [[made(base, variations[0], 0, [(a, 0.9, b, 0.1) for a, b in zip(lr, loss, strict=True)])]]

    monkeypatch.setattr(lr_range, "train", train)
    found = lr_range.search(base, LRRange(growth=type(LRRange().growth).exponential, rounds=3))
    assert found.chosen == {}
    assert highs == [1.0, 0.25, 0.062]


def test_a_run_of_fewer_tests_than_asked_is_read_by_those_that_it_has(monkeypatch, base):
    """At most one each iteration: a tenth of 1,000 tests came before no suggestion of 60 iterations."""
    short = replace(base, config=replace(base.config, iterations=60, test_every=1))
    monkeypatch.setattr(lr_range, "train", range_test(0.5))
    found = lr_range.search(short, LRRange(tests=1000))
    assert len(found.runs) == 1
    assert 0.35 <= found.chosen["max LR"] <= 0.5


def test_a_range_test_of_no_length_is_refused(base):
    with pytest.raises(
        ReproError, match=r"search.epochs=0.01: too short for a range test: 1 of at least 5 iterations"
    ):
        lr_range.search(base, LRRange(epochs=0.01))


def test_an_error_rate_of_zero_is_half_an_image(monkeypatch, base):
    """Its logarithm would make one wrong image a rise for good."""
    lr = np.linspace(0.02, 1, 50)
    error = np.where(lr < 0.3, 0.5 - lr, np.where(lr < 0.6, 0.0, 1 / 300))
    run = made(base, [], 0, [(a, 0.9, 1.0, 1 - e) for a, e in zip(lr, error, strict=True)])
    monkeypatch.setattr(run.config.dataset, "test_images", 300)
    assert lr_range.suggestion_of(run, Watch.test_error).diverged is None


def overfitting(end, part=1.0):
    """Range tests whose test loss is lowest at LR .3, and whose accuracy is best at ``end``.

    In a part of the seeds the training loss falls on.
    """

    def train(base, variations, seeds):
        results = []
        for variation in variations:
            said = settings_of(variation)
            lr = np.linspace(float(said["schedule.lr.base_lr"]), float(said["schedule.lr.max_lr"]), 51)[1:]
            test, error = (least + 2 * np.clip(1 - lr / x, 0, None) ** 2 for x, least in ((0.3, 0.3), (end, 0.3)))
            test += np.clip(lr / 0.3 - 1, 0, None)
            error += 3 * np.clip(lr / end - 1, 0, None) ** 2
            last = int(((lr < 0.3) | (test < 1.2)).sum()) if "divergence" in said else 50
            rows = [(a, 0.9, b, 1 - c / 3) for a, b, c in zip(lr, test, error, strict=True)][:last]
            runs = [made(base, variation, s, rows) for s in range(seeds)]
            for run in runs[: round(part * seeds)]:
                run.rows["train_loss"] = 3 * np.exp(-3 * lr[:last])
            results.append(runs)
        return results

    return train


def test_where_the_test_loss_rises_by_overfitting_the_error_rate_is_watched(monkeypatch, base):
    """As a resnet-20 does on 2,500 images of CIFAR-10: learnt by heart from LR .15 on."""
    monkeypatch.setattr(lr_range, "train", overfitting(end=0.5))
    found = lr_range.search(base, LRRange(seeds=4))
    assert 0.35 <= found.chosen["max LR"] <= 0.5
    assert found.why.startswith("the error rate still improves")
    assert any(
        "the error rate is watched; search.watch=test_loss would suggest 0.2" in note for note in found.notes
    )
    assert set(found.tried["watched"]) == {"error rate"}
    by_test = lr_range.search(base, LRRange(seeds=4, watch=Watch.test_loss))
    assert 0.2 <= by_test.chosen["max LR"] <= 0.3
    assert any("another max LR may be better (search.watch=test_error)" in note for note in by_test.notes)
    monkeypatch.setattr(lr_range, "train", overfitting(end=0.5, part=0.5))  # no majority
    found = lr_range.search(base, LRRange(seeds=4))
    assert found.chosen["max LR"] == by_test.chosen["max LR"]
    assert not any("the training loss still falls" in note for note in found.notes)


def test_an_error_rate_that_falls_to_the_ranges_end_is_followed_beyond_it(monkeypatch, base):
    """Where the test loss has risen to four times its least, too."""
    monkeypatch.setattr(lr_range, "train", overfitting(end=1.5))
    found = lr_range.search(base, LRRange())
    assert 1.0 <= found.chosen["max LR"] <= 1.5
    assert any("LR 0 to 1: the error rate still falls at its end" in note for note in found.notes)
    monkeypatch.setattr(lr_range, "train", overfitting(end=0.8))  # which ends early when read by the test loss
    assert len(lr_range.search(base, LRRange()).runs) == 2
    assert len(lr_range.search(base, LRRange(watch=Watch.test_error)).runs) == 1


def test_regularizers_are_compared_by_one_measure(monkeypatch, base):
    """By that which the first range test was read by: what loss and error rate suggest cannot be compared."""
    asked = []

    def ranges(base, variations, settings):
        asked.append(settings.watch)
        return lr_range.ranges(base, variations, settings)

    monkeypatch.setattr(regularizer, "ranges", ranges)
    for train, watch in ((overfitting(end=0.5), Watch.test_error), (range_test(0.3), Watch.test_loss)):
        monkeypatch.setattr(lr_range, "train", train)
        asked.clear()
        weight_decay.search(base, Regularizer(values=[1e-4, 1e-3], bisections=0))
        assert asked == [Watch.auto, watch]


def test_two_ranges_do_not_take_turns():
    """A loss that still falls at LR 1 and has its minimum among the first tests of a range up to 4."""
    ends, bounds, high = [], (0.0, float("inf")), 1.0
    for after in ((0.0, 4.0), (0.0, 1.0), (0.0, 8.0), (0.0, 0.7)):
        (_, high), bounds = lr_range._restrict(after, high, bounds)
        ends.append(high)
    assert ends == [4.0, 2.0, 2.8, 2.4]


def test_of_several_min_lrs_short_runs_choose(monkeypatch, base):
    ranged = range_test(0.5)

    def train(base, variations, seeds):
        if "schedule=lr_range_cm" in variations[0]:
            return ranged(base, variations, seeds)
        lows = [float(settings_of(v)["schedule.lr.base_lr"]) for v in variations]
        return [
            [made(base, v, 0, [(low, 0.9, abs(low - 0.13), 0.5)] * 3)]
            for v, low in zip(variations, lows, strict=True)
        ]

    monkeypatch.setattr(lr_range, "train", train)
    found = lr_range.search(base, LRRange(ratios=[20, 10, 3]))
    assert found.chosen["min LR"] == pytest.approx(found.chosen["max LR"] / 3, rel=0.05)


def test_short_runs_that_all_diverge_choose_nothing(monkeypatch, base):
    ranged = range_test(0.5)

    def train(base, variations, seeds):
        if "schedule=lr_range_cm" in variations[0]:
            return ranged(base, variations, seeds)
        return [[made(base, v, 0, [(1.0, 0.9, 9.0, 0.1)], "diverged")] for v in variations]

    monkeypatch.setattr(lr_range, "train", train)
    found = lr_range.search(base, LRRange(factors=[1, 2]))
    assert (found.chosen, found.overrides, len(found.runs)) == ({}, [], 3)
    assert "every short 1cycle run diverged" in found.why


def test_a_single_factor_is_applied(monkeypatch, base):
    monkeypatch.setattr(lr_range, "train", range_test(0.5))
    whole, part = (lr_range.search(base, LRRange(factors=[factor])).chosen for factor in (1, 0.5))
    assert part["max LR"] == pytest.approx(whole["max LR"] / 2, rel=0.03)
    assert part["min LR"] == pytest.approx(whole["min LR"] / 2, rel=0.06)


def test_the_momentum_with_the_lowest_final_loss_is_chosen(monkeypatch, base):
    asked = []

    def train(base, variations, seeds):
        asked.extend(variations)
        results = []
        for variation in variations:
            said = settings_of(variation)
            if said["schedule"] == "constant_cm":
                rows = [(0.1, m, 1 - m / 2, 0.5) for m in np.linspace(0.7, 1, 20)]
                results.append([made(base, variation, 0, rows)])
                continue
            first = float(said.get("schedule.momentum.value") or said["schedule.momentum.max_momentum"])
            loss = abs(first - 0.95) + (0.1 if said["schedule"] == "onecycle" else 0)
            results.append([made(base, variation, s, [(0.1, first, loss, 0.5)] * 3) for s in range(seeds)])
        return results

    monkeypatch.setattr(momentum, "train", train)
    found = momentum.search(base, Momentum(max_lr=0.4))
    assert found.chosen["momentum"] == [0.95, 0.85]
    assert len(asked) == 4 + 4 + 1
    last = settings_of(asked[-1])
    assert (last["schedule.momentum.max_momentum"], last["schedule.momentum.min_momentum"]) == ("0.7", "1.0")
    assert "falls up to its end. In Figure 7b" in found.notes[-1]
    assert "schedule.momentum.min_momentum=0.85" in found.overrides
    assert momentum.limits(base, Momentum()) == (3.0, 0.1)  # those of the composed schedule
    with pytest.raises(ReproError, match="search.min_lr=1 is above the max LR of 0.1; give search.max_lr too"):
        momentum.limits(base, Momentum(min_lr=1, max_lr=0.1))


def test_the_largest_weight_decay_that_trains_at_a_high_lr_is_chosen_and_bisected(monkeypatch, base):
    best = {0.01: 0.05, 0.0032: 0.3, 0.001: 0.4, 0.0001: 0.4, 1e-05: 0.4}

    def train(base, variations, seeds):
        results = []
        for variation in variations:
            value = float(settings_of(variation)["regularization.weight_decay"])
            results += range_test(best[value])(base, [variation], seeds)
            results[-1][0].rows["test_loss"] *= 2 if value in doubled else 1
        return results

    doubled = []
    monkeypatch.setattr(lr_range, "train", train)
    found = weight_decay.search(base, Regularizer(rounds=3))
    assert (
        found.chosen["weight decay"] == 0.0032
    )  # between 1e-3, which trains, and 1e-2, which does at low LR only
    assert "regularization.weight_decay=0.0032" in found.overrides
    assert list(found.tried["good"]) == [True, True, True, True, False]
    assert "weight decay 0.01 reaches" in found.why
    best[0.0032] = best[0.01] = 1e6  # which no range shows
    found = weight_decay.search(base, Regularizer(rounds=3))
    assert found.why.endswith("weight decay 0.0032 reaches 2.3 and suggests no LR")
    doubled += [0.0032, 0.01]
    best |= dict.fromkeys(doubled, 0.4)
    found = weight_decay.search(base, Regularizer(rounds=3))
    assert found.why.endswith(
        f"reaches 0.608 and suggests LR {found.chosen['max LR']:.2g}"
    )  # not "LR 0.32, not 0.32"
    assert weight_decay.middle(1e-4, 1e-3) == 0.00032
    assert weight_decay.middle(0, 1e-5) == 1e-6


def test_the_value_that_goes_further_is_a_possible_one():
    for kind, best, wider in (
        (weight_decay.KIND, 1e-3, "[0.001,0.01]"),
        (weight_decay.KIND, 0, "[0,1e-05]"),
        (dropout.KIND, 0.4, "[0.4,0.7]"),
        (dropout.KIND, 0, "[0,0.5]"),
    ):
        assert f"search.values={wider} goes further" in regularizer.further(kind, best)
    assert regularizer.label(dropout.KIND, 0.125) == "dropout 0.125"  # and no other value's


def test_a_value_that_only_reaches_a_high_loss_is_not_chosen():
    class Ranged:
        def __init__(self, max_lr, lowest_loss):
            self.max_lr, self.lowest_loss, self.runs, self.every = max_lr, lowest_loss, [], []

    tried = regularizer.Tried(
        {1e-3: Ranged(1.0, 0.6), 1e-4: Ranged(0.9, 0.4), 0.0: Ranged(0.9, 0.41), 1e-2: Ranged(np.nan, 9)}
    )
    assert tried.good == [0.0, 1e-4]
    for max_lr, lowest_loss, good in (
        (0.5, 0.4, True),
        (0.49, 0.3, False),
        (1.0, 0.42, True),
        (1.0, 0.421, False),
    ):
        tried = regularizer.Tried({1e-4: Ranged(1.0, 0.4), 1e-2: Ranged(max_lr, lowest_loss)})
        assert (1e-2 in tried.good) is good


def test_the_batch_is_doubled_until_one_does_not_train(monkeypatch, base):
    tried = []

    def trial(base, variation):
        tried.append(settings_of(variation)["batch_size"])
        return replace(made(base, variation, 0, []), info={"status": "finished" if len(tried) < 3 else "failed"})

    monkeypatch.setattr(batch_size, "trial", trial)
    monkeypatch.setattr(batch_size, "too_large", lambda base, size, limit_mb: None)
    size, why, trials = batch_size.largest_batch(base, BatchSize(largest=10_000))
    assert (base.config.batch_size, size, len(trials)) == (125, 250, 3)
    assert tried == ["1000", "2000", "4000"]  # before the scale, an eighth
    assert why == "batch 250 trains, and batch 500 ran out of memory"
    assert len(tried) == 3  # so from now on each fails
    with pytest.raises(ReproError, match="batch 125 ran out of memory; start with a smaller one"):
        batch_size.largest_batch(base, BatchSize(largest=10_000))


def test_a_largest_batch_below_the_first_is_refused(base):
    with pytest.raises(ReproError, match="search.largest=8: the doubling begins at 125; increase it"):
        batch_size.stages(base, BatchSize(largest=8))


def test_an_epoch_keeps_some_iterations(monkeypatch, base):
    monkeypatch.setattr(batch_size, "trial", lambda base, variation: made(base, variation, 0, []))
    monkeypatch.setattr(batch_size, "too_large", lambda base, size, limit_mb: None)
    size, why, _ = batch_size.largest_batch(base, BatchSize())
    assert size == 125
    assert "batch 250 would leave fewer than 10 iterations an epoch" in why


def test_a_budget_is_of_everything_at_most(base):
    settings = Recipe(share=0.2, budget_epochs=100, tests=10, stages=["lr_range", "momentum", "weight_decay"])
    iterations = recipe.length(base, settings)
    of_that_length = Base(base.overrides, iterations, base.config, base.images, base.name)
    total = sum(s.runs * of_that_length.epochs(s.iterations) for s in recipe._stages(of_that_length, settings))
    assert 95 <= total <= 101
    assert recipe.length(base, Recipe()) == 4000
    with pytest.raises(ReproError, match="both limit the length; remove one"):
        recipe.length(base, Recipe(budget_epochs=1, minutes=1))
    with pytest.raises(ReproError, match=r"search.budget_epochs=0.5: \d+ iterations would be left"):
        recipe.length(base, Recipe(budget_epochs=0.5))
    with pytest.raises(ReproError, match="search.stages: no stage lr; choose from batch_size, lr_range"):
        recipe.ordered(["lr"])
    with pytest.raises(ReproError, match="search.stages: lr_range is missing"):
        recipe.ordered(["momentum"])


def test_minutes_train_nothing_in_a_dry_run(monkeypatch, base):
    monkeypatch.setattr(recipe, "train", None)
    assert recipe.stages(base, Recipe(minutes=3)) == recipe.stages(base, Recipe())
    with pytest.raises(ReproError, match="both limit the length; remove one"):
        recipe.stages(base, Recipe(minutes=3, budget_epochs=100))


def test_the_min_lr_that_short_runs_chose_is_that_of_the_final_run(monkeypatch, base):
    """Of the momentum's runs, too, and as it is printed."""
    trained = []

    def train(base, variations, seeds, **_):
        trained.extend(variations)
        if "schedule=lr_range_cm" in variations[0]:
            return range_test(0.5)(base, variations, seeds)
        results = []
        for variation in variations:
            low = float(settings_of(variation).get("schedule.lr.base_lr", 1))
            results.append(
                [made(base, variation, s, [(low, 0.9, abs(low - 0.13), 0.5)] * 3) for s in range(seeds)]
            )
        return results

    for module in (lr_range, momentum, recipe):
        monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(recipe, "with_length", lambda base, iterations: base)
    found = recipe.search(base, Recipe(stages=["lr_range", "momentum"], factors=[1], ratios=[20, 3]))
    assert found.chosen["min LR"] == pytest.approx(found.chosen["max LR"] / 3, rel=0.05)
    cycles = [
        said["schedule.lr.base_lr"] for said in map(settings_of, trained[3:]) if "schedule.lr.max_lr" in said
    ]
    assert set(cycles) == {f"{found.chosen['min LR']:.6g}"}


def test_the_run_that_is_timed_is_part_of_the_cost(monkeypatch, base):
    trained = []

    def train(base, variations, seeds, **_):
        rows = [(0.1, 0.9, 0.1, 0.9)] * 3
        results = [[made(base, variation, seed, rows) for seed in range(seeds)] for variation in variations]
        if "schedule=lr_range" in variations[0]:
            results = range_test(0.5)(base, variations, seeds)
        trained.extend(run for runs in results for run in runs)
        return results

    for module in (lr_range, recipe):
        monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(runs.Run, "speed", 1000.0)
    monkeypatch.setattr(recipe, "with_length", lambda base, iterations: base)
    found = recipe.search(base, Recipe(stages=["lr_range"], factors=[1], minutes=20))
    assert "threads=1" in trained[0].overrides
    assert found.runs == trained


def test_the_defaults_are_stretched_from_what_the_command_line_says(composing, base):
    """A step size beside ``iterations=`` is for those iterations, that of an experiment for its own."""
    experiment = runs.base_of(["experiment=fig8b/tbs512", "scale=demo", "iterations=5000"])
    whole = runs.base_of(["experiment=fig8b/tbs512", "scale=demo"])
    step, factor = whole.config.schedule.lr["step_size"], whole.config.scale.iterations
    for iterations in (2500, 7500, round(factor * whole.iterations)):
        said = settings_of(recipe.defaults(recipe.with_length(experiment, iterations), experiment)[1])
        stretched = step / factor * iterations / whole.iterations
        assert int(said["schedule.lr.step_size"]) == pytest.approx(stretched, abs=1)
    typed = runs.base_of([*experiment.overrides, "schedule.lr.step_size=2000"])
    said = settings_of(recipe.defaults(recipe.with_length(typed, 7500), typed)[1])
    assert said["schedule.lr.step_size"] == "3000"
    cyclical = runs.base_of([*typed.overrides, "schedule=onecycle_cm"])  # its momentum has the step size of the LR
    said = settings_of(recipe.defaults(recipe.with_length(cyclical, 7500), cyclical)[1])
    assert (said["schedule.lr.step_size"], said["schedule.momentum.step_size"]) == ("3000", "3000")
    assert "schedule.lr.step_size" not in settings_of(recipe.defaults(typed, typed)[1])


def test_a_command_line_is_the_searchs_or_the_runs():
    words = [
        "method=momentum",
        "search.seeds=2",
        "model=cnn3",
        "--config-dir",
        "conf",
        "batch_size=32",
        "--dry-run",
    ]
    own, training = split(words)
    assert own == ["method=momentum", "search.seeds=2", "--config-dir", "conf", "--dry-run"]
    assert training == ["model=cnn3", "batch_size=32"]
    for said in ("sweep=fig5a", "-m", "divergence=3", "test_every=10"):
        with pytest.raises(ReproError, match="a search launches its runs itself|the search sets it"):
            refuse([said])


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("lr_range", {"ratios": [0.5]}, r"search.ratios=\[0.5\]: 0.5 is not in \[1, inf\)"),
        ("lr_range", {"ratios": [10.0, float("nan")]}, "nan is not a finite number"),
        ("lr_range", {"factors": []}, r"search.factors=\[\] is empty"),
        ("lr_range", {"factors": [0]}, "0 is not positive"),
        ("lr_range", {"low": 2, "high": 1}, "search.low=2 is not below search.high=1"),
        ("momentum", {"values": []}, r"search.values=\[\] is empty"),
        ("momentum", {"values": [0.9, 1]}, r"1 is not in \[0, 1\)"),
        ("weight_decay", {"values": []}, r"search.values=\[\] is empty"),
        ("weight_decay", {"values": [-1]}, "-1 is negative"),
        ("dropout", {"values": [0.0, 1.5]}, r"search.values=\[0.0, 1.5\]: 1.5 is not in \[0, 1\)"),
        (
            "weight_decay",
            {"factors": [1, 0.3]},
            r"search.factors=\[1.0, 0.3\]: method=weight_decay does not read it",
        ),
        ("dropout", {"ratios": [10, 3]}, r"search.ratios=\[10.0, 3.0\]: method=dropout reads one; give one"),
        (
            "dropout",
            {"mode": "snapshot", "bisections": 2},
            "search.bisections=2: search.mode=snapshot does not read it",
        ),
        (
            "recipe",
            {"stages": "lr_range"},
            r"search.stages=lr_range: it is a list; write search.stages=\[lr_range\]",
        ),
        ("lr_range", {"momentum": 0.9}, r"search.momentum=0.9: it is a list; write search.momentum=\[0.9\]"),
        (
            "weight_decay",
            {"mode": "snapshot", "seeds": 4},
            "search.seeds=4: search.mode=snapshot does not read it",
        ),
        (
            "weight_decay",
            {"mode": "snapshot", "rounds": 1},
            "search.rounds=1: search.mode=snapshot does not read it",
        ),
        ("recipe", {"stages": []}, r"search.stages=\[\] is empty"),
        ("lr_range", {"name": "../../esc"}, "search.name=../../esc cannot name a folder"),
        ("lr_range", {"name": "LR [1], x"}, r"search.name=LR \[1\], x: Hydra cannot read experiment="),
        ("lr_range", {"name": "/abs"}, "search.name=/abs cannot name a folder"),
        ("lr_range", {"name": ""}, "search.name= cannot name a folder"),
    ],
)
def test_an_impossible_setting_is_refused_before_anything_trains(method, values, message):
    with pytest.raises(ReproError, match=message):
        app.settings_of(method, OmegaConf.create({"method": method, **values}))


def test_a_folder_that_cannot_be_written_is_named_before_anything_trains(base, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ReproError, match=r"search.to: .*/file/x: Not a directory"):
        files.make_folder(base, LRRange(to=str(tmp_path / "file/x")), "lr_range")


def test_a_search_replaces_and_removes_the_experiment_of_a_search_alone(base, tmp_path):
    settings = LRRange(to=str(tmp_path), name="mine")
    empty = Found(
        "lr_range", [], {}, "it fails", [], pd.DataFrame({"lr": [1]}), pd.DataFrame(columns=CURVE_COLUMNS), []
    )
    found = replace(empty, overrides=["schedule=onecycle"], search="python -m repro.search")
    path = tmp_path / "experiment/mine.yaml"
    write(found, base, settings)
    files.make_folder(base, settings, "lr_range")
    assert path.exists()
    write(empty, base, settings)
    assert not path.exists()
    path.write_text("# @package _global_\n# of my own\n")
    with pytest.raises(ReproError, match=r"mine.yaml is not of a search and would be replaced; set search.name="):
        files.make_folder(base, settings, "lr_range")


def test_a_schedule_that_a_range_test_would_not_read_is_refused():
    with pytest.raises(ReproError, match="schedule.momentum.value: method=lr_range chooses its own schedule"):
        refuse(["schedule.momentum.value=0.5"], "lr_range")
    with pytest.raises(
        ReproError, match="schedule.lr.max_lr: method=dropout chooses its own schedule; use search.low"
    ):
        refuse(["schedule.lr.max_lr=0.5"], "dropout", Regularizer())
    refuse(["schedule.lr.max_lr=0.5"], "dropout", Regularizer(mode=Strategy.snapshot))
    refuse(["schedule.momentum.value=0.5"], "recipe")  # for the defaults that it compares with


def test_a_later_override_goes_before_an_earlier_one_and_a_group_before_its_keys():
    said = merged(["schedule.lr.max_lr=3", "seed=1", "iterations=5"], ["schedule=onecycle", "iterations=9"])
    assert said == ["seed=1", "schedule=onecycle", "iterations=9"]
    typed = ["dataset.resolution=12", "dataset=digits"]  # in either order, as Hydra takes them
    assert merged(typed, ["seed=1"]) == [*typed, "seed=1"]


@pytest.mark.parametrize("folder", ["found", "what I've found, by LR = [1] (ü)"])
def test_the_command_says_again_what_the_scale_would_change(folder, base, resolved, tmp_path):
    """A scale goes before an experiment, but not before what is said beside it."""
    folder = tmp_path / folder
    overrides = (*base.overrides, "model.blocks=2", "dataset.resolution=12")
    curves = pd.DataFrame(columns=CURVE_COLUMNS)
    found = Found("lr_range", onecycle(0.3, 0.03, [0.95, 0.85], 4000), {}, "so", [], curves, curves, [])
    write(found, replace(base, overrides=overrides), LRRange(to=str(folder), name="mine"))
    said = shlex.split(found.command)
    assert said[:5] == ["python", "-m", "repro.train", "--config-dir", str(folder)]
    assert said[5:] == ["experiment=mine", "scale=demo", "model.blocks=2"]  # demo says no resolution
    run = resolved("hydra.searchpath=" + naming.spelled([f"file://{folder}"]), *said[5:])
    assert (run.model.blocks, run.dataset.resolution, run.schedule.lr["max_lr"]) == (2, 12, 0.3)


def test_what_was_found_can_be_trained_with_another_schedule_and_step_size(base, resolved, tmp_path):
    """And so be searched on from: ``method=momentum`` tries constant momentum too."""
    curves = pd.DataFrame(columns=CURVE_COLUMNS)
    overrides = [*onecycle(0.3, 0.03, [0.95, 0.85], 4000), "engine.precision=tf32", "device=cuda"]
    found = Found(
        "lr_range", overrides, {}, "so", [], curves, curves, [], search="python -m repro.search search.seeds=2"
    )
    write(found, base, LRRange(to=str(tmp_path), name="mine"))
    text = (tmp_path / "experiment/mine.yaml").read_text()
    assert "# Found by python -m repro.search search.seeds=2\n" in text
    assert "engine:\n  precision: tf32\n" in text
    (tmp_path / "experiment/mine.yaml").write_text(text.replace("tf32", "float32"))  # which a CPU has
    said = ["hydra.searchpath=" + naming.spelled([f"file://{tmp_path}"]), "experiment=mine"]
    constant = resolved(*said, "schedule=onecycle", "schedule.momentum.value=0.8")
    assert constant.schedule.momentum == {"shape": "constant", "value": 0.8}
    assert constant.schedule.lr["max_lr"] == 0.3
    cyclical = resolved(*said, "schedule.lr.step_size=900")
    assert (cyclical.schedule.lr["step_size"], cyclical.schedule.momentum["step_size"]) == (900, 900)


@pytest.mark.parametrize("experiment", ["table1-cnn3/1cycle_cm_0.95-0.85", "fig5a/piecewise_0.35"])
def test_what_was_found_has_no_settings_of_the_experiments_own_shapes(experiment, resolved, tmp_path):
    base = runs.base_of([f"experiment={experiment}", "scale=smoke"])
    curves = pd.DataFrame(columns=CURVE_COLUMNS)
    write(
        Found("momentum", onecycle(0.3, 0.03, [0.9], 4000), {}, "so", [], curves, curves, []),
        base,
        LRRange(to=str(tmp_path), name="mine"),
    )
    run = resolved("hydra.searchpath=" + naming.spelled([f"file://{tmp_path}"]), "experiment=mine", "scale=smoke")
    assert run.schedule.momentum == {"shape": "constant", "value": 0.9}
    assert set(run.schedule.lr) == {"shape", "base_lr", "max_lr", "step_size", "final_lr"}


def test_the_command_has_the_search_path_of_the_search(base, tmp_path, monkeypatch):
    """Of ``--config-dir``, whose place the folder of what was found takes, and of ``hydra.searchpath``."""
    (tmp_path / "mine/scale").mkdir(parents=True)
    demo = (CONF / "scale/demo.yaml").read_text()
    (tmp_path / "mine/scale/own.yaml").write_text(demo.replace("name: demo", "name: own"))
    hydra = HydraConf(searchpath=["pkg://theirs"])
    hydra.runtime.config_sources = [ConfigSourceInfo(str(tmp_path / "mine"), "file", "command-line")]
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": OmegaConf.structured(hydra)}))
    config = replace(base.config, scale=replace(base.config.scale, name="own"))
    curves = pd.DataFrame(columns=CURVE_COLUMNS)
    found = Found("lr_range", onecycle(0.3, 0.03, [0.95, 0.85], 4000), {}, "so", [], curves, curves, [])
    write(found, replace(base, config=config), LRRange(to=str(tmp_path / "found"), name="own"))
    said = shlex.split(found.command)
    assert said[-1] == f"hydra.searchpath=[file://{tmp_path / 'mine'},pkg://theirs]"
    assert "scale=own" in said


def test_every_method_has_its_file(resolved):
    from hydra import compose

    from repro.search.app import settings_of as typed

    for method in METHODS:
        settings = typed(method, compose("search", [f"method={method}"]).search)
        assert type(settings) is METHODS[method]
    with pytest.raises(ReproError, match=r"search.momentum=\[1.0\]: give one value below 1"):
        typed("lr_range", compose("search", ["search.momentum=[1.0]"]).search)
    wrong = {
        "growth=fast": "Invalid value 'fast', expected one of",
        "seeds=abc": "Value 'abc' of type 'str' could",
    }
    for said, line in wrong.items():
        with pytest.raises(ReproError, match=f"search.{said}: {line}"):
            typed("lr_range", compose("search", [f"search.{said}"]).search)
    with pytest.raises(ReproError, match=r"search.seeds=0 is not positive"):
        typed("lr_range", compose("search", ["search.seeds=0"]).search)


def test_only_method_chooses_the_method(monkeypatch):
    hydra = HydraConf()
    hydra.runtime.choices = {"method": "lr_range"}
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": OmegaConf.structured(hydra)}))
    assert app.method_of(OmegaConf.create({"method": "lr_range"})) == "lr_range"
    for node, message in (
        (3, "search=3: it holds the settings"),
        ({"method": "foo"}, "search.method=foo: method= ch"),
    ):
        with pytest.raises(ReproError, match=message):
            app.method_of(OmegaConf.create(node) if isinstance(node, dict) else node)


def test_a_cycle_leaves_a_tenth_of_a_run_to_anneal_in():
    said = settings_of(onecycle(0.5, 0.05, [0.9], 1000))
    assert (said["iterations"], said["schedule.lr.step_size"]) == ("1000", "450")
    assert float(said["schedule.lr.final_lr"]) == pytest.approx(0.05 / 1000)


def test_a_final_value_is_the_mean_of_the_last_three_tests_of_a_finished_run(base):
    rows = [(0.1, 0.9, loss, 1 - loss / 10) for loss in (9.0, 3.0, 2.0, 1.0)]
    finished, diverged = made(base, [], 0, rows), made(base, [], 0, rows, "diverged")
    assert (finished.final("test_loss"), finished.final("test_accuracy")) == pytest.approx((2, 0.8))
    assert (diverged.final("test_loss"), diverged.final("test_accuracy")) == (float("inf"), 0)


def test_minutes_become_iterations_by_a_speed(monkeypatch, base):
    """Two at once, of 1,000 images a second each: ten minutes less eight seconds, and less what the tests take."""
    monkeypatch.setattr(recipe.machine, "plan", lambda config, runs: Plan(2, 1, [], 2))
    monkeypatch.setattr(base.config.dataset, "test_images", 300)
    found = recipe._iterations_in(base, Recipe(tests=10), [Stage("a", 3, 100)], minutes=10, speed=1000.0)
    images = (600 - 8) * 1000 * 2 - 3 * 10 * 300 / 3
    assert found == pytest.approx(images / base.config.batch_size / base.config.scale.iterations)


@pytest.mark.parametrize(("max_lr", "expected"), [(0.1, 0.1), (0.9, 0.4)])
def test_a_regularizer_lowers_the_max_lr_and_does_not_raise_it(base, max_lr, expected):
    state = recipe.State(base, base, 10.0, max_lr=0.4, momentum=[0.9])
    chosen, nothing = {"weight decay": 1e-3, "max LR": max_lr, "min LR": max_lr / 10}, pd.DataFrame()
    found = Found("weight_decay", ["x=1"], chosen, "so", [], nothing, nothing, [])
    asked = []
    method = lambda base, settings: asked.append(settings) or found  # noqa: E731
    recipe._regularizer(state, Recipe(), method, "weight decay", "regularization.weight_decay")
    assert (state.max_lr, state.overrides) == (expected, ["regularization.weight_decay=0.001"])
    assert (asked[0].high, asked[0].rounds, asked[0].momentum) == (1.2, 1, [0.9])


def test_a_difference_within_two_standard_deviations_of_the_seeds_is_doubted(base):
    def trained(*accuracies):
        return [made(base, [], seed, [(0.1, 0.9, 1.0, a)] * 3) for seed, a in enumerate(accuracies)]

    [doubt] = recipe._doubts(trained(0.80, 0.82), trained(0.79, 0.81))
    assert doubt == "the difference of +1.00 points is within two standard deviations of the seeds (4.00)"
    assert recipe._doubts(trained(0.80, 0.82), trained(0.70, 0.72)) == []


@pytest.mark.parametrize(("second", "doubt"), [(1.05, True), (3.0, False)])
def test_a_momentum_that_is_better_by_chance_alone_is_noted(monkeypatch, base, second, doubt):
    def train(base, variations, seeds):
        losses = {"0.9": 1.0, "0.95": second}
        return [
            [made(base, v, s, [(0.1, 0.9, losses[settings_of(v)["schedule.momentum.value"]] + 0.2 * s, 0.5)] * 3)
             for s in range(seeds)]
            for v in variations
        ]  # fmt: skip

    monkeypatch.setattr(momentum, "train", train)
    settings = Momentum(max_lr=0.4, values=[0.9, 0.95], lowest=0.99, seeds=2, range_test=False)
    notes = momentum.search(base, settings).notes
    assert notes == (["the difference is within the seeds' standard deviation of 0.14"] if doubt else [])
    alone = momentum.search(base, replace(settings, values=[0.9, 0.9]))
    assert (alone.why, alone.notes) == ("constant 0.9 ends at a test loss of 1.1; no other was tried", [])
