"""What a command line may say: every key and number is checked, and nothing is trained as if it were not said."""

import copy
import dataclasses
import math
import re

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from repro import config
from repro.config import Config, Filler
from repro.config.errors import ReproError, one_line


@pytest.fixture
def refused(resolved):
    """A function: command-line overrides -> the line that refuses them."""

    def line(*overrides):
        with pytest.raises((ReproError, HydraException, OmegaConfBaseException)) as error:
            resolved(*overrides)
        return str(error.value) if isinstance(error.value, ReproError) else one_line(error.value)

    return line


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("itertions", "iterations"),
        ("batchsize", "batch_size"),
        ("max_lr", "schedule.lr.max_lr"),
        ("lr", "schedule.lr.max_lr"),
        ("model.weight_decay", "regularization.weight_decay"),
        ("model.bn_group", "model.bn_groups"),
        ("tracking.mod", "tracking.mode"),
        ("schedule.lr.maxlr", "schedule.lr.max_lr"),
        ("model={wdth: 8}", "model.width"),
        ("+itertions", "iterations"),
        ("++itertions", "iterations"),
        ("+model.weight_decay", "regularization.weight_decay"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_is_meant(refused, key, meant):
    line = refused(key if "=" in key else f"{key}=3")
    assert "no such key; did you mean " in line
    assert meant in line
    assert "+" not in line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer=adam", "optimizer: no such key; choose from curve, model, dataset, "),
        ("+optimizer=adam", "optimizer: no such key; choose from curve, model, dataset, "),
        ("+foo/bar=3", "foo/bar: no such key; choose from curve, "),
        ("+model.dropout=.5", "model.dropout: no such key; choose from name, blocks, "),
        ("+schedule.foo=3", "schedule.foo: no such key; choose from lr, momentum"),
        ("+schedule.lr.final_lr=3", "schedule.lr.final_lr: triangular takes base_lr, max_lr, step_size"),
        ("model.options.depth=3", "model.options.depth: no such key; +model.options.depth=... adds it"),
        ("+batch_size=64", "batch_size: the key exists already; remove the +"),
        ("dataset@mine=digits", "Could not override 'dataset@mine'. Did you mean to override dataset?"),
        ("+model@mine=resnet56_superconv", "In 'model/resnet56_superconv': mine: no such key; "),
        ("~regularization", "~regularization: a key of a run cannot be deleted"),
        ("~batch_size", "~batch_size: a key of a run cannot be deleted"),
        ("~model.options", "does not support deletion"),
        ("dataset.name=???", "dataset.name: it has no value"),
        ("batch_size", "batch_size: an argument is key=value, or an option such as --help"),
        ("batch size=3", "batch size=3: batch size is not a key"),
        ("batch_size=[", "batch_size=[: Hydra cannot read this value; a list is [1,2], text with special "),
        (
            "output=/a (b)",
            "output=/a (b): Hydra cannot read this value; a list is [1,2], text with special characters "
            """"output='/a (b)'\"""",
        ),
        ("output=it's $x", '"output=\\"it\'s \\$x\\""'),
    ],
)
def test_what_would_be_ignored_is_refused(refused, override, message):
    assert message in refused(override)


@pytest.mark.parametrize("override", ["+model.options.depth=3", "+hydra.mine=3", "++batch_size=64"])
def test_what_may_be_added_is_accepted(resolved, override):
    assert resolved(override).model.options == ({"depth": 3} if "depth" in override else None)


def test_an_unknown_key_of_a_file_is_named_with_the_one_that_is_meant(tmp_path, refused):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nmodel: {bn_group: 3}\n")
    line = refused(f"hydra.searchpath=[{tmp_path}]", "experiment=mine")
    assert line == "In 'experiment/mine': model.bn_group: no such key; did you mean model.bn_groups?"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["curve=foo/bar"], "curve=foo/bar: the experiment sets it; choose the experiment with"),
        (["scale=demo", "test_every=50", "scale.tests=5"], "test_every and scale.tests=5 both say when to test"),
        (
            ["experiment=fig8b/tbs512", "replicates=author", "model.init=own"],
            "model.init: replicates=author sets it",
        ),
    ],
)
def test_what_something_else_says_is_refused(refused, overrides, message):
    assert message in refused(*overrides)


def test_the_command_line_goes_before_the_scale(resolved):
    def tests(*overrides):
        return resolved("experiment=fig5a/piecewise_0.35", *overrides).test_every

    assert tests("scale=demo") == 32  # 25 tests in 800 iterations
    assert tests("scale=demo", "test_every=1000") == 10
    assert tests("scale=demo", "scale.tests=5") == 160
    assert tests("test_every=50") == 50


@pytest.fixture(scope="module")
def changed(composed):
    """A function: key and value -> the run of the defaults with that value, as a file might set it."""
    defaults = composed("model.bn_groups=1")
    with open_dict(defaults):
        del defaults["hydra"]
    OmegaConf.resolve(defaults)

    def run(key, value):
        cfg = copy.deepcopy(defaults)
        OmegaConf.update(cfg, key, value)
        if key == "start.iteration":
            cfg.start.curve = "fig12a/wd_1e-3"  # one goes with the other
        return config.resolve(cfg)

    return run


@pytest.mark.parametrize("name", ["../../esc", "..", "/esc", "", "a//b", "a\tb", "a\\b"])
@pytest.mark.parametrize("key", ["scale.name", "curve"])
def test_what_names_a_folder_stays_inside(changed, key, name):
    with pytest.raises(ReproError, match=rf"{key}=.* cannot name a folder"):
        changed(key, name)
    assert changed(key, "mine 0.5-1").curve in ("custom", "mine 0.5-1")


def numbers(schema, prefix=""):
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(field.type):
            yield from numbers(field.type, f"{prefix}{field.name}.")
        elif str(field.type).replace("<class '", "").split("'")[0].split(" ")[0] in ("int", "float"):
            yield f"{prefix}{field.name}", field


def test_every_number_has_its_interval():
    found = dict(numbers(Config))
    assert {"seed", "model.bn_eps", "dataset.train_images", "tracking.patience"} <= set(found)
    assert [key for key, field in found.items() if "interval" not in field.metadata] == []


@pytest.mark.parametrize("key", dict(numbers(Config)))
def test_a_number_outside_its_interval_is_refused(changed, key):
    field = dict(numbers(Config))[key]
    interval, is_float = field.metadata["interval"], "float" in str(field.type)
    low, high = map(float, interval[1:-1].split(","))
    outside = [low - 1, *[low] * interval.startswith("("), *[high] * interval.endswith(")"), 2 * high + 1]
    for value in [*outside, float("nan")] if is_float else [int(v) for v in outside if math.isfinite(v)]:
        with pytest.raises(ReproError, match=re.escape(f"{key}={value} is ")):
            changed(key, value)
    assert changed(key, 8 if high > 8 else 0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.lr.max_lr=nan"], "schedule.lr.max_lr=nan is not a finite number"),
        (["schedule.lr.max_lr=inf"], "schedule.lr.max_lr=inf is not a finite number"),
        (["schedule.lr.base_lr=-0.1"], "schedule.lr.base_lr=-0.1 is not in [0, inf)"),
        (["schedule=constant", "schedule.lr.value=-3"], "schedule.lr.value=-3 is not in [0, inf)"),
        (["schedule=multistep", "schedule.lr.gamma=-0.1", "iterations=60000"],
         "schedule.lr.gamma=-0.1 is not in [0, inf)"),
        (["schedule.momentum.value=1.5"], "schedule.momentum.value=1.5 is not in [0, 1]"),
        (["schedule.momentum.value=-0.1"], "schedule.momentum.value=-0.1 is not in [0, 1]"),
        (["schedule=onecycle_cm", "schedule.momentum.min_momentum=1.1"],
         "schedule.momentum.min_momentum=1.1 is not in [0, 1]"),
        (["schedule=multistep", "schedule.lr.milestones=3"],
         "schedule.lr.milestones: 3 is not a list of whole numbers"),
        (["schedule.lr.step_size=1.5"], "schedule.lr.step_size: 1.5 is not a whole number"),
        (["schedule.momentum.value=true"], "schedule.momentum.value: True is not a number"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_is_refused(refused, overrides, message):
    assert refused(*overrides) == message


def test_momentum_may_reach_both_ends(resolved):
    """Table 1 has .90-1.00, which rises with the learning rate."""
    rising = ("schedule.momentum.max_momentum=0.9", "schedule.momentum.min_momentum=1.0")
    assert resolved("experiment=fig8b/tbs512", *rising).schedule.momentum["min_momentum"] == 1.0
    assert resolved("schedule.momentum.value=0").schedule.momentum["value"] == 0


@pytest.mark.parametrize(
    ("overrides", "lr", "momentum"),
    [
        (["experiment=fig8b/tbs512", "schedule=constant"], {"value": 0.1}, {"value": 0.9}),
        (["experiment=fig8b/tbs512", "schedule=triangular"],
         {"base_lr": 0.08, "max_lr": 0.8, "step_size": 4003}, {"value": 0.9}),
        (["experiment=fig5a/piecewise_0.1", "schedule=constant", "schedule.lr.value=0.3"], {"value": 0.3}, {"value": 0.9}),
        (["experiment=fig5a/piecewise_0.1", "schedule=constant", "schedule.lr={value: 0.3}"], {"value": 0.3}, {"value": 0.9}),
        (["experiment=fig8b/tbs512", "schedule.lr.shape=triangular"],
         {"base_lr": 0.08, "max_lr": 0.8, "step_size": 4003},
         {"max_momentum": 0.95, "min_momentum": 0.85, "step_size": 4003, "tail": "hold"}),
    ],
)  # fmt: skip
def test_another_schedule_leaves_out_what_it_does_not_take(resolved, overrides, lr, momentum):
    schedule = resolved(*overrides).schedule
    assert {k: v for k, v in schedule.lr.items() if k != "shape"} == lr
    assert {k: v for k, v in schedule.momentum.items() if k != "shape"} == momentum


@pytest.mark.parametrize("said", ["schedule.lr.max_lr=3", "schedule.lr={max_lr: 3}"])
def test_what_is_said_and_another_schedule_does_not_take_is_refused(refused, said):
    line = refused("experiment=fig8b/tbs512", "schedule=constant", said)
    assert line == "schedule.lr.max_lr: constant takes value"


def test_an_experiments_own_mistake_stays_one(tmp_path, refused):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [override /schedule: constant]\nschedule: {lr: {max_lr: 3}}\n"
    (tmp_path / "experiment/mine.yaml").write_text(text)
    line = refused(f"hydra.searchpath=[{tmp_path}]", "experiment=mine")
    assert line == "schedule.lr.max_lr: constant takes value"


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (["experiment=fig8b/tbs512", "iterations=2000"],
         "ends at iteration 2000, inside a cycle that ends at 8006; schedule.lr.step_size=1000 fits it in, or "
         "iterations=8006 reaches its end"),
        (["experiment=fig8b/tbs512", "iterations=2000", "scale=quick"],
         "ends at iteration 2000 (100 at scale quick), inside a cycle that ends at 8000; schedule.lr.step_size=1000 fits "
         "it in, or iterations=8000 reaches its end"),
        (["experiment=fig5a/piecewise_0.35", "iterations=40000", "scale=demo"],
         "ends at iteration 40000 (400 at scale demo), before schedule.lr.milestones=[50000, 70000] is reached; "
         "iterations=70000 reaches its end"),
        (["experiment=fig5a/clr_3.0", "iterations=12000"],
         "ends at iteration 12000, inside a cycle that ends at 20000; schedule.lr.step_size=3000 fits it in, or "
         "iterations=20000 reaches its end"),
        (["experiment=fig5a/piecewise_0.1", "iterations=60000"],
         "ends at iteration 60000, before schedule.lr.milestones=[50000, 70000] is reached; iterations=70000 "
         "reaches its end"),
        (["experiment=fig15a/wd_1e-4", "schedule.lr.iterations=9000"],
         "ends at iteration 4882, before schedule.lr.iterations=9000 is reached; iterations=9000 reaches its end"),
        (["experiment=fig8b/tbs512", "schedule.momentum.step_size=30000"],
         "ends at iteration 9277, before schedule.momentum.step_size=30000 is reached; iterations=30000 reaches its end"),
    ],
)  # fmt: skip
def test_a_schedule_that_is_cut_short_is_worth_a_word(resolved, overrides, note):
    run = resolved(*overrides)
    assert config.notes(run) == [f"note: {run.curve} {note}"]


def test_what_a_note_advises_ends_it(resolved):
    assert config.notes(resolved("experiment=fig8b/tbs512", "iterations=2000", "schedule.lr.step_size=1000")) == []
    assert config.notes(resolved("experiment=fig5a/clr_3.0", "iterations=20000")) == []
    assert config.notes(resolved("experiment=fig15a/wd_1e-4", "iterations=2000")) == []  # the range goes with them


def test_author_replicates_still_choose_their_initialisation(resolved):
    run = resolved("experiment=fig8b/tbs512", "replicates=author", "seed=1")
    assert (run.model.init, run.batch_size) == (Filler.xavier, 516)
