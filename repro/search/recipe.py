"""``method=recipe``: every search in the paper's order, then a training run with the chosen values."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from repro import schedules
from repro.config.errors import ReproError
from repro.data import registry
from repro.search import batch_size, dropout, lr_range, momentum, network, weight_decay
from repro.search.dry import Stage
from repro.search.found import Found, curves_of, finals_of, in_words
from repro.search.runs import Base, Run, base_of, merged, often, onecycle, train
from repro.search.settings import BatchSize, Common, LRRange, Momentum, Recipe, Regularizer, Strategy
from repro.sweeps import cost, machine

STAGES = ["batch_size", "lr_range", "momentum", "weight_decay", "dropout"]
WIDE = 3.0  # the range tests of the regularizers end at this multiple of the chosen max LR
SHARE = 0.6  # of the minutes after which no further search starts, to leave time for the final training
STAGE_SECONDS = 8.0  # overhead of a stage
TRIAL = 30  # iterations of the timed run


@dataclass
class State:
    """The results so far."""

    base: Base
    composed: Base  # of the command line; ``base`` has the length and the batch size of the final training
    ratio: float  # max LR / min LR
    max_lr: float = float("nan")
    momentum: list[float] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)  # the chosen values other than the schedule
    parts: list[Found] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    timed: list[Run] = field(default_factory=list)  # the run that measured this machine's speed, if one did
    chosen: dict[str, Any] = field(default_factory=dict)


def search(base: Base, settings: Recipe) -> Found:
    """Run the searches of ``stages`` in order, each with the values chosen before it, then the final training.

    A search that no longer fits in ``minutes`` is skipped, with a note. Raises ReproError for an unknown stage.
    """
    start = time.monotonic()
    names = ordered(settings.stages)
    timed = [_timed(base)] if settings.minutes and settings.budget_epochs is None else []
    long = with_length(base, length(base, settings, timed[0].speed if timed else None))
    state = State(long, base, settings.ratios[0], momentum=list(settings.momentum), timed=timed)
    for name in names:
        if name in ("momentum", "weight_decay", "dropout") and np.isnan(state.max_lr):
            state.skipped.append(f"{name}: no LR was found to try it at")
        elif settings.minutes and time.monotonic() - start > SHARE * 60 * settings.minutes and name != "lr_range":
            state.skipped.append(f"{name}: search.minutes={settings.minutes:g} left no time for it")
        else:
            print(f"{name} ...")
            count = len(state.parts)
            SEARCHES[name](state, settings)
            for part in state.parts[count:]:
                said = ", ".join(f"{k} {in_words(v)}" for k, v in part.chosen.items())
                print(f"{name}: {said or 'nothing is suggested'}; {part.why}")
    return _train_final(state, settings)


def stages(base: Base, settings: Recipe) -> list[Stage]:
    """The largest number of runs that it trains, by stage; without ``minutes``, which only a run can time."""
    if settings.budget_epochs is None:
        settings = replace(settings, minutes=None)
    return _stages(with_length(base, length(base, settings)), settings)


def length(base: Base, settings: Recipe, speed: float | None = None) -> int:
    """The iterations (before the scale) of the final training: the composed run's, or what the budget leaves.

    A budget is an upper bound for all runs together; ``speed``, in images per second, makes iterations of minutes.
    Raises ReproError for a budget that is too small, and for two.
    """
    if settings.budget_epochs is None and settings.minutes is None:
        return base.length(settings.epochs, 1.0)
    if settings.budget_epochs is not None and settings.minutes is not None:
        raise ReproError("search.budget_epochs and search.minutes: both limit the length; remove one")
    parts = _stages(base, settings)
    share = sum(stage.runs * stage.iterations for stage in parts) / base.iterations  # all runs over the final one
    if settings.budget_epochs is not None:
        iterations = round(base.length(settings.budget_epochs, 1.0) / share)
        key = f"search.budget_epochs={settings.budget_epochs:g}"
    else:
        minutes = settings.minutes or 0.0
        iterations = round(_iterations_in(base, settings, parts, minutes, speed or 1.0) / share)
        key = f"search.minutes={minutes:g}"
    if (left := round(iterations * base.config.scale.iterations)) < settings.tests:
        raise ReproError(
            f"{key}: {left} iterations would be left for the final training; increase it, or use fewer stages"
        )
    return iterations


def with_length(base: Base, iterations: int) -> Base:
    """The base with another number of iterations (before the scale) and the same name."""
    return replace(base_of(merged(base.overrides, [f"iterations={iterations}"])), name=base.name)


def ordered(names: Sequence[str]) -> list[str]:
    """The stages in the paper's order. Raises ReproError for an unknown one, and if there is no range test."""
    if unknown := [name for name in names if name not in STAGES]:
        raise ReproError(f"search.stages: no stage {unknown[0]}; choose from {', '.join(STAGES)}")
    if "lr_range" not in names:
        raise ReproError("search.stages: lr_range is missing, whose LR everything else is trained at; add it")
    return [name for name in STAGES if name in names]


def defaults(base: Base, composed: Base) -> tuple[str, list[str]]:
    """The run that the final training is compared with: its description, and its overrides of the base.

    It is the run that the command line composed, with its schedule stretched to the base's length. Numbers of
    iterations that the command line gives count from its ``iterations``, all others from those of the experiment.
    If it chose neither an experiment nor a schedule, it is a usual one: LR 0.1, divided by ten at one half and at
    three quarters, momentum 0.9.
    """
    keys = {override.lstrip("+~").partition("=")[0] for override in base.overrides}
    total = base.iterations
    if "experiment" not in keys and not any(key.split(".")[0] == "schedule" for key in keys):
        milestones = f"[{max(1, total // 2)},{max(1, 3 * total // 4)}]"
        options = ["schedule=multistep", "schedule.lr.lr=0.1", f"schedule.lr.milestones={milestones}"]
        return "usual: LR 0.1, 0.01, 0.001, momentum 0.9", options
    whole = base_of(tuple(o for o in base.overrides if not o.startswith("iterations=")))
    changed = []
    for part in ("lr", "momentum"):
        settings = getattr(whole.config.schedule, part)
        counts = schedules.scaled(settings, lambda _: -1)
        for name, value in settings.items():
            key, lr = f"schedule.{part}.{name}", whole.config.schedule.lr
            follows = f"schedule.lr.{name}" in keys and value == lr.get(name)  # a momentum's, by interpolation
            planned = (composed if key in keys or follows else whole).iterations
            if name != "iterations" and counts[name] != value and planned != base.iterations:
                new = _stretched(settings, base.iterations / planned / base.config.scale.iterations)[name]
                changed.append(f"{key}={_as_value(new)}")
    return "the composed run", changed


def _stretched(settings: dict[str, Any], factor: float) -> dict[str, Any]:
    """The ``settings`` of a schedule with all numbers of iterations multiplied by ``factor``."""
    return schedules.scaled(settings, lambda count: max(1, round(count * factor)))


def _batch_size(state: State, settings: Recipe) -> None:
    if not machine.plan(state.base.config, 1).gpus:
        state.skipped.append(
            f"batch_size: kept at {state.base.config.batch_size}; on a CPU a larger batch does not train faster"
        )
        return
    size, why, trials = batch_size.largest_batch(state.base, _as(BatchSize, settings))
    chosen = {"batch size": size}
    tried = pd.DataFrame([{"setting": f"batch size {size}", "why": why}])
    state.parts.append(Found("batch_size", [], chosen, why, [], tried, curves_of([]), trials))
    state.base = replace(batch_size.with_batch(state.base, size), name=state.base.name)
    state.chosen |= chosen


def _lr_range(state: State, settings: Recipe) -> None:
    found = lr_range.search(state.base, _as(LRRange, settings))
    state.parts.append(found)
    if found.chosen:
        state.max_lr = float(found.chosen["max LR"])
        state.ratio = state.max_lr / float(found.chosen["min LR"])
        state.chosen |= found.chosen


def _momentum(state: State, settings: Recipe) -> None:
    options = _as(Momentum, settings, max_lr=state.max_lr, min_lr=_min_lr(state), range_test=False)
    found = momentum.search(state.base, options)
    state.parts.append(found)
    if found.chosen:
        state.momentum = found.chosen["momentum"]
        state.chosen["momentum"] = state.momentum


def _weight_decay(state: State, settings: Recipe) -> None:
    _regularizer(state, settings, weight_decay.search, weight_decay.KIND.name, weight_decay.KIND.key)


def _dropout(state: State, settings: Recipe) -> None:
    if not network.takes(state.base.config, "dropout"):
        state.skipped.append("dropout: the network has none")
        return
    kind = dropout.KIND
    _regularizer(state, replace(settings, values=None), dropout.search, kind.name, kind.key)


def _regularizer(
    state: State, settings: Recipe, method: Callable[[Base, Regularizer], Found], name: str, key: str
) -> None:
    wide = 1.0 if settings.mode is Strategy.snapshot else WIDE
    high = lr_range.round_to(wide * state.max_lr)
    options = _as(Regularizer, settings, low=0.0, high=high, rounds=1, momentum=state.momentum)
    found = method(_with_overrides(state), options)
    state.parts.append(found)
    if found.chosen:
        state.overrides.append(f"{key}={found.chosen[name]:.6g}")
        state.chosen[name] = found.chosen[name]
        if (max_lr := float(found.chosen["max LR"])) < state.max_lr:  # a higher one is not confirmed by short runs
            state.max_lr = max_lr
            state.chosen |= {"max LR": max_lr, "min LR": _min_lr(state)}


SEARCHES: dict[str, Callable[[State, Recipe], None]] = {
    "batch_size": _batch_size,
    "lr_range": _lr_range,
    "momentum": _momentum,
    "weight_decay": _weight_decay,
    "dropout": _dropout,
}


def _train_final(state: State, settings: Recipe) -> Found:
    """Train with the chosen values, and with the defaults for comparison."""
    base = state.base
    name, usual = defaults(base, state.composed)
    search_runs = [*state.timed, *(run for part in state.parts for run in part.runs)]
    if np.isnan(state.max_lr):
        why = "no range test showed a learning rate to train at"
        none_tried, no_curves = pd.DataFrame(), curves_of([])
        return Found("recipe", [], {}, why, state.skipped, none_tried, no_curves, search_runs, parts=state.parts)
    chosen = onecycle(state.max_lr, _min_lr(state), state.momentum, base.iterations)
    found = [*state.overrides, *chosen]
    test = often(base.iterations, settings.tests)
    found_runs, usual_runs = train(base, [[*found, test], [*usual, test]], settings.final_seeds)
    pairs = [("found", run) for run in found_runs] + [(name, run) for run in usual_runs]
    why = f"{_result('found', found_runs)}; {_result(name, usual_runs)}"
    result = Found(
        "recipe", found, state.chosen, why, [*state.skipped, *_doubts(found_runs, usual_runs)], finals_of(pairs),
        curves_of(pairs), [*search_runs, *found_runs, *usual_runs], parts=state.parts,
    )  # fmt: skip
    result.base = base
    return result


def _stages(base: Base, settings: Recipe) -> list[Stage]:
    """The largest number of runs that it trains, by stage, regardless of what the searches choose."""
    found: list[Stage] = []
    for name in ordered(settings.stages):
        if name == "lr_range":
            found += lr_range.stages(base, _as(LRRange, settings))
        elif name == "momentum":
            found += momentum.stages(base, _as(Momentum, settings, range_test=False))
        elif name == "weight_decay" or (name == "dropout" and network.takes(base.config, "dropout")):
            module: Any = weight_decay if name == "weight_decay" else dropout
            values = settings.values if name == "weight_decay" else None
            found += module.stages(base, _as(Regularizer, settings, rounds=1, values=values))
    found.append(Stage("1cycle with what was found", settings.final_seeds, base.iterations))
    return [*found, Stage("the defaults", settings.final_seeds, base.iterations)]


def _timed(base: Base) -> Run:
    """A short run, for its speed."""
    iterations = max(1, round(TRIAL / base.config.scale.iterations))
    options = [f"iterations={iterations}", f"test_every={iterations}", "threads=1"]
    [[run]] = train(base, [options], 1, quiet=True)
    return run


def _iterations_in(base: Base, settings: Recipe, parts: list[Stage], minutes: float, speed: float) -> float:
    """The iterations (before the scale) of all runs together that fit in ``minutes`` at ``speed``."""
    planned = machine.plan(base.config, sum(stage.runs for stage in parts))
    test_images = base.config.dataset.test_images or registry.get(base.config.dataset).test
    test_cost = sum(stage.runs for stage in parts) * settings.tests * test_images / cost.TEST_SPEEDUP
    seconds = 60 * minutes - STAGE_SECONDS * len(parts)
    images = seconds * speed * planned.workers - test_cost
    return max(0.0, images / base.config.batch_size / base.config.scale.iterations)


def _as(kind: type[Any], settings: Common, **changes: Any) -> Any:
    """The settings of a method: those that it shares with the recipe, then ``changes``, else the defaults."""
    shared = {f.name: getattr(settings, f.name) for f in fields(kind) if hasattr(settings, f.name)}
    if kind is Momentum:
        shared.pop("values", None)  # in the recipe these are a regularizer's
    return kind(**{**shared, "name": None, "epochs": None, **changes})


def _with_overrides(state: State) -> Base:
    overrides = merged(state.base.overrides, state.overrides)
    return replace(base_of(overrides), name=state.base.name) if state.overrides else state.base


def _min_lr(state: State) -> float:
    return lr_range.round_to(state.max_lr / state.ratio)


def _as_value(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else f"{value}"


def _result(name: str, runs: list[Run]) -> str:
    values = [100 * run.final("test_accuracy") for run in runs]
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    diverged = sum(run.info["status"] == "diverged" for run in runs)
    return f"{name} ends at {np.mean(values):.2f}{spread} %" + (f" ({diverged} diverged)" if diverged else "")


def _doubts(found_runs: list[Run], usual_runs: list[Run]) -> list[str]:
    """Notes on the limits of the comparison."""
    if len(found_runs) < 2:
        return ["one seed of the last training: search.final_seeds=4 says how far it depends on it"]
    found, usual = ([100 * run.final("test_accuracy") for run in runs] for runs in (found_runs, usual_runs))
    spread = float(np.hypot(np.std(found, ddof=1), np.std(usual, ddof=1)))
    difference = float(np.mean(found) - np.mean(usual))
    if abs(difference) <= 2 * spread:
        within = f"two standard deviations of the seeds ({2 * spread:.2f})"
        return [f"the difference of {difference:+.2f} points is within {within}"]
    return []
