"""What a sweep's arguments and parameters become: jobs, each in its folder."""

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from repro.config.errors import ReproError
from repro.sweeps import _compat, dry_run
from repro.sweeps.arguments import expand_sweep
from repro.sweeps.jobs import Composer
from repro.sweeps.sweeper import Sweeper
from repro.training import lifecycle


@pytest.fixture
def sweeper(composed):
    """A function: the sweep's parameters and the command's arguments -> the sweeper, set up but for a launcher."""
    composed()  # Hydra is set up

    def make(params=None, arguments=(), show="cost"):
        made = Sweeper(params, show)
        made.loader = GlobalHydra.instance().config_loader()
        made.composer = Composer(
            made.loader, made.loader.load_configuration("train", [*arguments], RunMode.MULTIRUN)
        )
        made.launcher = None
        return made

    return make


def test_parameters_are_read_as_one_types_them(sweeper, monkeypatch):
    seen = []
    monkeypatch.setattr(dry_run, "print_cost", lambda runs, *_: seen.extend(runs))
    params = {
        "experiment": "fig5a/clr*",
        "tracking.project": None,
        "deterministic": True,
        "regularization.weight_decay": 1e-5,
        "schedule.lr": {"max_lr": 2.0, "base_lr": 0.5},
        "seed": "0,3",
    }
    sweeper(params).sweep([])
    runs = [config for _, config in seen]
    assert [run.seed for run in runs] == [0, 3]
    assert {run.curve for run in runs} == {"fig5a/clr_3.0"}
    for run in runs:
        assert run.tracking.project is None
        assert run.deterministic is True
        assert run.regularization.weight_decay == 1e-5
        assert (run.schedule.lr["max_lr"], run.schedule.lr["base_lr"]) == (2.0, 0.5)


def test_what_is_typed_replaces_a_parameter_of_the_schedule(sweeper, monkeypatch):
    seen = []
    monkeypatch.setattr(dry_run, "print_cost", lambda runs, *_: seen.extend(runs))
    typed = expand_sweep(["sweep=all", "schedule.lr.max_lr=2.0"])[1:]
    sweeper({"experiment": "fig5a/clr_3.0", "schedule.lr.max_lr": "1.0,1.5"}).sweep(typed)
    assert [run.schedule.lr["max_lr"] for _, run in seen] == [2.0]


@pytest.mark.parametrize("pattern", ["fig5a/*", "fig5a/clr*,fig5a/*", "glob(fig5a/*)"])
def test_a_pattern_of_experiments_is_a_sweep(sweeper, monkeypatch, pattern):
    seen = []
    monkeypatch.setattr(dry_run, "print_cost", lambda runs, *_: seen.extend(runs))
    arguments = expand_sweep([f"experiment={pattern}"])
    sweeper(arguments=arguments).sweep(arguments)
    names = ["clr_3.0", "piecewise_0.1", "piecewise_0.1_short", "piecewise_0.35"]
    assert sorted(config.curve for _, config in seen) == [f"fig5a/{name}" for name in names]


def test_a_folder_may_be_named_after_the_number_of_its_job(sweeper, monkeypatch):
    seen = []
    monkeypatch.setattr(dry_run, "print_cost", lambda runs, *_: seen.extend(runs))
    sweeper(arguments=["hydra.sweep.subdir=${hydra.job.num}"]).sweep(["seed=3,5", "batch_size=64,128"])
    assert [(folder, run.seed, run.batch_size) for folder, run in seen] == [
        (Path("multirun_outputs/0"), 3, 64),
        (Path("multirun_outputs/1"), 3, 128),
        (Path("multirun_outputs/2"), 5, 64),
        (Path("multirun_outputs/3"), 5, 128),
    ]


def test_a_key_that_there_is_not_stops_a_sweep_before_it_begins(sweeper):
    with pytest.raises(ReproError, match=r"^\+batchsize=64: batchsize: no such key; did you mean batch_size\?$"):
        sweeper().sweep(["+batchsize=64,32"])


def test_a_run_that_another_process_finishes_meanwhile_is_no_failure(sweeper, tmp_path, capsys):
    class Beside:
        """A launcher whose runs are all being trained by another process, which finishes the first of them."""

        def start(self):
            pass

        def launch_jobs(self, jobs, initial_job_idx=0):
            lifecycle.run(jobs[0].config, jobs[0].folder)
            return [_compat.failed_return(job.overrides, ReproError("it is being trained")) for job in jobs]

    arguments = [f"output={tmp_path}", "scale=smoke", "iterations=2000", "tracking=disabled"]
    made = sweeper(arguments=arguments, show=None)
    made.launcher = Beside()
    with pytest.raises(ReproError, match=r"^1 of 2 runs failed:\n.*seed1: it is being trained$"):
        made.sweep([*arguments, "seed=0,1"])
    assert (
        "note: 1 of 2 runs is finished all the same, by another process or before its own died\n"
        in capsys.readouterr().err
    )


def test_a_plan_of_runs_that_cannot_start_says_why_alone(sweeper, monkeypatch, tmp_path):
    monkeypatch.setattr(dry_run, "print_cost", None)  # it is not called
    arguments = [f"output={tmp_path}", "scale=smoke", "experiment=fig12a/wd_1e-2"]
    with pytest.raises(
        ReproError, match=r"snapshot-000000001.pt does not exist; python -m repro.train experiment="
    ):
        sweeper(arguments=arguments).sweep(arguments)


def test_a_plan_says_once_what_is_cut_short(sweeper, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "print_cost", lambda runs, *_: None)
    sweeper().sweep(["experiment=fig8b/tbs512", "iterations=2000", "seed=0,1"])
    out = capsys.readouterr().out
    assert out.startswith("note: fig8b/tbs512 ends at iteration 2000, inside a cycle that ends at 8006; ")
    assert len(out.splitlines()) == 1
