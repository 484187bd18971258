"""One run, one name, whichever command composed it."""

import json
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from repro.config import fingerprint
from repro.records import naming, outdated, read_info, runs
from repro.records.record import Record

CLR = "experiment=fig5a/clr_3.0"


@pytest.fixture
def named(composed):
    """A function: overrides -> what the run changes in its experiment."""

    def make(*overrides):
        cfg = composed(*overrides)
        return naming.changes(cfg, cfg.hydra)

    return make


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["regularization.weight_decay=1e-3"], ["regularization.weight_decay=0.001"]),
        (["regularization.weight_decay=.001"], ["regularization.weight_decay=0.001"]),
        (["schedule.lr.max_lr=2.0"], ["schedule.lr.max_lr=2"]),
        (["schedule.lr={max_lr:2}", "schedule.lr={base_lr:0.2}"], ["schedule.lr.base_lr=0.2", "schedule.lr.max_lr=2"]),
        (["test_every=50", "batch_size=64"], ["batch_size=64", "test_every=50"]),
        (["replicates=author"], ["replicates=author"]),
        (["model.nesterov=True"], ["model.nesterov=true"]),
        (["dataset=cifar100"], ["dataset=cifar100"]),
        (["schedule=onecycle", "schedule.lr.max_lr=3.0"], ["schedule=onecycle"]),
        (["schedule=onecycle", "schedule.lr.max_lr=2"], ["schedule.lr.max_lr=2", "schedule=onecycle"]),
        (["+model.options.depth=3"], ["model.options.depth=3"]),
        (["+model.options.word='true'"], ["model.options.word='true'"]),
        (["+model.options.word='a b\\\\'"], ["model.options.word='a b\\\\'"]),
        # What the experiment has anyway, and what is not part of what a run is, names nothing.
        (["regularization.weight_decay=1e-4", "schedule.lr.max_lr=3", "model.bn_groups=8"], []),
        (["schedule=triangular", "model=resnet56_superconv", "dataset=cifar10"], []),
        (["tracking=disabled", "threads=1", "device=cpu", "seed=3", "scale.note=x", "dataset.root=/x/y"], []),
    ],
)  # fmt: skip
def test_a_run_is_named_after_what_it_changes(named, typed, expected):
    assert named(CLR, *typed) == expected


def test_a_name_composes_the_run_again(named, resolved):
    typed = [
        "regularization.weight_decay=1e-3",
        "schedule.lr={max_lr:2}",
        "model.init=xavier",
        "dataset.train_images=99",
    ]
    changes = named(CLR, "scale=quick", *typed)
    assert naming.split(naming.folder_name(changes)) == changes
    assert resolved(CLR, "scale=quick", *changes) == resolved(CLR, "scale=quick", *typed)


def test_a_derived_value_is_not_named(named):
    assert named("experiment=fig15a/wd_1e-4", "iterations=2000") == ["iterations=2000"]


def test_a_long_name_ends_in_a_hash(named):
    changes = [f"model.options.a_long_name_of_an_option_{k}={k}" for k in range(10)]
    name = naming.folder_name(named(CLR, *(f"+{change}" for change in changes)))
    assert len(name.encode()) == naming.LONGEST
    assert name != naming.folder_name([*changes[:-1], "model.options.a_long_name_of_an_option_9=8"])
    assert naming.shortened("ä" * 100, 128).encode()[:115].decode() == "ä" * 57 + "-"


def test_a_folder_of_another_spelling_is_found(composed, resolved):
    for typed in ("regularization.weight_decay=1e-3", "regularization.weight_decay=1e-4"):
        config = resolved(CLR, "scale=smoke", typed)
        Record(home() / typed / "seed0", config, {})
    typed = composed(CLR, "scale=smoke", "regularization.weight_decay=0.001")
    assert typed.hydra.run.dir.endswith("/clr_3.0/regularization.weight_decay=1e-3/seed0")
    own = composed(CLR, "scale=smoke")
    assert own.hydra.run.dir.endswith("/clr_3.0/regularization.weight_decay=1e-4/seed0")
    Record(home() / "seed0", resolved(CLR, "scale=smoke"), {})
    assert composed(CLR, "scale=smoke").hydra.run.dir.endswith("/clr_3.0//seed0")


def test_a_run_that_was_put_aside_is_not_the_run(composed, resolved):
    Record(home() / "old/seed0", resolved(CLR, "scale=smoke"), {})
    assert composed(CLR, "scale=smoke").hydra.run.dir.endswith("/clr_3.0//seed0")


@pytest.mark.parametrize("text", ["null", "True", "a\\", "it's", "\\'", "a b\\\\", "nan", "plain", "jörg/größe"])
def test_a_text_is_spelled_so_that_it_is_read_as_itself(text):
    override = OverridesParser.create().parse_override(f"key={naming.spelled(text)}")
    assert override.value() == text


def test_the_command_of_a_record_trains_its_run(resolved):
    options = ["+model.options.depth=3", "regularization.weight_decay=1e-3", "dataset.root='/x y'"]
    run = resolved(CLR, "scale=smoke", *options)
    changes = ["model.options.depth=3", "regularization.weight_decay=0.001"]
    python, module, app, *overrides = shlex.split(Record(home() / "seed0", run, {}, changes).info["command"])
    assert (python, module, app) == ("python", "-m", "repro.train")
    again = resolved(*overrides)
    assert (fingerprint(again), again.dataset.root) == (fingerprint(run), "/x y")


def test_two_folders_of_one_run_are_one_curve(resolved):
    for folder in ("", "regularization.weight_decay=1e-4/", "regularization.weight_decay=1e-3/",
                   "regularization.weight_decay=0.001/"):  # fmt: skip
        record = Record(home() / f"{folder}seed0", resolved(CLR, "scale=smoke", *filter(None, [folder[:-1]])), {})
        record.append({"iteration": 0, "test_accuracy": 0.5})
        record.finish("finished")
    loaded = runs.local({"clr_3.0": home()}, variants=True)
    assert sorted(loaded.info) == [("clr_3.0", 0), ("clr_3.0, regularization.weight_decay=0.001", 0)]
    assert not runs.outdated(loaded, "smoke")


def test_a_number_that_was_typed_as_2_0_is_that_which_its_name_says(resolved):
    """The folder of schedule.lr.max_lr=2.0 is named ...=2, which composes a whole number."""
    folder = home() / "schedule.lr.max_lr=2/seed0"
    Record(folder, resolved(CLR, "scale=smoke", "schedule.lr.max_lr=2.0"), {}).finish("finished")
    now, info = resolved(CLR, "scale=smoke", "schedule.lr.max_lr=2"), read_info(folder)
    assert outdated(info, now) is None
    assert not runs.outdated(runs.local({"clr_3.0": home()}, variants=True), "smoke")
    info["config"]["schedule"]["lr"] |= {"base_lr": 0.1, "max_lr": 2}  # as W&B gives it back
    assert outdated(info, now) is None
    info["fingerprint"] = "0" * 12
    assert outdated(info, now) == "another fingerprint"


@pytest.mark.parametrize("typed", ["max_lr=2.0", "max_lr=2", "base_lr=0.0 max_lr=1e1", "base_lr=0 max_lr=2.0"])
def test_wandb_may_give_back_whole_numbers_of_either_kind(resolved, typed):
    overrides = [f"schedule.lr.{override}" for override in typed.split()]
    Record(home() / "seed0", resolved(CLR, "scale=smoke", *overrides), {}).finish("finished")
    info = read_info(home() / "seed0")
    lr = info["config"]["schedule"]["lr"]
    for kind in (int, float):
        lr |= {k: kind(v) for k, v in lr.items() if not isinstance(v, str) and v == int(v)}
        assert outdated(info, resolved(CLR, "scale=smoke", *(o.replace(".0", "") for o in overrides))) is None


def test_a_shortened_name_is_held_against_its_experiment(named, composed, resolved):
    overrides = [f"+model.options.a_long_name_of_an_option_{k}={k}" for k in range(10)]
    config, changes = resolved(CLR, "scale=smoke", *overrides), named(CLR, *overrides)
    folder = home() / naming.folder_name(changes) / "seed0"
    Record(folder, config, {}, changes=changes).finish("finished")
    loaded = runs.local({"clr_3.0": home()}, variants=True)
    assert [curve for curve, _ in loaded.info] == [", ".join(["clr_3.0", *changes])]
    assert not runs.outdated(loaded, "smoke")
    info = read_info(folder)
    info["overrides"][0] = info["overrides"][0].replace("=0", "=1")
    (folder / "run.json").write_text(json.dumps(info))
    assert runs.outdated(runs.local({"clr_3.0": home()}, variants=True), "smoke")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def home():

    return Path("multirun_outputs/smoke/fig5a/clr_3.0")
