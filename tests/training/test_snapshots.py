"""A run starts from another's snapshot: the same bits, verified, and one line where it cannot."""

import re
import shutil

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from test_resume import are_equal, numbers, train_until, weights

from repro.config import fingerprint
from repro.config.errors import ReproError
from repro.records import Record, naming, read_info, starts
from repro.sweeps import dry_run, states, waves
from repro.sweeps.jobs import Composer
from repro.sweeps.sweeper import Sweeper
from repro.training import lifecycle

SOURCE = "fig12a/wd_1e-3"
TINY = [
    "scale.iterations=0.003",
    "tracking=disabled",
]  # 12 iterations, four tests; the snapshot is after the third
SAID = ["scale.iterations=0.003"]  # what of that names a run


@pytest.fixture
def make(resolved, tmp_path):
    """A function: experiment and overrides -> the run, settled, and its folder."""

    def made(experiment, *overrides):
        arguments = [f"experiment={experiment}", "scale=smoke", *TINY, f"output={tmp_path}"]
        run = resolved(*arguments, *overrides)
        changes = sorted([*SAID, *map(naming.canonical, overrides)])
        starts.settle(run, changes)
        return run, tmp_path / "smoke" / run.curve / naming.folder_name(changes) / f"seed{run.seed}"

    return made


@pytest.fixture
def source(make):
    """The folder of a finished source."""
    run, folder = make(SOURCE)
    lifecycle.run(run, folder, SAID)
    return folder


def test_a_run_goes_on_from_a_snapshot_as_its_source_did(make, source, tmp_path, monkeypatch):
    assert [path.name for path in starts.find(source)] == ["snapshot-000000003.pt"]
    changes = ["start.changes=['scale.iterations=0.003']", f"start.curve={SOURCE}", "start.iteration=1000"]
    same, folder = make(SOURCE, *changes, "test_at_start=true")
    assert same.start.folder == str(source)
    lifecycle.run(same, folder)
    began, *later = numbers(folder)
    assert (began["iteration"], began["train_loss"]) == (3, None)
    assert began["test_loss"] == numbers(source)[0]["test_loss"]
    assert later == numbers(source)[1:]
    assert all((weights(folder)[key] == value).all() for key, value in weights(source).items())
    other, folder = make("fig12a/wd_1e-2")
    assert other.start.folder == str(source)
    lifecycle.run(other, folder)
    assert numbers(folder)[0]["test_loss"] == began["test_loss"]
    assert numbers(folder)[-1]["test_loss"] != later[-1]["test_loss"]
    killed, again = make("fig12a/wd_1e-2", "checkpoint_iterations=2")[0], tmp_path / "killed"
    train_until(killed, again, 8, monkeypatch)
    starts.find(source)[0].unlink()  # what has begun does not need it any more
    lifecycle.run(killed, again)
    assert are_equal(folder, again)


def test_a_source_that_was_killed_leaves_the_same_snapshot(make, source, tmp_path, monkeypatch):
    run, folder = make(SOURCE, "checkpoint_iterations=2")[0], tmp_path / "killed"
    train_until(run, folder, 2, monkeypatch)  # right before the snapshot is written
    assert starts.find(folder) == []
    lifecycle.run(run, folder)
    [mine], [theirs] = starts.find(folder), starts.find(source)
    assert mine.read_bytes() == theirs.read_bytes()


def refusal(run, folder):
    with pytest.raises(ReproError) as caught:
        lifecycle.run(run, folder)
    assert (read_info(folder)["status"], read_info(folder)["reason"]) == ("failed", str(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_snapshot_that_is_missing_broken_or_of_another_run_is_one_line(make, tmp_path):
    run, folder = make("fig12a/wd_3e-3")
    source, home = make(SOURCE)
    path = starts.snapshot(home, 3)
    trains = (
        f"python -m repro.train experiment={SOURCE} scale=smoke scale.iterations=0.003 seed=0 'snapshots=[1000]'"
    )
    says = f"start: {path} does not exist; {trains} output={tmp_path}"
    assert refusal(run, folder) == f"{says} writes it"
    assert states.describe_run(tmp_path / "none", run)["reason"] == f"{says} writes it"
    source.snapshots = []
    lifecycle.run(source, home, SAID)
    assert refusal(run, folder) == f"{says} force=true writes it"
    changed, elsewhere = make(SOURCE, "schedule.lr.max_lr=0.02")
    lifecycle.run(changed, elsewhere)
    path.write_bytes(starts.snapshot(elsewhere, 3).read_bytes())
    assert refusal(run, folder).startswith(f"start: {path} is not of {SOURCE} as configured now; {trains}")
    path.write_bytes(path.read_bytes()[:-1])
    assert "is truncated or corrupt" in refusal(run, folder)
    (home / "run.json").write_bytes((elsewhere / "run.json").read_bytes())
    assert refusal(run, folder).startswith(f"start: {home} is not of {SOURCE} as configured now; {trains}")


def test_a_source_that_can_write_its_snapshot_no_more_says_so(make, tmp_path, monkeypatch):
    run, folder = make("fig12a/wd_3e-3")
    source, home = make(SOURCE)
    source.snapshots, source.checkpoint_iterations = [], 2
    train_until(source, home, 8, monkeypatch)
    past = r"start: \S+snapshot-000000003.pt does not exist, and its run has passed it \(checkpoint at iteration \d+\); "
    assert re.match(past, refusal(run, folder))
    shutil.rmtree(home)
    Record(home, source, {}).finish("diverged", last_iteration=2)
    assert refusal(run, folder) == f"start: {home} diverged at iteration 2, before its snapshot at 3"


def test_a_whole_number_of_the_source_may_be_1_0_where_the_restart_has_1(make):
    typed = "schedule.lr.max_lr=1.0"
    source, home = make(SOURCE, typed)
    lifecycle.run(source, home, ["schedule.lr.max_lr=1", *SAID])
    run, folder = make("fig12a/wd_3e-3", typed)
    lifecycle.run(run, folder)
    assert read_info(folder)["status"] == "finished"


def test_force_moves_the_snapshots_of_a_finished_run_aside(make, source):
    run, folder = make(SOURCE)
    run.force, run.snapshots = True, []
    lifecycle.run(run, folder, SAID)
    assert starts.find(folder) == []
    assert len(starts.find(folder / "earlier-1")) == 1


def test_what_a_source_changes(make):
    wide, _ = make("fig12a/wd_1e-2", "dataset.train_images=100", "regularization.weight_decay=0.02")
    assert wide.start.folder.endswith(f"{SOURCE}/dataset.train_images=100,scale.iterations=0.003/seed0")
    plain, _ = make("fig12a/wd_1e-2")
    said, _ = make("fig12a/wd_1e-2", "start.changes=['dataset.train_images=1e2','scale.iterations=0.003']")
    assert wide.start.fingerprint == said.start.fingerprint != plain.start.fingerprint
    seventh, _ = make("fig12a/wd_1e-2", "seed=7")
    assert seventh.start.fingerprint != plain.start.fingerprint


def test_what_a_run_is_includes_its_source_but_not_the_snapshots_that_it_keeps(resolved, make):
    kept, none = resolved(f"experiment={SOURCE}"), resolved(f"experiment={SOURCE}", "snapshots=[]")
    assert fingerprint(kept) == fingerprint(none)
    settled, _ = make("fig12a/wd_1e-2")
    before = fingerprint(settled)
    settled.start.fingerprint = "of another source"
    assert fingerprint(settled) != before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["start.iteration=5"], "start.curve: a run that starts from a snapshot names its curve and iteration"),
        (["start.curve=fig4a/wd_1e-4"], "start.iteration: a run that starts from a snapshot names"),
        (
            ["start.curve=fig4a/wd_1e-4", "start.iteration=4000"],
            "start.iteration=4000 is not before the end at 4000",
        ),
        (["snapshots=[0]"], "snapshots=0 is not an iteration from 1 to 4000"),
        (["snapshots=[4001]"], "snapshots=4001 is not an iteration from 1 to 4000"),
        (["start.curve=fig99/x", "start.iteration=5"], "start.curve=fig99/x: .*fig99/x"),
        (
            ["start.curve=fig5a/clr_3.0", "start.iteration=5", "start.changes=['seed=7']"],
            "start.changes: seed=7 does not apply: .* remove seed",
        ),
        (
            ["start.curve=fig5a/clr_3.0", "start.iteration=5", "start.changes=['experiment=fig4a/wd_1e-4']"],
            "start.changes: experiment=fig4a/wd_1e-4 does not apply",
        ),
        (
            ["start.curve=fig5a/clr_3.0", "start.iteration=5", "start.changes=['scale=demo']"],
            "start.changes: scale=demo does not apply",
        ),
        (
            ["start.curve=fig5a/clr_3.0", "start.iteration=5", "start.changes=['model=cnn3,lenet']"],
            "start.curve=fig5a/clr_3.0: model=cnn3,lenet: several values need -m",
        ),
        ([f"start.curve={SOURCE}", "start.iteration=5"], "a run cannot start from itself; start.changes="),
    ],
)
def test_what_cannot_be_started_from_is_named(resolved, overrides, message):
    with pytest.raises(ReproError, match=message):
        starts.settle(resolved(f"experiment={SOURCE}", *overrides), overrides)


class InThisProcess:
    """A launcher like Hydra's others: it gets overrides, and knows nothing of the sweep but them."""

    def __init__(self, loader, composed):
        self.composer, self.launched = Composer(loader, composed), []

    def launch(self, job_overrides, initial_job_idx):
        self.launched.append([next(o for o in overrides if o.startswith("exp")) for overrides in job_overrides])
        return [self.run(list(overrides)) for overrides in job_overrides]

    def run(self, overrides):
        job = self.composer.job(overrides)
        if any(said in overrides for said in ("experiment=fig12a/wd_1e-2", "experiment=fig12a/wd_3e-3")):
            assert any(override.startswith("start.folder=") for override in overrides)
        done = JobReturn(overrides, status=JobStatus.COMPLETED)
        try:
            lifecycle.run(job.config, job.folder, job.changes)
        except ReproError as error:
            done.status, done.return_value = JobStatus.FAILED, error
        return done


@pytest.fixture
def sweep(composed, tmp_path):
    """A function: arguments -> a sweeper, with what it launches in ``launcher.launched``."""
    composed()

    def made(*arguments, show=None):
        arguments = [*arguments, "scale=smoke", "seed=0", *TINY, f"output={tmp_path}"]
        sweeper = Sweeper(None, show)
        sweeper.loader = GlobalHydra.instance().config_loader()
        everything = sweeper.loader.load_configuration("train", arguments, RunMode.MULTIRUN)
        sweeper.composer = Composer(sweeper.loader, everything)
        sweeper.launcher = InThisProcess(sweeper.loader, everything)
        sweeper.arguments = arguments
        return sweeper

    return made


def test_a_sweep_trains_sources_first(sweep, capsys, monkeypatch):
    everything = "experiment=fig12a/wd_1e-2,fig12a/wd_3e-3,fig12a/wd_1e-3"
    monkeypatch.setattr(dry_run, "print_cost", lambda runs, *_: None)
    sweeper = sweep(everything, show="cost")
    sweeper.sweep(sweeper.arguments)
    assert f"fig12a/wd_1e-2 starts from iteration 1000 of {SOURCE}" in capsys.readouterr().out
    sweeper.show = None
    returns = sweeper.sweep(sweeper.arguments)
    waves_of = [[f"experiment={SOURCE}"], ["experiment=fig12a/wd_1e-2", "experiment=fig12a/wd_3e-3"]]
    assert sweeper.launcher.launched == waves_of
    assert [done.overrides[0] for done in returns] == [*waves_of[1], *waves_of[0]]
    assert "3 of 3 runs are finished already" not in capsys.readouterr().out
    assert sweeper.sweep(sweeper.arguments) == []
    assert "3 of 3 runs are finished already" in capsys.readouterr().out


def test_a_run_whose_source_failed_or_is_nowhere_is_not_launched(sweep, monkeypatch):
    alone = sweep("experiment=fig12a/wd_1e-2")
    for alone.show in (None, "cost"):
        with pytest.raises(
            ReproError, match=f"start: .* does not exist; python -m repro.train experiment={SOURCE} "
        ):
            alone.sweep(alone.arguments)
        assert alone.launcher.launched == []
    both = sweep("experiment=fig12a/wd_1e-2,fig12a/wd_1e-3")
    monkeypatch.setattr(lifecycle, "run", lambda *_: (_ for _ in ()).throw(ReproError("no luck")))
    with pytest.raises(
        ReproError, match=r"(?s)2 of 2 runs failed.*no luck|2 of 2 runs failed.*start: .* does not exist"
    ):
        both.sweep(both.arguments)
    assert both.launcher.launched == [[f"experiment={SOURCE}"]]


def test_a_chain_comes_in_as_many_waves_where_each_keeps_what_the_next_needs(sweep):
    sweeper = sweep("experiment=fig12a/wd_1e-3")
    chained = ["start.curve=fig12a/wd_3e-3", "start.iteration=3000"]
    first, second, third = (
        sweeper.composer.job([f"experiment={name}", *more, *sweeper.arguments[1:]])
        for name, *more in ([SOURCE], ["fig12a/wd_3e-3"], ["fig12a/wd_1e-2", *chained])
    )
    jobs = [third, second, first]
    with pytest.raises(
        ReproError, match=r"wd_1e-2 starts from iteration 3000 of fig12a/wd_3e-3, which keeps no snap"
    ):
        waves.link(jobs)
    second.config.snapshots = [9]
    waves.link(jobs)
    assert waves.in_waves(jobs) == [[first], [second], [third]]
