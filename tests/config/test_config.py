"""Configurations: every experiment, every scale, and what makes two runs the same."""

import csv
from pathlib import Path

import pytest

from repro import config
from repro.config import CIRCUMSTANCES, fingerprint, flat, from_dict, identity, notes, to_dict
from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.data import registry

EXPERIMENTS = sorted(
    p.relative_to(CONF / "experiment").with_suffix("").as_posix() for p in CONF.glob("experiment/*/*")
)
SCALES = sorted(p.stem for p in CONF.glob("scale/*.yaml"))


def test_a_scale_multiplies_everything_that_counts_iterations(resolved):
    paper = resolved("experiment=fig5a/piecewise_0.35")
    demo = resolved("experiment=fig5a/piecewise_0.35", "scale=demo")
    assert (paper.iterations, demo.iterations) == (80_000, 800)
    assert demo.schedule.lr["milestones"] == [500, 700]
    assert demo.schedule.lr["lr"] == paper.schedule.lr["lr"]
    assert (demo.batch_size, demo.test_every) == (125, 32)
    assert resolved("experiment=fig5a/clr_3.0", "scale=quick").schedule.lr["step_size"] == 250


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_scale_tests_twenty_to_forty_times(resolved, experiment):
    for scale in ("demo", "quick"):
        run = resolved(f"experiment={experiment}", f"scale={scale}")
        assert min(17, run.iterations) <= run.iterations / run.test_every <= 40


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize(("scale", "share", "says"), [
    ("quick", 1, "1/20 of the iterations and of CIFAR's training images"),
    ("demo", 5 / 24, "a fifth of the epochs (of MNIST's a quarter)"),
])  # fmt: skip
def test_a_scale_keeps_the_share_of_the_papers_epochs_that_it_says(resolved, experiment, scale, share, says):
    def epochs(run):
        return run.iterations * run.batch_size / (run.dataset.train_images or registry.get(run.dataset).train)

    paper, ours = resolved(f"experiment={experiment}"), resolved(f"experiment={experiment}", f"scale={scale}")
    share *= registry.get(paper.dataset).train / 50_000  # MNIST has 60,000 images
    assert epochs(ours) / epochs(paper) == pytest.approx(share, rel=0.01 + 0.5 / ours.iterations)  # rounded
    assert says in ours.scale.note


@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_overrides_the_experiment_and_the_command_line_both(resolved, scale):
    run = resolved("experiment=fig5a/piecewise_0.35", f"scale={scale}")
    assert run.scale.name == scale
    assert run.scale.note
    assert run.model.bn_fraction == (0.999 if scale == "paper" else 0.95 if scale == "quick" else 0.9)
    assert run.dataset.name == ("cifar10" if scale in ("paper", "quick") else "digits")
    mine = resolved(
        "experiment=fig5a/piecewise_0.35", f"scale={scale}", "model.bn_fraction=0.5", "dataset=cifar100"
    )
    assert (mine.model.bn_fraction, mine.dataset.name) == (0.5, "cifar100")


def test_the_shared_curve_is_one_run(resolved):
    a, b = resolved("experiment=fig5a/clr_3.0"), resolved("experiment=fig5b/wd_1e-4")
    assert to_dict(a) == to_dict(b)
    assert a.curve == "fig5a/clr_3.0"


def test_folders_are_named_after_what_a_run_is(composed):
    def folder(*overrides):
        return composed(*overrides).hydra.run.dir.replace("//", "/")

    assert folder("experiment=fig5a/clr_3.0", "seed=2") == "multirun_outputs/paper/fig5a/clr_3.0/seed2"
    assert folder("experiment=fig5b/wd_1e-4", "scale=demo") == "multirun_outputs/demo/fig5a/clr_3.0/seed0"
    other = folder(
        "experiment=fig5a/clr_3.0", "regularization.weight_decay=1e-3", "device=cpu", "dataset.root=/x/y"
    )
    assert other == "multirun_outputs/paper/fig5a/clr_3.0/regularization.weight_decay=0.001/seed0"


def test_circumstances_are_keys():
    values = to_dict(config.Config())
    for key in CIRCUMSTANCES:
        group, _, name = key.rpartition(".")
        assert name in (values[group] if group else values), key


def test_the_fingerprint_is_the_science(resolved):
    base = resolved("experiment=fig5a/clr_3.0")
    same = resolved("experiment=fig5a/clr_3.0", "tracking=disabled", "device=cpu", "dataset.root=/x", "threads=1")
    assert fingerprint(base) == fingerprint(same)
    for override in ("seed=1", "update=torch", "model.bn_groups=1", "dataset.mirror=false", "schedule.lr.max_lr=2",
                     "regularization.weight_decay=0", "scale=quick", "model.nesterov=true", "test_every=50"):  # fmt: skip
        assert fingerprint(resolved("experiment=fig5a/clr_3.0", override)) != fingerprint(base), override


TABLE = list(csv.DictReader((Path(__file__).parent / "fingerprints.csv").open()))


@pytest.mark.parametrize("experiment", sorted({row["experiment"] for row in TABLE}))
def test_a_run_keeps_its_fingerprint(resolved, experiment):
    for row in (row for row in TABLE if row["experiment"] == experiment):
        keys = ("experiment", "scale", "replicates", "seed")
        run = resolved(*(f"{key}={row[key]}" for key in keys))
        assert fingerprint(run) == row["fingerprint"], row
        assert notes(run) == []  # no experiment is cut short at any scale


def test_a_root_may_name_its_data_set(resolved):
    for experiment, name in (("fig5a/clr_3.0", "cifar10"), ("fig15a/wd_1e-4", "cifar100")):
        run = resolved(f"experiment={experiment}", "dataset.root='/x/${dataset.name}'")
        assert run.dataset.root == f"/x/{name}"


def test_a_resolved_run_survives_its_record(resolved):
    run = resolved("experiment=fig5a/piecewise_0.35", "scale=demo")
    assert from_dict(to_dict(run)) == run
    assert "scale.note" not in flat(run)


@pytest.mark.parametrize("key", identity.LATER)
def test_a_record_from_before_a_key_is_of_the_same_run(resolved, key):
    run = resolved("experiment=fig5a/clr_3.0")
    values = to_dict(run)
    group, _, name = key.rpartition(".")
    del (values[group] if group else values)[name]
    assert flat(from_dict(values)) == flat(run)


@pytest.mark.parametrize("key", identity.LATER)
def test_a_later_key_is_part_of_what_a_run_is(resolved, key):
    run = resolved("experiment=fig5a/clr_3.0")
    before, (group, _, name) = fingerprint(run), key.rpartition(".")
    setattr(getattr(run, group) if group else run, name, "another")
    assert fingerprint(run) != before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size=-5", "batch_size=-5 is not positive"),
        ("batch_size=1001", "model.bn_groups=8 does not divide the batch of 1001 images"),
        ("iterations=0", "iterations=0 is not positive"),
        ("model.width=1000000", r"model.width=1000000 is not in \[1, 65536\]"),
        ("seed=-1", "seed=-1 is not in"),
        ("threads=0", r"threads=0 is not in \[1, 4096\]"),
        ("threads=100000", r"threads=100000 is not in \[1, 4096\]"),  # the process would crash
        ("device=gpu", "device=gpu is no device; choose from auto, cpu, cuda, cuda:1, mps, xpu"),
        ("device=cuda:", "device=cuda: is no device"),
        ("regularization.weight_decay=-1", "regularization.weight_decay=-1.0 is negative"),
        ("model.bn_fraction=1", r"model.bn_fraction=1.0 is not in \[0, 1\)"),
        ("scale.iterations=0", r"scale.iterations=0.0 is not in \(0, 1\]"),
        ("dataset.resolution=9", "dataset.resolution=9 is not a multiple of 4"),
        (
            "replicates=author",
            "replicates=author: defined only for networks trained on 4 GPUs, and resnet56_superconv had 8",
        ),
        ("schedule.lr.step_size=0", "schedule.lr: step_size 0 is below 1"),
        ("schedule.lr.base_lr=4", "schedule.lr: base_lr 4 is above max_lr 3.0"),
        ("schedule.lr.shape=cosine", "schedule.lr.shape: no schedule 'cosine'"),
    ],
)
def test_impossible_values_are_named(resolved, override, message):
    with pytest.raises(ReproError, match=message):
        resolved("experiment=fig5a/clr_3.0", override)
