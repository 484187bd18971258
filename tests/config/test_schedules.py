"""The schedules agree with the author's logs (arXiv 1803.09820), and refuse what cannot be."""

import csv
import os
from pathlib import Path

import pytest

from repro import schedules

CAFFE = {"rel": 5e-5, "abs": 0}  # he computed and printed in float32


@pytest.mark.parametrize(
    ("i", "lr"),
    [
        (0, 0.08),
        (200, 0.115973),
        (2400, 0.511676),
        (4800, 0.640719),
        (7800, 0.0411692),
        (8000, 0.00119905),
        (8200, 8e-05),
        (9276, 8e-05),
    ],
)
def test_onecycle_of_figure_6a(i, lr):
    assert schedules.onecycle(i, base_lr=0.08, max_lr=0.8, step_size=4003, final_lr=8e-5) == pytest.approx(
        lr, **CAFFE
    )


@pytest.mark.parametrize(
    ("i", "lr"),
    [(1200, 0.486304), (3417, 1.2), (3600, 1.13573), (6000, 0.292889), (6800, 0.0119403), (6900, 1e-4)],
)
def test_onecycle_of_figure_15b(i, lr):
    assert schedules.onecycle(i, base_lr=0.1, max_lr=1.2, step_size=3417, final_lr=1e-4) == pytest.approx(
        lr, **CAFFE
    )


@pytest.mark.parametrize(
    ("i", "momentum"), [(100, 0.947073), (3600, 0.855356), (6000, 0.925593), (7000, 0.947571)]
)
def test_cyclical_momentum_with_caffe_tail(i, momentum):
    settings = {"max_momentum": 0.95, "min_momentum": 0.85, "step_size": 3417}
    assert schedules.cyclical_momentum(i, **settings, tail="caffe") == pytest.approx(momentum, **CAFFE)
    held = schedules.cyclical_momentum(i, **settings)
    assert held == pytest.approx(0.95 if i >= 2 * 3417 else momentum, **CAFFE)


def test_momentum_mirrors_the_learning_rate():
    for i in range(0, 200, 7):
        lr = schedules.triangular(i, base_lr=0.85, max_lr=0.95, step_size=100)
        momentum = schedules.cyclical_momentum(i, max_momentum=0.95, min_momentum=0.85, step_size=100)
        assert lr + momentum == pytest.approx(1.8)


def test_momentum_that_rises_with_the_learning_rate():
    rising = {"max_momentum": 0.85, "min_momentum": 0.95, "step_size": 100}
    assert [schedules.cyclical_momentum(i, **rising) for i in (0, 100, 200, 300)] == [0.85, 0.95, 0.85, 0.85]


def test_triangular_repeats():
    values = [
        schedules.triangular(i, base_lr=0.1, max_lr=3.0, step_size=5000) for i in (0, 5000, 9900, 10000, 15000)
    ]
    assert values == pytest.approx([0.1, 3.0, 0.158, 0.1, 3.0])


def test_multistep_changes_at_its_milestones():
    steps = {"lr": 0.35, "milestones": [50000, 70000], "gamma": 0.1}
    assert schedules.multistep(9, lr=1.0, milestones=[9, 9], gamma=0.1) == pytest.approx(0.01)
    values = [schedules.multistep(i, **steps) for i in (0, 49999, 50000, 69999, 70000, 80000)]
    assert values == pytest.approx([0.35, 0.35, 0.035, 0.035, 0.0035, 0.0035])


def test_inv_is_caffes():
    """lr (1 + gamma i)^-power of Caffe's MNIST example; a scale of a tenth reaches the same values in a tenth."""
    settings = {"lr": 0.01, "gamma": 1e-4, "power": 0.75}
    values = [schedules.inv(i, **settings) for i in (0, 100, 10_000)]
    assert values == pytest.approx([0.01, 0.00992565, 0.00594604], rel=1e-6)
    short = schedules.scaled({"shape": "inv", **settings}, lambda count: count // 10)
    assert short == {"shape": "inv", **settings, "gamma": pytest.approx(1e-3)}
    assert schedules.inv(1000, lr=0.01, gamma=short["gamma"], power=0.75) == pytest.approx(values[2])


def test_lr_range_and_constant():
    ends = [schedules.lr_range(i, base_lr=0.1, max_lr=1.0, iterations=4882) for i in (0, 2441, 4882)]
    assert ends == pytest.approx([0.1, 0.55, 1.0])
    assert schedules.lr_range(9999, base_lr=0.1, max_lr=1.0, iterations=4882) == 1.0  # it stays at its end
    assert schedules.constant(5, value=1) == 1.0
    assert isinstance(schedules.constant(5, value=1), float)


def test_an_exponential_range_multiplies_by_one_factor():
    settings = {"base_lr": 1e-4, "max_lr": 1.0, "iterations": 400}
    values = [schedules.lr_range_exponential(i, **settings) for i in (0, 100, 200, 400, 500)]
    assert values == pytest.approx([1e-4, 1e-3, 1e-2, 1.0, 1.0])
    with pytest.raises(ValueError, match="base_lr 0 is not above 0"):
        schedules.lr_range_exponential(0, base_lr=0, max_lr=1.0, iterations=9)


@pytest.mark.parametrize(
    ("shape", "settings", "value"),
    [
        (schedules.triangular, {"base_lr": 0.1, "max_lr": 1.0, "step_size": 0}, "0"),
        (schedules.triangular, {"base_lr": 2.5, "max_lr": 1.0, "step_size": 9}, "2.5"),
        (schedules.onecycle, {"base_lr": 2.5, "max_lr": 1.0, "step_size": 9, "final_lr": 0.0}, "2.5"),
        (schedules.onecycle, {"base_lr": 0.1, "max_lr": 1.0, "step_size": -3, "final_lr": 0.0}, "-3"),
        (schedules.onecycle, {"base_lr": 0.1, "max_lr": 1.0, "step_size": 3, "final_lr": 1.5}, "1.5"),
        (schedules.lr_range, {"base_lr": 2.5, "max_lr": 1.0, "iterations": 9}, "2.5"),
        (schedules.lr_range, {"base_lr": 0.1, "max_lr": 1.0, "iterations": 0}, "0"),
        (schedules.multistep, {"lr": 0.1, "milestones": [30, 20], "gamma": 0.1}, "30, 20"),
        (schedules.multistep, {"lr": 0.1, "milestones": [0, 20], "gamma": 0.1}, "0, 20"),
        (schedules.inv, {"lr": 0.1, "gamma": -0.1, "power": 0.75}, "-0.1"),
        (schedules.cyclical_momentum, {"max_momentum": 0.9, "min_momentum": 0.8, "step_size": 0}, "0"),
        (
            schedules.cyclical_momentum,
            {"max_momentum": 0.9, "min_momentum": 0.8, "step_size": 5, "tail": "x"},
            "x",
        ),
    ],
)
def test_impossible_settings_are_named(shape, settings, value):
    with pytest.raises(ValueError, match=value):
        shape(1, **settings)


@pytest.mark.parametrize("shape", schedules.shapes().values(), ids=schedules.shapes())
def test_negative_iterations_are_refused(shape):
    possible = {"base_lr": 0.1, "max_lr": 1.0, "step_size": 5, "final_lr": 0.0, "iterations": 9, "lr": 0.1, "gamma": 0.1,
                "milestones": [3], "value": 0.9, "max_momentum": 0.9, "min_momentum": 0.8, "power": 1.0}  # fmt: skip
    needed = {k: v for k, v in possible.items() if k in shape.__annotations__}
    assert isinstance(shape(0, **needed), float)
    with pytest.raises(ValueError, match="-1"):
        shape(-1, **needed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": "cosine", "value": 1}, "no schedule 'cosine'; choose from lr_range"),
        ({"shape": "build", "value": 1}, "no schedule 'build'"),
        ({"shape": "constant", "valu": 1}, "schedule.lr.valu: constant takes value"),
        ({"shape": "constant"}, "schedule.lr.value: constant needs a value"),
        ({"shape": "constant", "value": "high"}, "schedule.lr.value: 'high' is not a number"),
        ({"shape": "triangular", "base_lr": 0.1, "max_lr": 1.0, "step_size": 2.5}, "2.5 is not a whole number"),
        (
            {"shape": "triangular", "base_lr": 3, "max_lr": 1.0, "step_size": 2},
            "schedule.lr: base_lr 3 is above",
        ),
    ],
)
def test_a_wrong_schedule_is_one_clear_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        schedules.build(settings, {"shape": "constant", "value": 0.9})
    assert "\n" not in str(error.value)


OWN = """
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro.schedules import Iterations, PerIteration

TABLE = [0.1] * 30


def optional(step, *, value: float, ramp: Iterations | None = None, ends: Sequence[Iterations] | None = None,
             rate: PerIteration | None = None):
    return np.float32(value)


def nothing(i):
    pass


def text(i):
    return "0.1"


def keywords(*, i):
    return 0.1


def table(i):
    return TABLE[i]


def refuses(i, *, peak: float):
    if peak > 1:
        raise ValueError(f"peak {peak} is above 1")
    return peak


def late(i):
    return None if i == 7 else 0.1


def free(i, **settings):
    return settings["value"]


class Constant:
    def __call__(self, i, *, value: float):
        return value


constant = Constant()
"""
HELD = {"shape": "constant", "value": 0.9}


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_schedules.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": "TABLE"}, "it is a list, not a function of the iteration"),
        ({"shape": "keywords"}, r"its first parameter is not the iteration, as in def name\(i, \*, value\)"),
        ({"shape": "nothing"}, "it returns None at iteration 0, not a number"),
        ({"shape": "text"}, "it returns '0.1' at iteration 0, not a number"),
        ({"shape": "late"}, "it returns None at iteration 7, not a number"),
        (
            {"shape": "table"},
            r"IndexError: list index out of range \(.*own_schedules.py, line \d+\), at iteration 30",
        ),
        ({"shape": "refuses", "peak": 2.0}, "peak 2.0 is above 1, at iteration 0"),
        ({"shape": "optional", "value": 0.1, "ramp": "long"}, "ramp: 'long' is not a "),
        (
            {"shape": "optional", "value": 0.1, "width": 1},
            "width: own_schedules:optional takes value, ramp, ends, rate",
        ),
        ({"shape": "free"}, "KeyError: 'value'"),
    ],
)
def test_a_wrong_schedule_of_ones_own_is_one_clear_line(own, settings, message):
    settings = {**settings, "shape": f"own_schedules:{settings['shape']}"}
    with pytest.raises(ValueError, match=rf"^schedule\.lr[^\n]*{message}[^\n]*$"):
        schedules.check_range(settings, HELD, 40)


def test_an_optional_setting_counts_iterations_too(own):
    settings = {"shape": "own_schedules:optional", "value": 0.5, "ramp": 100, "ends": [100, 200], "rate": 0.01}
    scaled = schedules.scaled(settings, lambda count: count // 10)
    assert scaled == {**settings, "ramp": 10, "ends": [10, 20], "rate": pytest.approx(0.1)}
    empty = {**settings, "ramp": None, "ends": None, "rate": None}
    assert schedules.scaled(empty, lambda count: count // 10) == empty
    for given in (settings, empty):
        schedules.check_range(given, HELD, 50)
        assert schedules.build(given, HELD)(3) == (0.5, 0.9)
    assert schedules.cut_short(settings, HELD, 150) == {"schedule.lr.ends": 200}
    assert schedules.cut_short(empty, HELD, 150) == {}
    assert schedules.declared("schedule.lr", settings) == {"shape", "value", "ramp", "ends", "rate"}


@pytest.mark.parametrize("shape", ["free", "constant"])
def test_any_callable_is_a_schedule(own, shape):
    settings = {"shape": f"own_schedules:{shape}", "value": 0.25}
    assert schedules.build(settings, HELD)(0) == (0.25, 0.9)
    assert schedules.declared("schedule.lr", settings) == {"shape", "value"}


def test_a_scale_multiplies_what_counts_iterations_and_nothing_else():
    settings = {
        "multistep": ({"lr": 0.1, "milestones": [100, 200], "gamma": 0.1}, {"milestones": [10, 20]}),
        "lr_range": ({"base_lr": 10.0, "max_lr": 20.0, "iterations": 100}, {"iterations": 10}),
        "cyclical_momentum": ({"max_momentum": 0.9, "min_momentum": 0.8, "step_size": 100}, {"step_size": 10}),
        "constant": ({"value": 100.0}, {}),
    }
    for shape, (given, changed) in settings.items():
        found = schedules.scaled({"shape": shape, **given}, lambda count: count // 10)
        assert found == {"shape": shape, **given, **changed}


AUTHOR = {  # whose curve: the learning rate and momentum that his log prints
    "fig15b_tbs1024": (
        {"shape": "onecycle", "base_lr": 0.1, "max_lr": 1.2, "step_size": 3417, "final_lr": 1e-4},
        {
            "shape": "cyclical_momentum",
            "max_momentum": 0.95,
            "min_momentum": 0.85,
            "step_size": 3417,
            "tail": "caffe",
        },
    ),
    "fig6a_tbs512": (
        {"shape": "onecycle", "base_lr": 0.08, "max_lr": 0.8, "step_size": 4003, "final_lr": 8e-5},
        {"shape": "constant", "value": 0.95},
    ),
    "fig5a_piecewise_0.35": (
        {"shape": "multistep", "lr": 0.35, "milestones": [50000, 70000], "gamma": 0.1},
        {"shape": "constant", "value": 0.9},
    ),
    **{
        name: (
            {"shape": "triangular", "base_lr": 0.1, "max_lr": 3.0, "step_size": 5000},
            {"shape": "constant", "value": 0.9},
        )
        for name in ("fig5a_clr_3.0", "fig5b_wd_1e-3", "fig5b_wd_1e-4", "fig5b_wd_1e-5", "fig5b_wd_1e-6")
    },
}


@pytest.mark.skipif(
    "REPRO_REFERENCE" not in os.environ, reason="REPRO_REFERENCE names no folder of author's curves"
)
@pytest.mark.parametrize("name", AUTHOR)
def test_every_value_of_an_author_log(name):
    schedule = schedules.build(*AUTHOR[name])
    figure, _, curve = name.partition("_")
    [path] = Path(os.environ["REPRO_REFERENCE"]).glob(f"{figure}*_{curve}.csv")
    with open(path) as file:
        for row in csv.DictReader(file):
            lr, momentum = schedule(int(row["iteration"]))
            if row["lr"]:
                assert lr == pytest.approx(float(row["lr"]), **CAFFE)
            if row["momentum"]:
                assert momentum == pytest.approx(float(row["momentum"]), **CAFFE)
