"""Weights & Biases by its real client: live, later, back again, and everything that can go wrong on the way.

The server is the stand-in of ``wandb_server``; every request comes from the wandb client itself.
"""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import wandb_server
from hosting import CURVE, HOMES, READS_FILES, frame_of, hosted, reads_files, same
from wandb_server import changing, cutting, failing

from repro import records
from repro.config.errors import ReproError
from repro.records import Record, read_history, read_info, runs
from repro.tracking import mirror, pull, upload
from repro.tracking.server import find_project


def said(done):
    """What a command says on standard error, but for notes of a busy machine that W&B is slow."""
    return [line for line in done.stderr.splitlines() if "no response for" not in line]


def test_one_frame_from_every_source(run_app, server, where, tmp_path):
    """Trained offline, uploaded, pulled, cached: the same rows in the same columns to the last bit."""
    home = tmp_path / "multirun_outputs"
    done = run_app("train", "-m", f"experiment={CURVE}", "seed=0,1", "scale=smoke", "tracking=offline")
    assert done.returncode == 0, done.stderr
    sent = run_app("tracking", "upload", f"tracking.project={where.name}")
    assert "uploaded 2 runs" in sent.stdout, sent.stderr
    local = runs.local({"clr_3.0": home / "smoke" / CURVE})
    assert len(local.frame) > 8
    online = frame_of(where, tmp_path / "cache")
    assert online.broken == local.broken == []
    same(local.frame, online.frame)
    same(local.frame, runs.pulled(pull.cached(where, tmp_path / "cache"), HOMES, "smoke").frame)
    at = {key: info.pop("wandb") for key, info in local.info.items()}
    assert {mirrored["state"] for mirrored in at.values()} == {"uploaded"}
    pages = {key: info.pop("wandb")["url"] for key, info in online.info.items()}
    assert pages == {key: mirrored["url"] for key, mirrored in at.items()}
    assert online.info == local.info
    if READS_FILES:
        offline = runs.pulled(pull.offline(home), HOMES, "smoke")
        same(local.frame, offline.frame)
        assert offline.info == local.info


def test_figures_come_out_the_same_from_every_source(run_app, server, where, made, tmp_path):
    for seed in range(2):
        hosted(server, where, made(tmp_path / f"multirun_outputs/smoke/{CURVE}/seed{seed}", seed))
    options = ("figure=fig5a", "scale=smoke", "formats=[svg]", f"wandb.cache={tmp_path}/cache")
    options += (f"tracking.entity={where.entity}", f"tracking.project={where.name}")
    drawn = {}
    for source in ("local", "wandb", "cache"):
        done = run_app("figures", *options, f"source={source}", f"to={source}")
        assert done.returncode == 0, done.stderr
        drawn[source] = [
            (tmp_path / source / f"smoke/fig5a.{kind}").read_bytes() for kind in ("svg", "csv", "claims.csv")
        ]
    assert drawn["local"] == drawn["wandb"] == drawn["cache"]
    assert f"source=wandb tracking.entity={where.entity}" in (tmp_path / "wandb/smoke/fig5a.md").read_text()


def test_a_run_logs_live_what_its_record_says(run_app, server, where, tmp_path):
    done = run_app("train", "experiment=fig15a/wd_1e-4", "seed=2", "scale=smoke", "tracking=online",
                   f"tracking.project={where.name}", f"tracking.entity={where.entity}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "multirun_outputs/smoke/fig15a/wd_1e-4/seed2"
    info = read_info(folder)
    (run,) = server.runs(where.name).values()
    assert run.name == records.record_id(info)
    assert run.name.startswith(f"{info['fingerprint']}-1-")
    assert run.state == "finished"
    assert run.attributes["groupName"] == "fig15a/wd_1e-4"
    assert run.attributes["jobType"] == "train"
    assert run.attributes["tags"] == ["fig15a", "fig15a/wd_1e-4", "smoke", "seeds"]
    assert "seed=2" in run.attributes["notes"]
    assert run.config["schedule"]["value"]["lr"]["shape"] == "lr_range"
    assert run.config["figure"]["value"] == "fig15a"
    metrics = run.config["_wandb"]["value"]["m"]
    assert any(metric.get("1") == "lr" for metric in metrics), "the LR is the x of W&B's charts"
    assert {k: run.summary[k] for k in mirror.ending(info)} == mirror.ending(info)
    assert [row["_step"] for row in run.rows()] == list(range(len(read_history(folder))))
    found = runs.pulled(
        pull.server(where, ["fig15a/wd_1e-4"], tmp_path / "c"), {"wd_1e-4": "fig15a/wd_1e-4"}, "smoke"
    )
    same(found.frame, runs.local({"wd_1e-4": folder.parent}).frame)


def test_what_is_not_ours_is_named_and_the_rest_is_sent_once_links_followed(made, where, tmp_path, monkeypatch):
    made(tmp_path / "disk/seed0")
    shutil.copytree(tmp_path / "disk/seed0", tmp_path / "disk/copy")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/link").symlink_to(tmp_path / "disk")
    contents = {"tool": {"name": "x"}}
    for name, key in (("later", {"config": {"later": 1}}), ("cut", {"host": None})):
        info = json.loads((tmp_path / "disk/seed0/run.json").read_text())
        contents[name] = {**info, **key, "config": {**info["config"], **key.get("config", {})}}
    del contents["cut"]["host"]
    for name, content in contents.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(content))
    sent = []
    monkeypatch.setattr(upload.copies, "found", lambda project, infos: [])
    monkeypatch.setattr(upload, "_send", lambda path, info, target, staging: sent.append(path.name) or True)
    count, errors = upload.upload([tmp_path / "runs"], lambda _: where)
    assert (count, sent) == (1, ["copy"])
    cut, later, tool = errors
    assert cut == f"{tmp_path}/runs/cut: its run.json has no 'host'; it is not sent"
    assert later.startswith(
        f"{tmp_path}/runs/later: its configuration is from another version of the suite (Key 'later'"
    )
    assert tool.startswith(f"{tmp_path}/runs/tool/run.json: not a record of this suite")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"info": [], "rows": []}', '{"info": {"digest": "x"}, "rows": 3}']
)
def test_what_is_not_a_run_in_the_cache_is_not_read(where, tmp_path, content):
    place = tmp_path / pull._host(where) / where.entity / where.name
    place.mkdir(parents=True)
    (place / "run.json").write_text(content)
    assert pull.cached(where, tmp_path) == []


def test_a_run_that_is_not_ours_is_none(made, tmp_path):
    info = json.loads((made(tmp_path) / "run.json").read_text())
    summary = {"digest": info["digest"]}
    ours = {key: value for key, value in info.items() if key not in records.ENDING and key != "config"} | info[
        "config"
    ]
    assert pull._info(ours, summary, "finished")["seed"] == 0
    for wrong in ({"scale": "smoke"}, {"iterations": None}, {"schedule": 3}):
        assert pull._info({**ours, **wrong}, summary, "finished") is None
    row = {"_step": 3, "iteration": 1, "test_loss": "NaN", "picture": {"path": "x"}, "table": [1]}
    assert pull._row(row) == {"iteration": 1, "test_loss": None, "picture": None, "table": None}


def test_only_what_changed_is_pulled_again(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "seed0", 0))
    run = hosted(server, where, made(tmp_path / "seed1", 1))
    frame_of(where, tmp_path / "cache")
    pages = server.asked["HistoryPage"]
    frame_of(where, tmp_path / "cache")
    assert server.asked["HistoryPage"] == pages
    server.runs(where.name)[run.name] = hosted(server, where, made(tmp_path / "new", 1, rows=4), run.name)
    assert len(frame_of(where, tmp_path / "cache").frame.query("seed == 1")) == 4
    assert server.asked["HistoryPage"] == pages + 1
    broken = tmp_path / "cache" / pull._host(where) / where.entity / where.name / f"{run.name}.json"
    broken.write_text(broken.read_text()[:-20])
    assert len(frame_of(where, tmp_path / "cache").frame.query("seed == 1")) == 4


def test_the_newest_finished_attempt_is_drawn(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "a", started="2026-01-02T00:00:00+00:00"))
    newest = hosted(server, where, made(tmp_path / "b", change=0.25, started="2026-01-03T00:00:00+00:00"))
    hosted(server, where, made(tmp_path / "c", rows=1, started="2026-01-04T00:00:00+00:00"), state="running")
    found = frame_of(where, tmp_path / "cache")
    assert found.frame["test_accuracy"].iloc[0] == 0.25
    (note,) = found.notes
    assert note.startswith("note: clr_3.0 seed 0: 2 finished runs differ in results (")
    assert f"the newest, {newest.name}, is drawn" in note


def test_a_variant_is_a_curve_of_its_own_and_only_on_request(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "a"))
    changed = {"variant": "update=torch", "overrides": ["update=torch"], "fingerprint": "another"}
    hosted(server, where, made(tmp_path / "b", change=0.25, started="2036-01-01T00:00:00+00:00", **changed))
    assert set(frame_of(where, tmp_path / "cache").frame["curve"]) == {"clr_3.0"}
    every = runs.pulled(pull.server(where, [CURVE], tmp_path / "cache"), HOMES, "smoke", variants=True)
    assert set(every.frame["curve"]) == {"clr_3.0", "clr_3.0, update=torch"}


def test_a_run_still_running_is_shown_as_such_and_not_cached(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "a"), state="running")
    assert set(frame_of(where, tmp_path / "cache").frame["status"]) == {"running"}
    assert not list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize(
    "fault",
    [
        failing("HistoryPage", 500, 2),
        failing("Runs", 500, 1),
        failing("HistoryPage", 429, 1, [("RateLimit-Reset", "1"), ("RateLimit-Remaining", "0")]),
        cutting("HistoryPage"),
        cutting("Runs"),
    ],
    ids=["500 on a page", "500 on the list", "429 with reset", "cut page", "cut list"],
)
def test_a_server_that_stumbles_costs_time_alone(server, where, made, tmp_path, fault):
    hosted(server, where, made(tmp_path / "seed0", 0))
    server.faults = [fault]
    found = frame_of(where, tmp_path / "cache")
    assert found.broken == []
    same(found.frame, runs.local({"clr_3.0": tmp_path}).frame)


def on_pages(change):
    def changed(answer):
        lines = answer["data"]["project"]["run"]["history"]
        return {"data": {"project": {"run": {"history": change(lines)}}}}

    return changing("HistoryPage", changed)


def test_duplicate_and_reordered_rows_are_put_right(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "seed0", rows=5))
    server.faults = [on_pages(lambda lines: [*lines[::-1], lines[2]])]
    same(frame_of(where, tmp_path / "cache").frame, runs.local({"clr_3.0": tmp_path}).frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "it has 2 rows, and the run recorded 3"),
        (
            lambda lines: [line.replace('"lr": 0.1,', '"lr": 0.2,') for line in lines],
            "have other values than the run recorded",
        ),
        (lambda lines: [], "it has 0 rows, and the run recorded 3"),
    ],
)
def test_a_history_that_is_not_whole_is_never_drawn(server, where, made, tmp_path, change, message):
    hosted(server, where, made(tmp_path / "seed0"))
    server.faults = [on_pages(change)]
    found = frame_of(where, tmp_path / "cache")
    assert found.frame.empty
    assert len(found.broken) == 1
    assert message in found.broken[0]
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_nan_infinity_and_unicode(server, where, made, tmp_path):
    run = hosted(server, where, made(tmp_path / "seed0"))
    run.attributes["displayName"] = "Überkonvergenz 超收敛"
    run.config["scale"]["value"]["note"] = "naïve – ½"
    del run.summary["digest"]  # a run of someone else's hand
    run.history = {
        i: json.dumps({**json.loads(line), "train_loss": value})
        for (i, line), value in zip(run.history.items(), ("NaN", "Infinity", "-Infinity"), strict=True)
    }
    found = frame_of(where, tmp_path / "cache")
    assert found.frame["train_loss"].isna().all()
    assert len(found.frame) == 3
    assert found.info["clr_3.0", 0]["config"]["scale"]["note"] == "naïve – ½"


def test_a_history_of_20000_rows(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "seed0", rows=20_000))
    same(frame_of(where, tmp_path / "cache").frame, runs.local({"clr_3.0": tmp_path}).frame)


def test_80_runs_among_2000(server, where, made, tmp_path):
    first = hosted(server, where, made(tmp_path / "seed0", rows=2))
    for number in range(1, 2000):
        other = wandb_server.Run(where.entity, where.name, f"run{number}")
        seed = {"value": number // 25}
        other.config = {**first.config, "curve": {"value": CURVE if number % 25 == 0 else "fig8a/x"}, "seed": seed}
        other.summary, other.history, other.state = first.summary, first.history, "finished"
        server.add(other)
    found = frame_of(where, tmp_path / "cache")
    assert len(found.info) == 80
    assert found.broken == []
    pages = server.asked["Runs"]
    assert frame_of(where, tmp_path / "cache").info == found.info
    assert server.asked["Runs"] == pages + 1, "the server filters, so one page is enough"


def test_nothing_to_draw_says_which_filter_found_how_many(run_app, server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "seed0"))
    options = ("figures", "figure=fig5a", f"tracking.project={where.name}", "source=wandb")
    none = run_app(*options, "scale=demo")
    assert none.returncode == 1
    assert (
        f"no runs at scale demo in {where.name} (1 run found, 1 of its curves, 0 of them at scale demo"
        in none.stderr
    )
    assert len(said(none)) == 1


def test_the_former_spelling_of_a_place_works_with_a_note(run_app, server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "seed0"))
    drawn = run_app("figures", "figure=fig5a", f"wandb.project={where.name}", "source=wandb", "scale=demo")
    assert f"no runs at scale demo in {where.name} (1 run found" in drawn.stderr
    assert "note: wandb.project is tracking.project now, as in training" in drawn.stderr
    sent = run_app("tracking", "upload", "--project", where.name, str(tmp_path))
    assert "note: --project is tracking.project= now, as in training" in sent.stderr
    assert sent.returncode == 0


def test_another_protocol_version_is_named_and_left_out(server, where, made, tmp_path):
    hosted(server, where, made(tmp_path / "seed0", 0))
    hosted(server, where, made(tmp_path / "seed1", 1, protocol=0))
    found = frame_of(where, tmp_path / "cache")
    assert set(found.frame["seed"]) == {0}
    assert found.broken == [
        "1 of 2 runs have protocol version 0 and are excluded: this is version 1; train them again"
    ]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (
            ["source=wandb", "tracking.project=none-such"],
            {},
            "tracking.project=none-such: smith has no such project on http://",
        ),
        (
            ["source=wandb", "tracking.entity=nobody"],
            {},
            "tracking.project=disciplined-repro: nobody has no such project",
        ),
        (["source=wandb"], {"WANDB_API_KEY": ""}, "no W&B API key for http://"),
        (["source=wandb"], {"WANDB_API_KEY": "short"}, "API key"),
        (["source=wandb"], {"WANDB_API_KEY": "x" * 40}, "W&B, disciplined-repro on http://"),
        (
            ["source=wandb"],
            {"WANDB_BASE_URL": "http://127.0.0.1:9"},
            "W&B, disciplined-repro on http://127.0.0.1:9:",
        ),
        (["source=cache", "tracking.project=never"], {}, "source=cache: no runs of never in"),
        (["source=offline", "path=/nowhere"], {}, "path=/nowhere: no W&B files"),
    ],
    ids=["project", "entity", "no key", "short key", "wrong key", "no server", "empty cache", "no files"],
)
def test_bad_input_is_one_line(run_app, server, tmp_path, arguments, environment, message):
    done = run_app(
        "figures", "figure=fig5a", "scale=smoke", *arguments, XDG_CACHE_HOME=str(tmp_path), **environment
    )
    assert done.returncode == 1
    assert message in done.stderr
    (line,) = said(done)
    assert line.startswith("error: ")


@pytest.mark.parametrize("fault", ["bad key", "no server", "no folder"])
def test_a_failure_of_wandb_costs_no_training(run_app, server, where, tmp_path, fault):
    """Reported once; the record is whole; what is missing there can be uploaded."""
    environment = {"bad key": {"WANDB_API_KEY": "x" * 40}, "no server": {"WANDB_BASE_URL": "http://127.0.0.1:9"}}
    options = ["-m", f"experiment={CURVE}", "seed=0,1", "scale=smoke", "tracking=online", "workers=1"]
    folder = tmp_path / f"multirun_outputs/smoke/{CURVE}"
    if fault == "no folder":
        for seed in (0, 1):
            (folder / f"seed{seed}").mkdir(parents=True)
            (folder / f"seed{seed}/wandb").write_text("a file where wandb wants its folder")
    done = run_app("train", *options, f"tracking.project={where.name}", "tracking.patience=3",
                   **environment.get(fault, {}))  # fmt: skip
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        info = read_info(folder / f"seed{seed}")
        assert info["status"] == "finished"
        assert records.broken(info, read_history(folder / f"seed{seed}")) is None
        assert (info["wandb"]["mode"], info["wandb"]["state"]) == ("online", "failed")
        assert info["wandb"]["reason"]
    assert "W&B: 0 of 2 runs mirrored; 2 failed (" in done.stderr
    assert "upload later with python -m repro.tracking upload multirun_outputs" in done.stderr
    logged = "".join((folder / f"seed{seed}/train.log").read_text() for seed in (0, 1))
    reports = re.findall("W&B (?:failed|has not responded).*", logged)
    assert len(reports) == (2 if fault == "no folder" else 1), logged
    later = rf"python -m repro.tracking upload \S*multirun_outputs/smoke/{CURVE}/seed\d sends it later$"
    assert all(re.search(later, report) for report in reports), reports
    if fault == "bad key":
        assert upload.upload([tmp_path / "multirun_outputs"], lambda _: where) == (2, [])
        assert {read_info(folder / f"seed{seed}")["wandb"]["state"] for seed in (0, 1)} == {"uploaded"}


@pytest.mark.parametrize(("status", "reason"), [(404, "it has 0 of 3 rows"), (500, "")])
def test_rows_that_a_server_does_not_take_are_a_failure(
    server, where, made, tmp_path, caplog, monkeypatch, status, reason
):
    """wandb's client drops them: without a word where they are refused, after a long time where a server is in trouble."""
    monkeypatch.setattr(mirror.silent, "value", 0)
    server.faults = [failing("file_stream", status, 10**6)]
    info = read_info(made(tmp_path))
    info["config"]["tracking"] |= {"mode": "online", "project": where.name, "patience": 20.0 if reason else 3.0}
    mirrored = mirror.Mirror(info, tmp_path)
    for row in read_history(tmp_path):
        mirrored.row(row)
    mirrored.finish(info)
    assert mirrored.outcome["state"] == "failed"
    assert reason in mirrored.outcome["reason"]
    assert caplog.text.count(f"python -m repro.tracking upload {tmp_path} sends it later") == 1
    assert mirror.silent.value == 1


def test_online_without_a_key_trains_nothing(run_app, server, tmp_path):
    command = ("train", "-m", f"experiment={CURVE}", "seed=0,1", "scale=smoke", "tracking=online")
    done = run_app(*command, WANDB_API_KEY="")
    assert done.returncode == 1
    (line,) = said(done)
    assert line.startswith("error: none of the 2 runs could train: tracking=online: no W&B API key for http://")
    assert not list(tmp_path.rglob("history.jsonl"))


def processes_below(pid):
    """The processes that one has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for_end(pid):
    """Wait until a process writes no more: it is gone, or nobody has asked for its end yet."""
    with contextlib.suppress(OSError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.05)


@pytest.fixture(scope="module")
def offline_of_an_unfinished_run(resolved, tmp_path_factory):
    """Most of what wandb wrote of 400 rows, and the rows."""
    folder = tmp_path_factory.mktemp("offline")
    record = Record(folder, resolved(f"experiment={CURVE}", "scale=smoke"), {"python": "3", "device": "cpu"})
    mirrored = mirror.Mirror(record.info, folder)
    for i in range(400):
        record.append(dict.fromkeys(runs.VALUES, 0.1 + i) | {"iteration": 2 * i})
        mirrored.row(record.rows[-1])
    record.finish("finished")
    mirrored.finish(record.info)
    (path,) = folder.rglob("*.wandb")
    written = path.read_bytes()
    return written[: len(written) * 4 // 5], record.rows


@reads_files
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to find wandb's process in")
def test_offline_files_of_a_killed_run_and_a_cut_file(tmp_path):
    command = [sys.executable, "-m", "repro.train", f"experiment={CURVE}", "scale=smoke", "iterations=10000000"]
    command += ["scale.tests=100000", "tracking=offline"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = tmp_path / f"multirun_outputs/smoke/{CURVE}/iterations=10000000,scale.tests=100000/seed0"
    deadline = time.monotonic() + 120
    path = None
    while time.monotonic() < deadline and not (path and path.stat().st_size > 20_000):  # some rows are in it
        time.sleep(0.1)
        path = next(iter(folder.glob("wandb/offline-run-*/*.wandb")), None)
    writers = processes_below(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pid in writers:
        wait_for_end(pid)
    history = read_history(folder)

    def read():
        found = runs.pulled(pull.offline(tmp_path), {"a": CURVE}, "smoke", variants=True)
        length = len(found.frame)
        assert set(found.frame["status"]) == {"incomplete"}
        assert list(found.frame["iteration"]) == [row["iteration"] for row in history[:length]]
        assert list(found.frame["test_loss"]) == [row["test_loss"] for row in history[:length]]
        return length, found.notes

    length, notes = read()
    assert length > 5
    assert notes == []
    whole = path.read_bytes()
    os.truncate(path, len(whole) * 2 // 3)
    cut, _ = read()
    assert 5 < cut < length


@reads_files
@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [(40_000, 41_000, "of {last} rows number {next} is missing"), (-500, None, "damaged after row number {kept}")],
    ids=["zeroed block", "zeroed end"],
)
def test_a_hole_in_an_offline_file_ends_its_rows(offline_of_an_unfinished_run, tmp_path, begin, end, said):
    whole, history = offline_of_an_unfinished_run
    damaged = bytearray(whole)
    damaged[begin:end] = bytes(len(damaged[begin:end]))
    (tmp_path / "run.wandb").write_bytes(damaged)
    run = pull.offline_file(tmp_path / "run.wandb")
    rows = run.rows()
    assert run.info["status"] == "incomplete"
    assert 20 < len(rows) < len(history)
    assert rows == [{k: v for k, v in row.items() if v is not None} for row in history[: len(rows)]]
    (note,) = run.notes
    last = re.search("of ([0-9]+) rows", note)
    words = said.format(kept=len(rows), next=len(rows) + 1, last=last and last[1])
    assert note == f"note: {tmp_path}/run.wandb: {words}; it is drawn up to there"


def test_a_record_that_was_never_finished_is_not_uploaded(server, where, made, tmp_path, capsys):
    made(tmp_path / "seed0", status="interrupted")
    assert upload.upload([tmp_path], lambda _: where) == (0, [])
    assert "1 unfinished runs are skipped" in capsys.readouterr().out


def test_the_digest_tells_histories_apart(made, tmp_path):
    a, b = (read_history(made(tmp_path / name, change=change)) for name, change in (("a", 0.0), ("b", 1e-16)))
    assert records.digest(a) != records.digest(b)
    assert records.digest(a) == records.digest([{**row, "images_per_second": 9.0} for row in a])
    assert math.isclose(a[1]["test_accuracy"], b[1]["test_accuracy"])


def test_a_hand_without_runs_is_one_line(run_app):
    done = run_app("tracking", "upload", "nowhere")
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: nowhere: no such folder; run this where the runs were started, or give their folder\n"
    )


def test_a_project_that_is_not_there_yet_takes_an_upload(server, where, made, tmp_path):
    made(tmp_path / "seed0")
    with pytest.raises(ReproError, match="has no such project"):
        frame_of(where, tmp_path / "cache")
    assert upload.upload([tmp_path], lambda _: where) == (1, [])


def test_a_saved_view_a_figure(run_app, server, where):
    pytest.importorskip("wandb_workspaces", reason="the extra 'workspaces' is not installed")
    server.views.clear()
    done = run_app("tracking", "workspace", "fig15a", "fig5a", "--scale=demo", "--project", where.name)
    assert done.returncode == 0, done.stderr
    first, second = server.views
    assert first["displayName"].endswith("at demo scale")
    panels = json.loads(first["spec"])["section"]["panelBankConfig"]["sections"][0]["panels"]
    assert panels[0]["config"]["xAxis"] == "lr"
    assert panels[0]["config"]["metrics"] == ["test_loss"]
    assert {panel["config"]["groupBy"] for panel in panels} == {"curve.value"}
    assert "fig15a/wd_1e-4" in first["spec"]
    assert all(f'"{word}"' in first["spec"] for word in ("variant", "superseded", "finished", "running"))
    assert '"xAxis":"iteration"' in second["spec"]
    assert done.stdout.count("http") == 2


def test_a_saved_view_says_what_it_needs(run_app, server, tmp_path):
    unknown = run_app("tracking", "workspace", "fig99")
    assert "error: no figure fig99; choose from fig10a," in unknown.stderr
    (tmp_path / "wandb_workspaces.py").write_text("raise ImportError('there is no wandb_workspaces here')")
    missing = run_app("tracking", "workspace")
    assert "need the package wandb-workspaces (pip install" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1


def test_a_figure_is_an_artifact_on_request(run_app, server, where, made, tmp_path):
    for seed in range(2):
        made(tmp_path / f"multirun_outputs/smoke/{CURVE}/seed{seed}", seed)
    server.files.clear()
    done = run_app(
        "figures", "figure=fig5a", "scale=smoke", "wandb.artifact=true", f"tracking.project={where.name}"
    )
    assert done.returncode == 0, done.stderr
    assert server.artifacts[-1]["artifactCollectionName"] == "fig5a-smoke"
    for kind in ("png", "csv"):
        sent = server.files[f"artifact/fig5a.{kind}"]
        assert sent == (tmp_path / f"paper_figures/smoke/fig5a.{kind}").read_bytes()
    assert f"{where.name}/runs/" in done.stdout


@reads_files
def test_an_offline_file_that_is_not_whole_is_reported(resolved, tmp_path, monkeypatch, caplog):
    """A full disk: wandb itself says nothing."""
    from repro.training import lifecycle

    finish = mirror.started

    @contextlib.contextmanager
    def cut(*arguments):
        with finish(*arguments) as run:
            yield run
        os.truncate(run.settings.sync_file, os.path.getsize(run.settings.sync_file) // 2)

    monkeypatch.setattr(mirror, "started", cut)
    monkeypatch.setattr(mirror, "SETTLE", 0.2)
    lifecycle.run(resolved(f"experiment={CURVE}", "scale=smoke"), tmp_path)
    assert "is incomplete; is the disk full?" in caplog.text
    assert read_info(tmp_path)["status"] == "finished"


@reads_files
def test_an_offline_file_without_a_readable_run_is_named(offline_of_an_unfinished_run, tmp_path, capsys):
    written, _ = offline_of_an_unfinished_run
    for name, content in (("a", written), ("b", written[:400]), ("c", b"no run")):
        (tmp_path / f"run-{name}.wandb").write_bytes(content)
    (run,) = pull.offline(tmp_path)
    assert run.name == f"{tmp_path}/run-a.wandb"
    line = f"note: {tmp_path}/run-b.wandb and 1 more: no run of this suite can be read there; skipped\n"
    assert capsys.readouterr().err == line


@reads_files
def test_an_offline_file_that_wandb_still_writes_is_waited_for(made, tmp_path):
    """wandb's core writes the end of its file after it has finished the run."""
    info = read_info(made(tmp_path / "run"))
    with mirror.started(info, tmp_path, find_project(), online=False) as run:
        run.summary.update(mirror.ending(info))
    path = Path(run.settings.sync_file)
    mirror._require_end(path, info, seconds=10)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    threading.Timer(0.2, path.write_bytes, [whole]).start()
    mirror._require_end(path, info, seconds=10)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="is incomplete; is the disk full"):
        mirror._require_end(path, info, seconds=0)


@pytest.mark.parametrize(
    ("figure", "x"),
    [("fig5a", "iteration"), ("fig13a", "lr"), ("fig7b", "momentum"), ("of-ones-own", "iteration")],
)
def test_wandbs_charts_have_the_figures_axis(figure, x):
    assert mirror.x_axis(figure) == x
