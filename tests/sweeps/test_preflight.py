"""What is checked before a sweep, and what becomes of the runs that cannot train."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from PIL import Image
from test_figures import write_run

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.data import images
from repro.records import read_info
from repro.sweeps import cost, launcher, preflight, states, sweeper, workers
from repro.sweeps.jobs import Composer, Job
from repro.sweeps.machine import Plan
from repro.training import checkpoints
from repro.training.interrupts import Interrupted

SMOKE = ("experiment=fig5a/clr_3.0", "scale=smoke", "tracking=disabled")


@pytest.fixture
def jobs(resolved, tmp_path):
    """A function: so many jobs, in folders of their own."""

    def make(count, *overrides):
        runs = [resolved(*SMOKE, f"seed={k}", f"output={tmp_path}", *overrides) for k in range(count)]
        return [
            Job([f"seed={run.seed}"], run, tmp_path / f"seed{run.seed}", [], OmegaConf.create()) for run in runs
        ]

    return make


def test_each_image_set_and_each_device_is_tried_once(jobs, monkeypatch):
    loaded, tried = [], []

    def load(dataset):
        loaded.append(dataset.name)
        raise ReproError(f"no {dataset.name}")

    def run(command, **options):
        tried.append(command[-1])
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nRuntimeError: no such device\n")

    monkeypatch.setattr(images, "load", load)
    monkeypatch.setattr(subprocess, "run", run)
    configs = [job.config for job in jobs(6, "device=cuda:7")]
    for config, name in zip(configs, ["digits", "a", "a", "b", "a", "digits"], strict=True):
        config.dataset.name, config.dataset.digest = name, "known" if name == "digits" else None
    configs[-1].device = "auto"
    no_device = "device=cuda:7: RuntimeError: no such device"
    assert preflight.problems(configs) == [no_device, "no a", "no a", "no b", "no a", None]
    assert (loaded, tried) == (["a", "b"], ["cuda:7"])


def test_one_run_that_wants_too_many_images_does_not_refuse_the_others(jobs):
    configs = [job.config for job in jobs(3)]
    for config, count in zip(configs, (10_000, 100, None), strict=True):
        config.dataset.train_images = count
    [too_many, *others] = preflight.data_problems(configs)
    assert too_many is not None
    assert too_many.startswith("dataset.train_images=10000: digits has only 300")
    assert others == [None, None]


def test_each_run_of_a_sweep_has_the_digest_of_its_own_images(tmp_path):
    rng = np.random.default_rng(0)
    for path in [tmp_path / "pets" / label / f"{i}.png" for label in ("a", "b") for i in range(5)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    composer, cache = Composer(None, None), str(tmp_path / "cache")
    expected, found = [], []
    for more in ({}, {"test_fraction": 0.4}, {"resolution": 4}, {"channels": 1}):
        settings = {"resolution": 8, "channels": 3, "cache": cache, "root": str(tmp_path / "pets"), **more}
        expected.append(images.load(Dataset(name="folder", **settings))[1])
        dataset = Dataset(name="folder", **settings)
        composer.identify(dataset)
        found.append(dataset.digest)
    assert found == expected
    assert len(set(found)) == 4


def test_a_device_that_is_not_there_is_one_line(jobs):
    (problem,) = preflight.problems([jobs(1, "device=cuda:99")[0].config])
    assert problem.startswith("device=cuda:99: ")
    assert len(problem.splitlines()) == 1
    assert preflight.problems([jobs(1, "device=cpu")[0].config]) == [None]


def test_the_disk_has_room_for_every_run_and_for_the_checkpoints_of_those_that_train(jobs, tmp_path, monkeypatch):
    configs = [job.config for job in jobs(5)]
    weights = 4 * cost.parameters(configs[0])
    rows = configs[0].iterations // configs[0].test_every + 2
    kept = preflight.RUN_BYTES + rows * preflight.ROW_BYTES + weights
    needed = 5 * kept + 2 * (checkpoints.KEPT + 1) * 2 * weights

    def free(size):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=size))

    free(needed)
    assert preflight.lack_of_room(tmp_path, configs, 2) is None
    free(needed - 1)
    assert "and 5 runs take about 1.6 MB; make room, or choose another folder" in preflight.lack_of_room(
        tmp_path, configs, 2
    )
    assert preflight.lack_of_room(tmp_path, configs, 1) is None
    configs[0].model.name = "vgg"  # its run fails with the reason
    assert preflight.lack_of_room(tmp_path, configs[:1], 1) is None


def test_a_sweep_without_its_data_is_one_line_and_every_run_has_the_reason(run_app, tmp_path):
    sweep = ("-m", *SMOKE, "dataset.name=kmnist", "seed=0,1")
    done = run_app("train", *sweep)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: none of the 2 runs could train: dataset.name=kmnist: choose from digits, cifar10"
    )
    for folder in sorted(path.parent for path in tmp_path.rglob("run.json")):
        described = states.describe_run(folder)
        assert described["state"] == "failed"
        assert described["reason"].startswith("dataset.name=kmnist: choose from ")
        assert (folder / "train.log").read_text() == f"failed: {described['reason']}\n"


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Our launcher without processes: it notes what it would train."""
    trained = []

    def launch(jobs, planned, initial_job_idx):
        trained.append((jobs, planned))
        return [JobReturn(job.overrides, status=JobStatus.COMPLETED) for job in jobs]

    monkeypatch.setattr(workers, "launch", launch)
    monkeypatch.setattr(cost, "plan_within_memory", lambda configs: Plan(2, 1, [], 2))
    made = launcher.Launcher()
    made.composed = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    return made, trained


def test_runs_that_cannot_train_are_refused_and_the_others_train(launched, jobs, monkeypatch, capsys):
    ours, trained = launched
    several = jobs(4)
    monkeypatch.setattr(preflight, "problems", lambda configs: [None, "no images", None, "no images"])
    returns = ours.launch_jobs(several)
    assert [job.overrides for job in trained[0][0]] == [["seed=0"], ["seed=2"]]
    assert [r.status is JobStatus.COMPLETED for r in returns] == [True, False, True, False]
    assert [read_info(job.folder) is None for job in several] == [True, False, True, False]
    assert read_info(several[1].folder)["reason"] == "no images"
    assert capsys.readouterr().err.splitlines()[0] == "2 of 4 runs cannot train: no images"


def test_without_room_nothing_trains(launched, jobs, monkeypatch, capsys):
    ours, trained = launched
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    returns = ours.launch_jobs(jobs(2))
    assert (trained, [r.status for r in returns]) == ([], [JobStatus.FAILED] * 2)
    assert capsys.readouterr().err == ""


@pytest.fixture
def sweep(jobs, monkeypatch):
    """A function: jobs, and what launching them does -> the sweep of them is launched."""

    def make(several, launch, show=None):
        ours = sweeper.Sweeper(show=show)
        ours.launcher = SimpleNamespace(start=lambda: None, launch_jobs=launch)
        ours.composer = SimpleNamespace(job=lambda job, number: job)
        monkeypatch.setattr(ours, "_expand", lambda arguments: several)
        return ours.sweep([])

    return make


def completed(jobs):
    return [JobReturn(job.overrides, status=JobStatus.COMPLETED) for job in jobs]


@pytest.mark.parametrize("text", ["", "{", '{"status": "fin', "\0\0"])
def test_a_broken_record_is_one_run_not_the_sweep(sweep, jobs, text, capsys):
    several = jobs(3)
    several[1].folder.mkdir()
    (several[1].folder / "run.json").write_text(text)
    launched = []
    with pytest.raises(ReproError, match=r"(?s)1 of 3 runs failed:\n  .*seed1: .*run\.json: broken"):
        sweep(several, lambda these: launched.extend(these) or completed(these))
    assert launched == [several[0], several[2]]
    with pytest.raises(ReproError, match=r"1 of 3 runs failed:\n  .*seed1: .*run\.json: broken"):
        sweep(several, None, show="cost")
    assert "2 runs to do" in capsys.readouterr().out
    assert (several[1].folder / "run.json").read_text() == text


def test_a_sweep_that_ends_early_names_the_runs_that_have_failed(sweep, jobs, capsys):
    several = jobs(4)
    write_run(several[0].folder, [(0, 0.1)], status="failed", reason="of an earlier sweep")
    write_run(several[3].folder, [(0, 0.1)], status="interrupted")

    def launch(these):
        write_run(several[1].folder, [(0, 0.1)], status="failed", reason="no room")
        write_run(several[2].folder, [(0, 0.1)], status="interrupted")
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        sweep(several, launch)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["error: 1 of 4 runs failed:", f"  {several[1].folder}: no room"]


def test_failures_of_one_reason_are_one_line():
    folders = {f"seed{k}": "no images" for k in range(3)}
    assert sweeper.describe_failures(folders, 3) == "none of the 3 runs could train: no images"
    assert sweeper.describe_failures(folders, 4).splitlines()[0] == "3 of 4 runs failed:"
    assert sweeper.describe_failures({"seed0": "no images"}, 1) == "1 of 1 run failed:\n  seed0: no images"
    assert len(sweeper.describe_failures({**folders, "seed2": "no room"}, 3).splitlines()) == 4


def test_what_ends_in_a_sweep_is_shown_with_its_reason(jobs, capfd):
    from repro.sweeps.progress import Progress

    (job,) = jobs(1)
    with Progress([(job.folder, job.config)]):
        write_run(job.folder, [(0, 0.1)], status="failed", reason="no room [here]", wall_seconds=2)
    assert capfd.readouterr().err.splitlines()[0].endswith("seed0  failed  accuracy 10.0%  2.0 s  no room [here]")
    assert json.loads((job.folder / "run.json").read_text())["reason"] == "no room [here]"
