"""Uploads to a server that appends what is sent to a run that it has: nothing there is ever sent again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime

import pytest
from hosting import CURVE, frame_of, hosted, same
from wandb_server import failing, hanging

from repro.config import Mode
from repro.config.errors import ReproError
from repro.records import lock, read_history, read_info, record_id, runs
from repro.tracking import copies, mirror, pull, upload
from repro.tracking import server as places


def tags(run):
    return run.attributes.get("tags") or []


def rows_there(server, where):
    return sorted(len(run.history) for run in server.runs(where.name).values())


def test_a_number_of_uploads_below_one_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["repro-tracking", "upload", str(tmp_path), "--jobs", "0"])
    with pytest.raises(ReproError, match="^--jobs 0: give the number of uploads at once, from 1 on$"):
        upload.main()


def test_uploading_twice_sends_once(server, where, made, tmp_path):
    folders = [made(tmp_path / f"seed{seed}", seed) for seed in range(3)]
    made(tmp_path / "seed9", 9, status="interrupted")
    assert upload.upload([tmp_path], lambda _: where) == (3, [])
    assert upload.upload([tmp_path], lambda _: where) == (0, [])
    infos = {record_id(read_info(folder)): read_info(folder) for folder in folders}
    sent = server.runs(where.name).values()
    assert sorted(run.name.rpartition("-")[0] for run in sent) == sorted(infos)
    for run in sent:
        info = infos[run.name.rpartition("-")[0]]
        assert run.state == "finished"
        assert run.summary["_wandb"]["runtime"] == int(info["wall_seconds"])
        assert run.attributes["host"] == info["host"]
        assert run.attributes["program"] == info["command"]
        assert "superseded" not in tags(run)
        began = datetime.fromisoformat(info["started"]).timestamp()
        assert [row["_timestamp"] for row in run.rows()][::2] == [began, began + info["wall_seconds"]]
    same(frame_of(where, tmp_path / "cache").frame, runs.local({"clr_3.0": tmp_path}).frame.query("seed < 9"))


def test_what_was_moved_aside_or_is_in_other_hands_is_not_sent(server, where, made, tmp_path, capsys):
    made(tmp_path / "seed0/earlier-1")
    made(tmp_path / "seed0", change=0.25)
    made(tmp_path / "seed1", 1)
    with lock.locked(tmp_path / "seed1"):  # its mirror may not have ended yet
        assert upload.upload([tmp_path], lambda _: where) == (1, [])
    assert "1 unfinished runs are skipped" in capsys.readouterr().out
    (sent,) = server.runs(where.name).values()
    assert sent.name.startswith(record_id(read_info(tmp_path / "seed0")))


def test_an_upload_leaves_the_record_of_a_run_that_begins_again_meanwhile(
    server, where, made, tmp_path, monkeypatch
):
    mirrored = {"mode": "offline", "state": "offline"}
    folder = made(tmp_path / "seed0", wandb=mirrored)
    assert upload.upload([tmp_path], lambda _: where) == (1, [])
    assert read_info(folder)["wandb"]["state"] == "uploaded"
    made(folder, change=0.25, wandb=mirrored)
    sends = upload.send

    def send(path, *arguments):
        made(path, status="interrupted", change=0.5, wandb=mirrored)
        return sends(path, *arguments)

    monkeypatch.setattr(upload, "send", send)
    upload.upload([tmp_path], lambda _: where)
    info = read_info(folder)
    assert (info["status"], info["attempt"], info["wandb"]) == ("interrupted", 3, mirrored)


def test_a_copy_in_another_project_is_not_called_deleted(server, where, made, tmp_path, capsys):
    made(tmp_path / "seed0", wandb={"mode": "offline", "state": "offline"})
    assert upload.upload([tmp_path], lambda _: where) == (1, [])
    other = replace(where, name=f"{where.name}-other")
    assert upload.upload([tmp_path], lambda _: other) == (1, [])
    assert "deleted?" not in capsys.readouterr().out


def test_what_is_there_in_parts_or_twice_is_sent_whole_under_a_new_id(server, where, made, tmp_path, capsys):
    parts = hosted(server, where, made(tmp_path / "runs/seed0", 0, rows=5))
    parts.history = {i: parts.history[i] for i in range(2)}
    twice = hosted(server, where, made(tmp_path / "runs/seed1", 1))
    twice.history |= {i + 3: line for i, line in twice.history.items()}
    cut = hosted(server, where, made(tmp_path / "runs/seed2", 2), state="crashed")
    cut.history = {}
    whole = hosted(server, where, made(tmp_path / "runs/seed3", 3))
    assert upload.upload([tmp_path / "runs"], lambda _: where) == (3, [])
    said = capsys.readouterr().out
    assert f"{where}: 4 finished runs, 1 uploaded already\n" in said
    assert f"{parts.name}: of 5 rows W&B has 2 (run {parts.name}); it is sent under a new id" in said
    assert rows_there(server, where) == [0, 2, 3, 3, 3, 5, 6]
    for old in (parts, twice, cut):
        assert "superseded" in tags(old)
        assert old.config["superseded_by"]["value"].startswith(f"{old.name}-")
    assert sum("superseded" in tags(run) for run in server.runs(where.name).values()) == 3
    assert tags(whole) == []
    assert upload.upload([tmp_path / "runs"], lambda _: where) == (0, [])
    found = frame_of(where, tmp_path / "cache")
    assert found.broken == found.notes == []
    same(found.frame, runs.local({"clr_3.0": tmp_path / "runs"}).frame)


def test_upload_and_wandb_sync_double_nothing(run_app, server, where, tmp_path):
    """Whichever comes first: an upload has an id of its own, and what was synced is known."""
    done = run_app("train", f"experiment={CURVE}", "scale=smoke", f"tracking.project={where.name}")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "multirun_outputs").rglob("seed0")
    rows = len(read_history(folder))
    assert read_info(folder)["wandb"]["state"] == "offline"
    (files,) = tmp_path.rglob("offline-run-*")
    shutil.copytree(files, tmp_path / "again" / files.name)
    sync = [sys.executable, "-m", "wandb", "sync", "-e", where.entity, "-p"]

    def synced(path, project):
        done = subprocess.run([*sync, project, str(path)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    synced(files, where.name)
    assert upload.upload([tmp_path / "multirun_outputs"], lambda _: where) == (0, [])
    other = replace(where, name=f"{where.name}-other")
    assert upload.upload([tmp_path / "multirun_outputs"], lambda _: other) == (1, [])
    assert read_info(folder)["wandb"]["state"] == "uploaded"
    synced(tmp_path / "again" / files.name, other.name)
    assert upload.upload([tmp_path / "multirun_outputs"], lambda _: other) == (0, [])
    assert rows_there(server, where) == [rows]
    assert rows_there(server, other) == [rows, rows]
    assert sorted("superseded" in tags(run) for run in server.runs(other.name).values()) == [False, True]


def test_one_upload_at_a_time_sends_to_a_project(server, where, made, tmp_path, monkeypatch):
    made(tmp_path / "seed0")
    messages = []

    def send(*arguments):
        with pytest.raises(ReproError) as refused:
            upload.upload([tmp_path], lambda _: where)
        messages.append(str(refused.value))
        return True

    monkeypatch.setattr(upload, "_send", send)
    assert upload.upload([tmp_path], lambda _: where) == (1, [])
    assert messages[0].startswith(f"{where} is being uploaded to by process {os.getpid()} on ")


def test_what_came_meanwhile_is_not_sent(server, where, made, tmp_path, monkeypatch):
    folder = made(tmp_path / "seed0")
    monkeypatch.setattr(upload, "_describe_incomplete", lambda *_: [f"{hosted(server, where, folder).name} came"])
    assert upload.upload([tmp_path], lambda _: where) == (0, [])
    assert rows_there(server, where) == [3]


def test_rows_that_do_not_arrive_are_an_error(server, where, made, tmp_path, monkeypatch):
    made(tmp_path / "seed0")
    server.faults = [failing("file_stream", 404, 10**6)]
    monkeypatch.setattr(upload, "SETTLE", 1)
    count, (line,) = upload.upload([tmp_path], lambda _: where)
    assert count == 0
    assert line.startswith(f"{tmp_path}/seed0: sent as http")
    assert line.endswith("but it has 0 of 3 rows; upload it again")
    server.faults = []
    assert upload.upload([tmp_path], lambda _: where) == (1, [])


def test_a_run_that_was_deleted_is_said_and_sent_again(server, where, made, tmp_path, capsys):
    made(tmp_path / "runs/seed0", wandb={"mode": "offline", "state": "offline"})
    assert upload.upload([tmp_path / "runs"], lambda _: where) == (1, [])
    frame_of(where, tmp_path / "cache")
    (run,) = server.runs(where.name).values()
    server.delete(run)
    assert frame_of(where, tmp_path / "cache").frame.empty
    assert f"note: run {run.name} is no longer in {where}; it is deleted from the cache" in capsys.readouterr().err
    assert pull.cached(where, tmp_path / "cache") == []
    assert upload.upload([tmp_path / "runs"], lambda _: where) == (1, [])
    assert f"note: run {run.name} no longer exists (deleted?)" in capsys.readouterr().out
    assert rows_there(server, where) == [3]


def test_of_several_finished_runs_the_newest_stands_and_takes_the_place_of_a_deleted_one(
    server, where, made, tmp_path
):
    old = hosted(server, where, made(tmp_path / "a", started="2026-01-02T00:00:00+00:00"))
    new = hosted(server, where, made(tmp_path / "b", change=0.25, started="2026-01-03T00:00:00+00:00"))
    running = hosted(server, where, made(tmp_path / "c", started="2026-01-04T00:00:00+00:00"), state="running")
    infos = [read_info(tmp_path / name) for name in "ab"]
    assert copies.supersede(copies.found(where, infos)) == 1
    assert (tags(old), tags(new), tags(running)) == (["superseded"], [], [])
    server.delete(new)
    assert copies.supersede(copies.found(where, infos)) == 0
    assert tags(old) == []


def test_an_attempt_is_superseded_when_its_successor_starts(server, where, made, resolved, tmp_path):
    first = hosted(server, where, made(tmp_path / "first"), state="crashed")
    info = read_info(made(tmp_path / "second", started="2026-01-04T00:00:00+00:00"))
    info |= {"earlier": [first.name], "attempt": 2}
    info["config"]["tracking"] |= {
        "mode": Mode.online.name,
        "project": where.name,
        "tags": ["mine"],
        "notes": "why",
    }
    mirrored = mirror.Mirror(info, tmp_path / "second")
    for row in read_history(tmp_path / "second"):
        mirrored.row(row)
    mirrored.finish(info)
    assert mirrored.outcome["state"] == "mirrored"
    second = server.runs(where.name)[mirrored.outcome["id"]]
    assert mirrored.outcome["url"].endswith(f"/runs/{second.name}")
    assert tags(first) == ["superseded"]
    assert first.config["superseded_by"]["value"] == second.name
    assert "mine" in tags(second)
    assert "why" in second.attributes["notes"]


def test_ctrl_c_ends_an_upload_and_leaves_nothing(server, where, made, tmp_path):
    for seed in range(3):
        made(tmp_path / f"runs/seed{seed}", seed)
    server.faults = [hanging("file_stream", 5)]
    command = [sys.executable, "-m", "repro.tracking", "upload", "runs", f"tracking.project={where.name}"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "WANDB_CACHE_DIR": f"{tmp_path}/cache"},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 120
    while not server.runs(where.name) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    server.faults = []
    assert process.returncode == 130
    assert "interrupted; run the same command again to send the missing records" in said
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [
        path for path in left if not path.name.startswith("core-debug-")
    ] == []  # wandb's own log of its service
    assert upload.upload([tmp_path / "runs"], lambda _: where) == (3, [])
    assert max(rows_there(server, where)) == 3
    found = frame_of(where, tmp_path / "cache")
    assert len(found.frame) == 9
    assert found.broken == []


def test_a_server_that_hangs_is_spoken_of_while_it_does(server, where, made, tmp_path, monkeypatch, capsys):
    hosted(server, where, made(tmp_path / "seed0"))
    monkeypatch.setattr(places, "NOTICE", 0.2)
    monkeypatch.setitem(places._noticed, "at", -1.0)
    server.faults = [hanging("Runs", 0.6)]
    assert len(frame_of(where, tmp_path / "cache").frame) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "no response" in line]
    assert line.startswith(f"note: W&B, {where} on http")
    assert "the list of runs: no response for" in line


def test_a_foreign_run_with_our_keys_is_skipped_with_a_note(server, where, made, tmp_path, capsys):
    hosted(server, where, made(tmp_path / "seed0"))
    foreign = hosted(server, where, tmp_path / "seed0", name="theirs")
    foreign.config["scale"] = {"value": "large"}
    odd = hosted(server, where, tmp_path / "seed0", name="odd")
    odd.config["seed"] = {"value": "zero"}
    assert len(frame_of(where, tmp_path / "cache").frame) == 3
    said = capsys.readouterr().err
    for name in ("theirs", "odd"):
        assert f"note: run {name} of {where} has keys of this suite but is not a record of it; skipped" in said
    assert upload.upload([tmp_path], lambda _: where) == (0, [])


@pytest.mark.parametrize(("lost", "usable"), [([0], 0), ([2], 2), ([1, 2], 1), ([4], 4)])
def test_a_hole_ends_the_rows_of_an_unfinished_run(server, where, made, tmp_path, lost, usable):
    run = hosted(server, where, made(tmp_path / "seed0", rows=6), state="running")
    for number in lost:
        del run.history[number]
    found = frame_of(where, tmp_path / "cache")
    assert list(found.frame["iteration"]) == [2 * i for i in range(usable)]
    (note,) = found.notes
    assert note.startswith(f"note: run {run.name} of {where}: of 6 rows number {usable + 1} is missing")


def test_an_empty_page_is_a_hole(made):
    notes = []
    row = {"iteration": 0}
    assert pull.usable({0: row}, "run x", notes, counted=4) == [row]
    assert notes == ["note: run x: of 4 rows number 2 is missing; it is drawn up to there"]
    assert pull.usable({0: row, 1: row}, "run x", notes, counted=1) == [row, row], "it has grown since"
    assert len(notes) == 1


def test_an_older_run_that_is_whole_is_drawn_rather_than_a_newer_one_that_lost_rows(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "a/seed0", started="2026-01-02T00:00:00+00:00"))
    newer = hosted(server, where, made(tmp_path / "b", change=0.25, started="2026-01-03T00:00:00+00:00"))
    del newer.history[2]
    found = frame_of(where, tmp_path / "cache")
    assert found.broken == []
    same(found.frame, runs.local({"clr_3.0": tmp_path / "a"}).frame)


def test_what_a_server_has_whole_is_drawn_rather_than_a_newer_part(server, where, made, tmp_path):
    whole = hosted(server, where, made(tmp_path / "seed0"))
    part = hosted(server, where, tmp_path / "seed0", name=f"{whole.name}-0000")
    del part.history[2]
    altered = hosted(server, where, tmp_path / "seed0", name=f"{whole.name}-ffff")
    altered.history[2] = json.dumps({**json.loads(altered.history[2]), "test_loss": 7.0})
    found = frame_of(where, tmp_path / "cache")
    assert found.broken == []
    same(found.frame, runs.local({"clr_3.0": tmp_path}).frame)


def test_a_copy_of_other_rows_is_no_copy_of_a_record(made, tmp_path):
    info = read_info(made(tmp_path / "seed0"))
    for digest, holds in ((info["digest"], True), ("another", False)):
        copy = copies.Copy(None, {**info, "digest": digest}, record_id(info), whole=True)
        assert copies.holds([copy], info) is holds
