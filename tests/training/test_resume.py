"""Nothing is lost: runs resume exactly where they were, whatever ended them."""

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from on_disk import largest_file
from torch import nn

from repro import resources
from repro.config.errors import ReproError
from repro.data import cache, images
from repro.records import Record, lock, read_history, read_info
from repro.training import checkpoints, devices, lifecycle, loop, steps
from repro.training.interrupts import Interrupted, interruptible

SMOKE = ("experiment=fig8b/tbs1024", "scale=smoke", "tracking=disabled", "scale.iterations=0.005", "scale.tests=7")


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def numbers(folder):
    """The history without its timing."""
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in read_history(folder)]


def weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def are_equal(a, b):
    return numbers(a) == numbers(b) and all(torch.equal(weights(a)[k], v) for k, v in weights(b).items())


@pytest.fixture
def run(resolved):
    return resolved(*SMOKE, "checkpoint_iterations=4", "threads=1")  # fast beside other processes too


@pytest.fixture
def whole(run, tmp_path):
    """An undisturbed run's folder."""
    lifecycle.run(run, tmp_path / "whole")
    return tmp_path / "whole"


def train_until(run, folder, iteration, monkeypatch):
    """Train, and die right after an iteration."""
    from repro.training import loop

    original = loop.train

    def dying(config, data, state):
        for row in original(config, data, state):
            yield row
            if state.iteration >= iteration:
                raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "train", dying)
        lifecycle.run(run, folder)


def test_the_record_says_how_its_iterations_are_computed(run, whole, tmp_path, monkeypatch):
    assert (read_info(whole)["step"], "fallback" in read_info(whole)) == ("plain", False)
    monkeypatch.setattr(steps, "_FAST", {})
    monkeypatch.setattr(steps, "choose_engine", lambda *_: (True, True))
    monkeypatch.setattr(steps, "Fast", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(devices, "unusable_gpu", lambda: "device=auto is the CPU: the driver is too old")
    train_until(run, tmp_path, 2, monkeypatch)  # known from the first iteration on
    why = "does not work here (ZeroDivisionError: division by zero)"
    info = read_info(tmp_path)
    assert info["step"] == "plain"
    assert info["fallback"] == (
        f"device=auto is the CPU: the driver is too old; engine.compile {why}; engine.cuda_graph {why}"
    )
    run.device = "cpu"
    lifecycle.run(run, tmp_path)
    assert read_info(tmp_path)["fallback"] == f"engine.compile {why}; engine.cuda_graph {why}"
    assert are_equal(tmp_path, whole)


def test_a_deterministic_run_fills_no_memory_in_vain(run, whole, tmp_path):
    assert torch.utils.deterministic.fill_uninitialized_memory
    run.deterministic = True
    try:
        lifecycle.run(run, tmp_path)
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True
    assert are_equal(tmp_path, whole)


@pytest.mark.parametrize("iteration", [1, 4, 5, 8, 9, 28])
def test_a_killed_run_ends_with_the_same_bits(run, whole, tmp_path, monkeypatch, iteration):
    assert run.iterations == 29
    folder = tmp_path / "killed"
    train_until(run, folder, iteration, monkeypatch)
    lifecycle.run(run, folder)
    assert are_equal(folder, whole)
    assert read_info(folder)["attempt"] == 2
    assert not list(folder.glob("*checkpoint*"))


def test_a_run_with_frozen_layers_resumes_and_one_whose_network_has_changed_is_one_line(
    resolved, tmp_path, monkeypatch
):
    own = types.ModuleType("own_for_resume")
    own.hidden = 6

    def network(num_classes, channels, *, resolution):
        frozen = nn.Linear(channels * resolution**2, own.hidden).requires_grad_(False)
        return nn.Sequential(nn.Flatten(), frozen, nn.ReLU(), nn.Linear(own.hidden, num_classes))

    own.network = network
    monkeypatch.setitem(sys.modules, "own_for_resume", own)
    run = resolved(
        *SMOKE,
        "checkpoint_iterations=4",
        "threads=1",
        "seed=3",
        "model=custom",
        "model.factory=own_for_resume:network",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    lifecycle.run(run, whole)
    train_until(run, killed, 10, monkeypatch)
    own.hidden = 7
    message = (
        r"killed: its checkpoint is of another network than model.name=own_for_resume:network is now \(size mismatch "
        r"for 1.weight: .*\); undo the change of the code, or delete the folder"
    )
    with pytest.raises(ReproError, match=message) as error:
        lifecycle.run(run, killed)
    assert "\n" not in str(error.value)
    assert read_info(killed)["status"] == "failed"
    own.hidden = 6
    lifecycle.run(run, killed)
    assert are_equal(killed, whole)
    torch.manual_seed(run.seed)
    start = network(10, 1, resolution=run.dataset.resolution or 8)
    assert torch.equal(weights(whole)["1.weight"], start[1].weight)


def test_a_killed_run_with_dropout_ends_with_the_same_bits(resolved, tmp_path, monkeypatch):
    def run(seed):
        return resolved("experiment=table2-densenet/1cycle_50ep", "scale=smoke", "tracking=disabled", f"seed={seed}",
                        "scale.iterations=0.002", "checkpoint_iterations=4")  # fmt: skip

    lifecycle.run(run(0), tmp_path / "whole")
    lifecycle.run(run(1), tmp_path / "other")  # draws in between
    train_until(run(0), tmp_path / "killed", 6, monkeypatch)
    lifecycle.run(run(0), tmp_path / "killed")
    assert are_equal(tmp_path / "killed", tmp_path / "whole")
    assert numbers(tmp_path / "other") != numbers(tmp_path / "whole")


def test_a_run_killed_again_and_again_ends_with_the_same_bits(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    for iteration in (3, 6, 13, 14, 22):
        train_until(run, folder, iteration, monkeypatch)
    lifecycle.run(run, folder)
    assert are_equal(folder, whole)


def test_the_last_two_checkpoints_are_kept(run, tmp_path, monkeypatch):
    train_until(run, tmp_path, 18, monkeypatch)
    assert [p.name for p in checkpoints.find(tmp_path)] == ["checkpoint-000000016.pt", "checkpoint-000000012.pt"]


def test_a_checkpoint_is_due_by_time_too(resolved, tmp_path, monkeypatch):
    """As in every run that does not say otherwise: each five minutes."""
    run = resolved(*SMOKE, "checkpoint_seconds=60", "threads=1")
    clock = itertools.count(0, 25)
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    train_until(run, tmp_path, 9, monkeypatch)
    first, second = (int(path.stem.split("-")[1]) for path in checkpoints.find(tmp_path))
    assert 9 >= first > second > 1


def test_the_rows_are_on_disk_before_the_checkpoint_that_counts_on_them(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(checkpoints, "save", lambda folder, state: order.append("checkpoint"))
    with checkpoints.write_in_background(tmp_path, lambda: order.append("rows")) as write:
        write({"iteration": 1})
    assert order == ["rows", "checkpoint"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc to see which file it is")
def test_what_a_run_resumes_from_is_on_disk_when_it_is_said_to_be(run, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name))
    record = Record(tmp_path, run, {})
    record.append({"iteration": 4, "test_accuracy": 0.5})
    record.sync()
    checkpoints.save(tmp_path, {"iteration": 4})
    assert [name.lstrip(".").split(".")[0] for name in synced] == ["history", "run", "checkpoint-000000004"]


def test_the_mirror_of_a_resumed_run_gets_the_rows_of_before_too(run, tmp_path, monkeypatch):
    train_until(run, tmp_path, 10, monkeypatch)
    sent = []
    monkeypatch.setattr(lifecycle.Mirror, "row", lambda self, values: sent.append(values))
    lifecycle.run(run, tmp_path)
    assert sent == read_history(tmp_path)


@pytest.mark.parametrize(
    "spoil", [lambda c: c[:-100], lambda c: c[:10], lambda c: c[:99] + b"x" + c[100:], lambda c: b""]
)
def test_a_broken_checkpoint_falls_back_to_the_one_before(run, whole, tmp_path, monkeypatch, caplog, spoil):
    folder = tmp_path / "killed"
    train_until(run, folder, 18, monkeypatch)
    newest, _ = checkpoints.find(folder)
    newest.write_bytes(spoil(newest.read_bytes()))
    with caplog.at_level("INFO"):
        lifecycle.run(run, folder)
    assert "checkpoint-000000016.pt is truncated or corrupt" in caplog.text
    assert "resuming after iteration 12 of 29" in caplog.text
    assert are_equal(folder, whole)


def test_with_every_checkpoint_broken_it_starts_over(run, whole, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "killed"
    train_until(run, folder, 18, monkeypatch)
    for path in checkpoints.find(folder):
        path.write_bytes(b"nothing")
    lifecycle.run(run, folder)
    assert caplog.text.count("is truncated or corrupt") == 2
    assert are_equal(folder, whole)


def test_the_checkpoint_of_another_configuration_is_not_used(run, tmp_path, monkeypatch, resolved):
    train_until(run, tmp_path, 18, monkeypatch)
    other = resolved(*SMOKE, "regularization.weight_decay=0.01")
    lifecycle.run(other, tmp_path)
    assert read_info(tmp_path)["config"]["regularization"]["weight_decay"] == 0.01
    assert read_history(tmp_path)[0]["iteration"] == 4


def test_half_a_row_left_by_a_kill_is_dropped(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    train_until(run, folder, 10, monkeypatch)
    with open(folder / "history.jsonl", "ab") as file:
        file.write(b'{"iteration": 12, "lr"')
    lifecycle.run(run, folder)
    assert are_equal(folder, whole)


def test_what_a_kill_left_half_written_goes(run, tmp_path):
    for name in (".checkpoint-000000001.pt.7", ".weights.7", ".run.json.7", ".history.jsonl.7"):
        (tmp_path / name).write_text("half")
    lifecycle.run(run, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.jsonl", "run.json", "weights.pt"]


def test_training_goes_on_while_a_checkpoint_is_written(run, whole, tmp_path, monkeypatch):
    """The disk blocks until two tests later; the checkpoint is still the state of iteration 4."""
    from repro.training import loop

    original, save, folder = loop.train, checkpoints.save, tmp_path / "slow"
    may_write, written = threading.Event(), threading.Event()

    def held_up(folder, state):
        assert may_write.wait(60)
        save(folder, state)
        written.set()

    def dying(config, data, state):
        for row in original(config, data, state):
            if state.iteration == 7:
                may_write.set()  # the loop is three iterations ahead
                assert written.wait(60)
                raise Killed
            yield row

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "save", held_up)
        patch.setattr(loop, "train", dying)
        lifecycle.run(run, folder)
    assert [p.name for p in checkpoints.find(folder)] == ["checkpoint-000000004.pt"]
    lifecycle.run(run, folder)
    assert are_equal(folder, whole)


def test_what_goes_wrong_in_writing_is_not_lost(run, tmp_path, monkeypatch):
    def wrong(folder, state):
        raise ValueError("no number")

    monkeypatch.setattr(checkpoints, "save", wrong)
    with pytest.raises(ValueError, match="no number"):
        lifecycle.run(run, tmp_path)
    assert read_info(tmp_path)["reason"] == "ValueError: no number"
    with (
        pytest.raises(ValueError, match="no number"),
        checkpoints.write_in_background(tmp_path, lambda: None) as write,
    ):
        write({"iteration": 1})
        raise KeyboardInterrupt  # an interrupt must not promise a checkpoint that was not written


def test_a_full_disk_costs_a_checkpoint_not_the_run(run, whole, tmp_path, monkeypatch, caplog):
    def full(folder, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", full)
    lifecycle.run(run, tmp_path / "full")
    assert "no checkpoint at iteration 4: the disk is full; make room, the run continues" in caplog.text
    assert are_equal(tmp_path / "full", whole)


def test_a_full_disk_while_recording_fails_the_run_and_leaves_it_readable(run, whole, tmp_path, monkeypatch):
    append = Record.append

    def full(self, row):
        if row["iteration"] >= 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, row)

    folder = tmp_path / "full"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Record, "append", full)
        lifecycle.run(run, folder)
    assert read_info(folder)["reason"].startswith("the disk is full; make room")
    assert read_history(folder)[-1]["iteration"] == 8
    lifecycle.run(run, folder)
    assert are_equal(folder, whole)


def test_a_full_disk_at_the_end_costs_what_came_after_the_last_checkpoint(run, whole, tmp_path):
    folder = tmp_path / "full"
    with largest_file(10_000), pytest.raises(OSError, match=r"weights\.pt"):  # a checkpoint takes more, too
        lifecycle.run(run, folder)
    info = read_info(folder)
    assert (info["status"], len(read_history(folder))) == ("failed", len(read_history(whole)))
    assert info["reason"] == f"{folder / 'weights.pt'}: File too large; make room, then run the same command again"
    lifecycle.run(run, folder)
    assert are_equal(folder, whole)


def test_a_run_whose_end_cannot_be_recorded_says_why_and_resumes(run, whole, tmp_path, monkeypatch):
    def full(self, *args, **more):
        raise OSError(errno.ENOSPC, "No space left on device", "run.json")

    folder = tmp_path / "full"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Record, "finish", full)
        lifecycle.run(run, folder)
    assert read_info(folder)["status"] == "running"  # and nobody holds it
    assert lock.holder(folder) is None
    lifecycle.run(run, folder)
    assert are_equal(folder, whole)


def without_images(run, folder, monkeypatch):
    """Fail before training."""

    def missing(dataset):
        raise ReproError("dataset.root=/nothing: no images there")

    with monkeypatch.context() as patch, pytest.raises(ReproError, match="no images there"):
        patch.setattr(images, "load", missing)
        lifecycle.run(run, folder)


def test_a_failure_before_training_is_recorded_with_its_reason(run, tmp_path, monkeypatch):
    without_images(run, tmp_path / "a", monkeypatch)
    reason = "dataset.root=/nothing: no images there"
    assert (read_info(tmp_path / "a")["status"], read_info(tmp_path / "a")["reason"]) == ("failed", reason)
    assert (tmp_path / "a/train.log").read_text() == f"failed: {reason}\n"
    run.device = "cuda:99"
    with pytest.raises(ReproError, match="device=cuda:99"):
        lifecycle.run(run, tmp_path / "b")
    assert read_info(tmp_path / "b")["reason"].startswith("device=cuda:99: ")
    run.dataset.digest = "another"
    with pytest.raises(ReproError, match=r"dataset\.digest=another"):
        lifecycle.run(run, tmp_path / "c")
    assert read_info(tmp_path / "c")["reason"].startswith("dataset.digest=another: ")


def test_a_failure_before_training_costs_nothing_of_before(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    train_until(run, folder, 10, monkeypatch)
    rows, saved = numbers(folder), [path.name for path in checkpoints.find(folder)]
    for _ in range(2):
        without_images(run, folder, monkeypatch)
    assert (numbers(folder), [path.name for path in checkpoints.find(folder)]) == (rows, saved)
    lifecycle.run(run, folder)
    info = read_info(folder)
    assert (info["attempt"], [part["attempt"] for part in info["resumed"]]) == (4, [1])
    assert are_equal(folder, whole)


def test_other_images_do_not_resume_after_a_failure_that_did_not_see_them(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(images, "digest", lambda dataset: "before")
    monkeypatch.setattr(cache, "digest_of", lambda arrays: "before")
    train_until(run, tmp_path, 10, monkeypatch)
    run.dataset.digest = None
    monkeypatch.setattr(images, "digest", lambda dataset: None)
    without_images(run, tmp_path, monkeypatch)
    assert read_info(tmp_path)["config"]["dataset"]["digest"] == "before"
    monkeypatch.setattr(images, "digest", lambda dataset: "after")
    monkeypatch.setattr(cache, "digest_of", lambda arrays: "after")
    lifecycle.run(run, tmp_path)
    assert "resuming" not in caplog.text
    deleting = "deleting the checkpoints of another configuration (dataset.digest: before there, after now)"
    assert deleting in caplog.text
    assert read_info(tmp_path)["config"]["dataset"]["digest"] == "after"


def test_another_configuration_that_fails_before_training_leaves_nothing_to_resume(
    run, resolved, tmp_path, monkeypatch
):
    train_until(run, tmp_path, 10, monkeypatch)
    without_images(resolved(*SMOKE, "batch_size=64"), tmp_path, monkeypatch)
    assert (checkpoints.find(tmp_path), read_history(tmp_path)) == ([], [])


def test_a_run_that_is_refused_says_why_unless_it_is_finished_or_trained(run, whole, tmp_path):
    lifecycle.refuse(run, tmp_path / "new", [], "no room")
    assert (read_info(tmp_path / "new")["status"], read_info(tmp_path / "new")["reason"]) == ("failed", "no room")
    assert (tmp_path / "new/train.log").read_text() == "failed: no room\n"
    with lock.locked(tmp_path / "held"):
        lifecycle.refuse(run, tmp_path / "held", [], "no room")
    assert read_info(tmp_path / "held") is None
    lifecycle.refuse(run, whole, [], "no room")
    assert read_info(whole)["status"] == "finished"


def test_a_run_sets_how_its_threads_wait_unless_the_environment_does(run, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    lifecycle.run(run, tmp_path / "a")
    assert os.environ["GOMP_SPINCOUNT"] == resources.SPINS
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    lifecycle.run(run, tmp_path / "b")
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_a_run_takes_no_more_threads_than_its_cgroup_has_cores(run, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    run.threads = None
    monkeypatch.setattr(resources, "cores", lambda: 1)
    try:
        lifecycle.run(run, tmp_path)
        assert read_info(tmp_path)["environment"]["threads"] == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_the_second_process_is_told_who_holds_a_run(run, tmp_path):
    with (
        lock.locked(tmp_path),
        pytest.raises(ReproError, match=rf"is being trained by process {os.getpid()} on "),
    ):
        lifecycle.run(run, tmp_path)
    lifecycle.run(run, tmp_path)
    assert not (tmp_path / lock.LOCK).exists()


def test_the_lock_of_a_dead_process_is_free(run, tmp_path):
    code = f"from repro.records import lock; from pathlib import Path; import os\nwith lock.locked(Path({str(tmp_path)!r})): os._exit(9)"
    subprocess.run([sys.executable, "-c", code])
    assert (tmp_path / lock.LOCK).exists()
    lifecycle.run(run, tmp_path)
    assert not (tmp_path / lock.LOCK).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 140)])
def test_a_signal_ends_a_run_with_a_checkpoint(tmp_path, number, code):
    folder = tmp_path / "multirun_outputs/smoke/fig8b/tbs1024/iterations=5000000/seed0"
    command = [sys.executable, "-m", "repro.train", "experiment=fig8b/tbs1024", "scale=smoke", "tracking=disabled",
               "iterations=5000000", "scale.tests=1000"]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    folder = folder.parent.with_name("iterations=5000000,scale.tests=1000") / "seed0"
    deadline = time.monotonic() + 120
    while len(read_history(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert len(checkpoints.find(folder)) == 1
    assert read_info(folder)["status"] == "interrupted"
    assert not (folder / lock.LOCK).exists()


def test_a_signal_in_the_last_iteration_finishes_the_run_and_ends_the_sweep(run, whole, tmp_path, monkeypatch):
    from repro.training import loop

    original = loop.train

    def signalled(config, data, state):
        for row in original(config, data, state):
            if state.iteration == config.iterations:
                os.kill(os.getpid(), signal.SIGTERM)
            yield row

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "train", signalled)
        lifecycle.run(run, tmp_path / "late")
    assert read_info(tmp_path / "late")["status"] == "finished"
    assert are_equal(tmp_path / "late", whole)


def test_a_finished_run_writes_no_checkpoint_of_its_end(run, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoints, "save", lambda folder, state: written.append(state["iteration"]))
    run.iterations = 28  # where a checkpoint would be due
    lifecycle.run(run, tmp_path)
    assert written == [4, 8, 12, 16, 20, 24]


def test_a_diverged_state_is_over_when_it_is_loaded_too(run):
    from repro import models
    from repro.data.batches import load
    from repro.training import loop
    from repro.training.state import State

    loaded = load(run.dataset)
    states = [
        State(run, models.from_config(run.model, loaded.classes, loaded.mean.shape, 0), "cpu") for _ in range(2)
    ]
    states[0].diverged = True
    states[1].load_state_dict(states[0].state_dict())
    assert states[1].is_over(run)
    run.test_at_start = False
    assert list(loop.train(run, loaded, states[1])) == []


def test_a_run_that_is_ended_in_its_first_test_begins_again(resolved, tmp_path, monkeypatch):
    run = resolved("experiment=fig5a/clr_3.0", "scale=smoke", "tracking=disabled", "threads=1")
    assert run.test_at_start
    lifecycle.run(run, tmp_path / "whole")
    test = loop.test

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return test(*arguments)

    monkeypatch.setattr(loop, "test", interrupted)
    with pytest.raises(Interrupted):
        lifecycle.run(run, tmp_path / "killed")
    monkeypatch.setattr(loop, "test", test)
    lifecycle.run(run, tmp_path / "killed")
    assert [row["iteration"] for row in read_history(tmp_path / "killed")][:2] == [0, run.test_every]
    assert are_equal(tmp_path / "killed", tmp_path / "whole")


def test_a_closed_terminal_ends_a_run_with_a_checkpoint_unless_it_is_ignored():
    for handler, received in ((signal.default_int_handler, [signal.SIGHUP]), (signal.SIG_IGN, [])):
        before = signal.signal(signal.SIGHUP, handler)
        try:
            with interruptible() as signals:
                os.kill(os.getpid(), signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert signals == received


def test_a_run_whose_folder_is_replaced_ends_in_a_line_and_leaves_its_successor_alone(run, tmp_path, monkeypatch):
    folder, made = tmp_path / "seed0", []

    def replace_folder(*arguments):
        if not made:
            folder.rename(tmp_path / "old")
            made.append(Record(folder, run, {}))
            (folder / lock.LOCK).write_text("another")

    append = Record.append
    monkeypatch.setattr(Record, "append", lambda self, row: (replace_folder(), append(self, row)))
    with pytest.raises(ReproError, match=r"seed0 was deleted, moved or replaced while this run trained in it$"):
        lifecycle.run(run, folder)
    assert sorted(path.name for path in folder.iterdir()) == [lock.LOCK, "history.jsonl", "run.json"]
    assert read_info(folder)["status"] == "running"


def test_a_checkpoint_that_cannot_be_read_falls_back_to_the_one_before(run, whole, tmp_path, monkeypatch, caplog):
    train_until(run, tmp_path, 10, monkeypatch)
    newest, *_ = checkpoints.find(tmp_path)
    read = checkpoints.read

    def fail_once(path, device):
        if path == newest:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path, device)

    monkeypatch.setattr(checkpoints, "read", fail_once)
    lifecycle.run(run, tmp_path)
    assert f"{newest}: Input/output error; falling back" in caplog.text
    assert are_equal(tmp_path, whole)


def test_the_second_interrupt_is_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("still there")
    assert signals == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_clock_that_jumps_disturbs_nothing(run, whole, tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -(10**5)))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    lifecycle.run(run, tmp_path / "jumped")
    assert are_equal(tmp_path / "jumped", whole)
    assert 0 < read_info(tmp_path / "jumped")["wall_seconds"] < 600


def read(file):
    """A file of /proc; empty where its process or thread has just gone."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to find wandb's process in")
def test_a_wandb_process_that_is_killed_costs_the_mirror_not_the_run(tmp_path):
    folder = tmp_path / "multirun_outputs/smoke/fig8b/tbs1024/iterations=400000,scale.tests=40/seed0"
    command = [sys.executable, "-m", "repro.train", "experiment=fig8b/tbs1024", "scale=smoke", "tracking=offline",
               "iterations=400000", "scale.tests=40"]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while len(read_history(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed: list[str] = []
    while not killed and time.monotonic() < deadline:  # it is a child of the mirror's thread
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [pid for task in tasks for pid in read(task).split()]
        killed = [pid for pid in children if "wandb" in read(Path(f"/proc/{pid}/cmdline"))]
    for pid in killed:
        os.kill(int(pid), signal.SIGKILL)
    out, _ = process.communicate(timeout=240)
    assert killed
    assert process.returncode == 0, out
    assert read_info(folder)["status"] == "finished"
    assert read_history(folder)[-1]["iteration"] == 400


def torture(tmp_path, kills, seeds, rng, factor):
    """Kill a sweep at random moments and relaunch it until it is done; returns the cost.

    Also a script: ``python tests/training/test_resume.py [kills]`` does so with twelve runs.
    """
    sweep = [sys.executable, "-m", "repro.train", "-m", "experiment=fig8b/tbs1024,fig5a/clr_3.0,fig15a/wd_1e-4",
             f"seed=range({seeds})", "scale=smoke", f"scale.iterations={factor}", "scale.tests=6", "tracking=disabled",
             "threads=1", "checkpoint_iterations=5"]  # fmt: skip
    undisturbed, tortured = tmp_path / "undisturbed", tmp_path / "tortured"
    subprocess.run([*sweep, f"output={undisturbed}"], cwd=tmp_path, check=True, capture_output=True)
    killed = launches = repeated = 0
    finished: dict[str, str] = {}
    while True:
        launches += 1
        launched = time.time()
        process = subprocess.Popen([*sweep, f"output={tortured}"], cwd=tmp_path, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        if killed == kills:
            process.wait(timeout=300)
        else:
            while process.poll() is None and not any(
                path.stat().st_mtime > launched for path in tortured.rglob("history.jsonl")
            ):
                time.sleep(0.05)
            try:
                process.wait(timeout=rng.uniform(0.0, 3.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
        for path in tortured.rglob("run.json"):
            info = json.loads(path.read_text())
            if info["status"] == "finished":
                started = finished.setdefault(str(path), info["started"])
                assert started == info["started"], f"{path} was trained again"
            elif rows := read_history(path.parent):
                saved = checkpoints.find(path.parent)
                reached = int(saved[0].stem.split("-")[1]) if saved else 0
                repeated += max(0, rows[-1]["iteration"] - reached)
        if process.returncode == 0:
            break
    folders = sorted(p.parent.relative_to(undisturbed) for p in undisturbed.rglob("run.json"))
    assert len(folders) == 3 * seeds
    lost = [
        f
        for f in folders
        if not (tortured / f / "weights.pt").exists() or not are_equal(tortured / f, undisturbed / f)
    ]
    hidden = [p for p in tortured.rglob(".*") if p.name != ".hydra"]
    left = [*hidden, *tortured.rglob("checkpoint-*")]
    return {
        "runs": len(folders),
        "kills": killed,
        "launches": launches,
        "lost": lost,
        "left": left,
        "repeated": repeated,
    }


def test_a_sweep_that_is_killed_again_and_again_loses_nothing(tmp_path):
    result = torture(tmp_path, kills=3, seeds=1, rng=random.Random(4), factor=0.01)
    assert result["kills"] > 0
    assert result["lost"] == []
    assert result["left"] == []
    assert result["runs"] == 3


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        print(torture(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 20, 4, random.Random(0), 0.05))
