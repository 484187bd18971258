"""Runs that other launchers train: what they are sent with, and what their records say of them."""

import fcntl
import threading

import pytest
from omegaconf import read_write
from test_figures import write_run

from repro import records
from repro.config.errors import ReproError
from repro.records import lock, queued
from repro.sweeps import _compat, elsewhere, preflight, states
from repro.sweeps.jobs import Job
from repro.sweeps.progress import modified_ns


@pytest.fixture
def job(composed, resolved, tmp_path):
    said = ["experiment=fig8b/tbs512", "scale=smoke", "seed=0"]
    folder = tmp_path / "runs/smoke/fig8b/tbs512/seed0"
    config = resolved(*said)
    config.dataset.root = "it's here"
    job = Job(said, config, folder, [], composed(*said))
    with read_write(job.composed.hydra):  # as Composer settles it
        job.composed.hydra.sweep.dir = "multirun_outputs"
        job.composed.hydra.sweep.subdir = "smoke/fig8b/tbs512/seed0"
    return job


def test_a_run_elsewhere_has_absolute_paths_and_one_thread(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = elsewhere.overrides(job)
    assert f"output='{tmp_path}/multirun_outputs'" in said
    assert f"dataset.root='{tmp_path}/it\\'s here'" in said
    assert f"hydra.sweep.dir='{tmp_path}/multirun_outputs'" in said
    assert "threads=1" in said
    job.config.threads = 3
    assert not [override for override in elsewhere.overrides(job) if override.startswith("threads")]


def test_what_became_of_a_run_is_what_its_record_says(job):
    def error(before=None):
        return _compat.error_of(elsewhere.found(job, before, "job 7 ended"))

    assert str(error()) == "it has not started (job 7 ended)"
    write_run(job.folder, [(0, 0.1)], status="failed", reason="no images")
    assert str(error()) == "no images (job 7 ended)"
    records.write_info(job.folder, {**records.read_info(job.folder), "status": "running"})
    assert str(error()) == "its process died (job 7 ended)"
    with lock.locked(job.folder):
        assert str(error()).startswith("still trained by process ")


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_is_forced_is_done_when_its_record_is_new(job, force):
    records.Record(job.folder, job.config, {}).finish("finished")
    job.config.force = force
    assert elsewhere.has_ended(job, before=None)
    assert _compat.error_of(elsewhere.found(job, None, "job 7 ended")) is None
    now = modified_ns(job.folder)
    assert not elsewhere.has_ended(job, now)
    error = _compat.error_of(elsewhere.found(job, now, "job 7 ended"))
    assert str(error) == "it has not started (job 7 ended)" if force else error is None


def test_a_disk_without_locks_is_found_out_once(tmp_path, monkeypatch, capsys):
    preflight.note_locks(tmp_path)
    assert capsys.readouterr().err == ""

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    preflight.note_locks(tmp_path)
    assert f"note: {tmp_path} does not support locks (Function not implemented)" in capsys.readouterr().err


def test_a_job_that_is_queued_again_waits_for_the_lock_of_its_predecessor(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with lock.locked(tmp_path):
            held.set()
            let_go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    with pytest.raises(ReproError, match="is being trained by process"), lock.locked(tmp_path):
        pass
    monkeypatch.setattr(lock, "patience", 30.0)
    threading.Timer(0.2, let_go.set).start()
    with lock.locked(tmp_path):
        assert let_go.is_set()
    holder.join()


def test_a_run_whose_job_waits_is_queued_and_its_job_is_shown(tmp_path, monkeypatch):
    folder = tmp_path / "seed0"
    write_run(folder, [(0, 0.1)], status="interrupted")
    queued.write(folder, queued.Submitted(engine="slurm", id="7_0", log="/logs/7_0.out"))
    monkeypatch.setattr(queued, "in_queue", lambda: {"7_0": "PENDING", "9": "RUNNING"})
    (row,) = states.describe_runs([(folder, None)])
    assert (row["state"], row["engine"], row["job"], row["log"]) == ("queued", "slurm", "7_0", "/logs/7_0.out")
    assert [list(c.cells) for c in states.build_table([row]).columns if c.header == "job"] == [["slurm 7_0"]]
    monkeypatch.setattr(queued, "in_queue", lambda: {})
    assert states.describe_runs([(folder, None)])[0]["state"] == "interrupted"
    monkeypatch.setattr(queued, "in_queue", lambda: None)  # its controller does not answer
    assert states.describe_runs([(folder, None)])[0]["state"] == "interrupted"
