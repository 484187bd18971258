"""Values of a regularizer compared by restarts of one run from its plateau."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from repro.search import snapshot
from repro.search.runs import COLUMNS, Base, Run, merged
from repro.search.settings import Regularizer, Strategy
from repro.search.weight_decay import KIND


@pytest.fixture(scope="module")
def base(resolved):
    overrides = ("model=cnn3", "dataset=digits", "iterations=400", "schedule.lr.max_lr=0.4", "tracking=disabled")
    return Base(overrides, 400, resolved(*overrides), 300, "digits-cnn3-abcdef")


def run(base, folder, losses, first=0, status="finished"):
    count = len(losses)
    iteration = first + 10.0 * np.arange(1, count + 1)
    frame = pd.DataFrame({"iteration": iteration, "lr": iteration / 1000, "momentum": 0.9, "train_loss": losses})
    frame = frame.assign(test_loss=losses, test_accuracy=0.5)
    info = {"status": status, "wall_seconds": 1.0}
    base.config.test_every = 10
    return Run(("model=cnn3", "regularization.weight_decay=0.001"), base.config, folder, info, frame[COLUMNS])


FALLS = np.concatenate([np.linspace(2.0, 0.8, 15), np.full(25, 0.8)])


def test_the_plateau_is_where_the_loss_is_still_after_it_fell(base, tmp_path):
    kept = [40, 80, 120, 160, 200, 240, 280, 320, 360]
    assert snapshot.plateau(run(base, tmp_path, FALLS), kept, 1.0) in (200, 240)
    for losses in (np.linspace(2, 0.2, 40), np.full(40, 2.3)):  # it still falls; it never fell
        assert snapshot.plateau(run(base, tmp_path, losses), kept, 1.0) is None


def test_without_a_plateau_nothing_is_suggested_and_a_recipe_goes_on(monkeypatch, base, tmp_path):
    losses = np.linspace(2, 0.2, 40)
    monkeypatch.setattr(snapshot, "train", lambda *_: [[run(base, tmp_path, losses)]])
    found = snapshot.search(base, Regularizer(mode=Strategy.snapshot), KIND, [1e-2, 1e-3, 1e-4])
    assert (found.chosen, found.overrides, len(found.runs)) == ({}, [], 1)
    assert "the loss of the first run does not plateau; search.epochs makes it longer" in found.why


def test_the_other_values_go_on_from_it(monkeypatch, resolved, base, tmp_path):
    trained = []
    reached = {0.01: 1.5, 0.001: 0.8, 0.0001: 0.79, 1e-05: 0.9}
    for iteration in (40, 200, 240, 360):
        (tmp_path / f"snapshot-{iteration:09d}.pt").write_bytes(b"")

    def train(base, variations, seeds):
        trained.extend(variations)
        results = []
        for variation in variations:
            resolved(*merged(base.overrides, variation))
            said = dict(override.partition("=")[::2] for override in variation)
            value = float(said["regularization.weight_decay"])
            at = int(said.get("start.iteration", 0))
            losses = FALLS if not at else np.full((400 - at) // 10, reached[value])
            restarted = run(base, tmp_path, losses, at)
            if at:  # the test of the snapshot, the same for all
                first = {**restarted.rows.iloc[0].to_dict(), "iteration": at, "test_loss": 0.5}
                rows = pd.concat([pd.DataFrame([first]), restarted.rows], ignore_index=True)
                restarted = replace(restarted, rows=rows)
            results.append([restarted])
        return results

    monkeypatch.setattr(snapshot, "train", train)
    settings = Regularizer(mode=Strategy.snapshot)
    found = snapshot.search(base, settings, KIND, [1e-2, 1e-3, 1e-4, 1e-5])
    assert found.chosen["weight decay"] == 0.001  # 1e-4 is a little lower, within a twentieth
    assert found.chosen["max LR"] == pytest.approx(
        0.15, abs=0.011
    )  # where the loss of both parts is at its lowest
    assert found.tried["lowest_loss"].tolist() == [0.9, 0.79, 0.8, 1.5]
    assert {"schedule.lr.base_lr=0.04", "schedule.lr.max_lr=0.4"} <= set(trained[0])
    [at] = {override for variation in trained[1:] for override in variation if override.startswith("start.iter")}
    assert at in ("start.iteration=200", "start.iteration=240")
    assert "start.changes=['model=cnn3','regularization.weight_decay=0.001']" in trained[1]
    assert [path.name for path in tmp_path.glob("*.pt")] == [f"snapshot-{int(at[16:]):09d}.pt"]
    assert len(snapshot.stages(base, settings, [1, 2, 3])) == 1
    trained.clear()
    snapshot.search(base, replace(settings, high=0.2), KIND, [1e-3, 1e-4])
    assert "schedule.lr.max_lr=0.2" in trained[0]  # as a recipe has found it


def test_restarts_that_fail_at_once_are_not_recommended(monkeypatch, base, tmp_path):
    def train(base, variations, seeds):
        at = int(dict(o.partition("=")[::2] for o in variations[0]).get("start.iteration", 0))
        losses = np.concatenate([FALLS[:24], np.full(16, 9.0)]) if not at else np.full(3, 9.0)
        return [[run(base, tmp_path, losses, at, "diverged" if at else "finished")] for _ in variations]

    monkeypatch.setattr(snapshot, "train", train)
    found = snapshot.search(base, Regularizer(mode=Strategy.snapshot), KIND, [1e-2, 1e-3])
    assert found.tried.set_index("value").loc[0.001, "lowest_loss"] == 9.0
