"""``search.mode=snapshot``: values compared by restarts of one run from its plateau (Figure 12).

One range test at a middle value saves snapshots at several iterations. At the plateau of its test loss the other
values continue from its snapshot, along the same schedule: the curves are identical before that point, and differ
after it only by the value.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from repro.records import starts
from repro.search.dry import Stage
from repro.search.found import Found, curves_of
from repro.search.lr_range import round_to, suggestion_of
from repro.search.regularizer import NEAR, Kind, further, label
from repro.search.runs import Base, Run, onecycle, range_test, train, watched
from repro.search.settings import Regularizer
from repro.search.suggestion import smooth

KEPT = 10  # equal parts of the first run, with a snapshot after each but the last
STILL = 0.02  # the loss has plateaued if its logarithm falls by less than this over a tenth of the run
LOW = 10.0  # max LR / min LR of the range test, as in Figure 12


def search(base: Base, settings: Regularizer, kind: Kind, values: Sequence[float]) -> Found:
    """Find the largest value whose restart reaches a test loss within a twentieth of the lowest.

    The range test rises to ``high``, or if that is its default to the composed schedule's max LR. Nothing is found
    if the first run does not plateau, or if no restart's loss shows a max LR.
    """
    ordered = sorted(set(values))
    middle = ordered[len(ordered) // 2]
    is_default = settings.high == type(settings)().high
    max_lr = float((is_default and base.config.schedule.lr.get("max_lr")) or settings.high)
    low = round_to(max_lr / LOW)
    iterations = base.length(settings.epochs, settings.share)
    kept = sorted({max(1, round(iterations * part / KEPT)) for part in range(1, KEPT)})
    options = [
        *range_test(low, max_lr, settings.momentum, iterations, "lr_range"),
        *watched(iterations, settings.tests, settings.divergence),
    ]
    first = [f"{kind.key}={middle:.6g}", *options, f"snapshots=[{','.join(map(str, kept))}]"]
    [[source]] = train(base, [first], 1)
    if (at := plateau(source, kept, base.config.scale.iterations)) is None:
        why = (
            "search.mode=snapshot: the loss of the first run does not plateau; search.epochs makes it longer, a "
            "smaller search.high (or schedule.lr.max_lr) keeps it from diverging"
        )
        tried = pd.DataFrame([{"value": middle, "status": source.info["status"]}])
        curves = curves_of([(label(kind, middle), source)])
        return Found(kind.method, [], {}, why, [], tried, curves, [source], "lr")
    others = [value for value in ordered if value != middle]
    changes = ",".join("'" + change.replace("'", "\\'") + "'" for change in source.overrides)
    start = [f"start.curve={source.config.curve}", f"start.iteration={at}", f"start.changes=[{changes}]"]
    restarts = [[f"{kind.key}={value:.6g}", *options, *start, "test_at_start=true"] for value in others]
    results = dict(zip(others, (runs[0] for runs in train(base, restarts, 1)), strict=True))
    results[middle] = source
    _delete_other_snapshots(source, round(at * base.config.scale.iterations))
    restart = at * base.config.scale.iterations
    lowest = {value: _lowest(run, restart) for value, run in results.items()}
    best = max(value for value, loss in lowest.items() if loss <= NEAR * min(lowest.values()))
    notes = ["one seed: the same command with seed=1 says whether the differences are more than chance"]
    if best == ordered[-1]:
        notes.append(further(kind, best))
    rate = _max_lr(source, results[best], restart)
    why = (
        f"restarted at iteration {at}, where the loss of {label(kind, middle)} had plateaued, {label(kind, best)} "
    )
    why += (
        f"reaches a test loss of {lowest[best]:.3g}, the lowest or within a twentieth of it, at the largest value"
    )
    all_runs = [*results.values()]
    curves = curves_of([(label(kind, value), results[value]) for value in ordered])
    chosen, overrides = dict[str, float](), list[str]()
    if np.isnan(rate):
        why += "; but its loss shows no max LR"
    else:
        chosen = {kind.name: best, "max LR": rate, "min LR": round_to(rate / settings.ratios[0])}
        cycle = onecycle(rate, chosen["min LR"], settings.momentum, base.iterations)
        overrides = [f"{kind.key}={best:.6g}", *cycle]
    tried = pd.DataFrame(
        [{"value": v, "lowest_loss": lowest[v], "status": results[v].info["status"]} for v in ordered]
    )
    marks = {"restart": float(source.rows["lr"].iloc[int(np.abs(source.rows["iteration"] - at).argmin())])}
    return Found(kind.method, overrides, chosen, why, notes, tried, curves, all_runs, "lr", marks)


def stages(base: Base, settings: Regularizer, values: Sequence[float]) -> list[Stage]:
    """The largest number of runs that it trains, by stage."""
    return [Stage("one run, and restarts from it", len(values), base.length(settings.epochs, settings.share))]


def plateau(run: Run, kept: Sequence[int], factor: float) -> int | None:
    """The first of the ``kept`` iterations (before the scale) at which the test loss has plateaued.

    It has plateaued if, smoothed, it has fallen before, and by less than a fiftieth over the last tenth of the
    run. ``factor`` is the scale's on iterations. None if there is no plateau before the run diverges.
    """
    level = smooth(np.log(run.rows["test_loss"].to_numpy()))
    iteration = run.rows["iteration"].to_numpy()
    window = max(2, round(0.1 * run.config.iterations / max(1, run.config.test_every)))
    for index in range(window, len(level)):
        has_fallen = level[: index + 1].max() - level[index] > STILL * 5
        if has_fallen and level[index - window] - level[index] < STILL:
            after = [i for i in kept if round(i * factor) >= iteration[index]]
            if after and round(after[0] * factor) <= iteration[-1]:
                return after[0]
    return None


def _lowest(run: Run, after: float) -> float:
    """The lowest test loss after the iteration that all restarts share; infinite without a test there."""
    losses = run.rows["test_loss"][run.rows["iteration"] > after].rolling(3, min_periods=1).mean()
    return float(losses.min()) if losses.notna().any() else float("inf")


def _max_lr(source: Run, run: Run, after: float) -> float:
    """The max LR by the range test that the source and its restart make together; NaN if they show none."""
    halves = source.rows["iteration"] <= after, run.rows["iteration"] > after
    whole = replace(run, rows=pd.concat([source.rows[halves[0]], run.rows[halves[1]]], ignore_index=True))
    found = suggestion_of(whole)
    return float("nan") if found is None or found.is_first else round_to(found.max_lr)


def _delete_other_snapshots(source: Run, iteration: int) -> None:
    """Delete the snapshots from which no run started."""
    for path in starts.find(source.folder):
        if path != starts.snapshot(source.folder, iteration):
            with contextlib.suppress(OSError):
                path.unlink()
