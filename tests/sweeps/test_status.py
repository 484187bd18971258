"""Where every run stands, read from the records."""

import json
from pathlib import Path

import pytest
from test_figures import write_run

from repro import records
from repro.records import lock, queued
from repro.records.history import digest
from repro.sweeps import states


def test_every_state_has_its_name(tmp_path, resolved):
    rows = [(0, 0.1), (2, 0.2)]
    for name in ("finished", "diverged", "failed", "interrupted", "running"):
        write_run(tmp_path / name / "seed0", rows, status=name, host="node7", reason="no room")
    config = resolved("experiment=fig5b/wd_1e-3", "scale=demo")
    missing = states.describe_run(tmp_path / "nothing", config)
    assert (missing["state"], missing["iterations"]) == ("missing", config.iterations)
    for name in ("finished", "diverged", "failed", "interrupted"):
        assert states.describe_run(tmp_path / name / "seed0")["state"] == name
    assert states.describe_run(tmp_path / "failed/seed0")["reason"] == "no room"
    running = tmp_path / "running/seed0"
    assert states.describe_run(running)["state"] == "stopped"  # nobody holds it: it died without saying so
    with lock.locked(running):
        now = states.describe_run(running)
    assert (now["state"], now["iteration"], now["iterations"], now["host"]) == ("running", 2, 4, "node7")
    assert now["seconds_left"] == (4 - 2) * 10 / 5.0
    (running / "run.json").write_text("{")
    assert states.describe_run(running)["state"] == "broken"


def test_a_run_that_fell_back_says_so(tmp_path):
    write_run(
        tmp_path / "run", [(0, 0.1)], status="finished", step="plain", fallback="engine.compile does not work here"
    )
    row = states.describe_run(tmp_path / "run")
    assert (row["state"], row["step"], row["reason"]) == ("finished", "plain", "engine.compile does not work here")
    table = states.build_table([row])
    assert [list(column.cells) for column in table.columns if column.header == "step"] == [["plain"]]


def test_what_became_of_the_mirror_is_shown(tmp_path):
    mirror = {"mode": "online", "id": "x", "state": "failed", "reason": "no answer", "url": "https://wandb/runs/x"}
    write_run(tmp_path / "run", [(0, 0.1)], status="finished", wandb=mirror)
    row = states.describe_run(tmp_path / "run")
    assert (row["wandb"], row["url"], row["reason"]) == ("failed", "https://wandb/runs/x", "W&B: no answer")
    assert [list(c.cells) for c in states.build_table([row]).columns if c.header == "W&B"] == [["failed"]]


def test_a_record_of_other_values_is_named_as_such(tmp_path, resolved):
    then = resolved("experiment=fig8b/tbs256", "scale=demo", "schedule.lr.base_lr=0.04")
    now = resolved("experiment=fig8b/tbs256", "scale=demo")
    record = records.Record(tmp_path, then, {})
    record.finish("finished")
    row = states.describe_run(tmp_path, now)
    assert row["state"] == "outdated"
    assert row["reason"].startswith("schedule.lr: {'shape': 'onecycle', 'base_lr': 0.04,")
    assert states.describe_run(tmp_path, then)["state"] == states.describe_run(tmp_path)["state"] == "finished"


BRACKETS = "[/red] no room in [bold]/tmp[/bold] :smile:"


@pytest.mark.parametrize("mode", ["table", "json", "watch"])
def test_what_a_record_says_is_printed_as_it_is(tmp_path, capsys, monkeypatch, mode):
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.chdir(tmp_path)  # a short path is not wrapped
    write_run(Path("x/[a]/seed0"), [(0, 0.1)], status="finished", reason=BRACKETS)
    states.print_states([(Path("x/[a]/seed0"), None)], mode)
    printed = "".join(part.strip("│┃ ") for part in capsys.readouterr().out.split())
    assert BRACKETS.replace(" ", "") in printed
    assert "/[a]/seed0" in printed


def test_a_record_that_is_not_ours_is_broken_and_stops_nothing(tmp_path, capsys):
    write_run(tmp_path / "ours/seed0", [(0, 0.1)])
    for name, content in {"tool": {"name": "x"}, "list": [1], "rows": {}}.items():
        write_run(tmp_path / f"{name}/seed0", [(0, 0.1)])
        if name == "rows":
            (tmp_path / "rows/seed0/history.jsonl").write_text('[]\n"row"\n')
        else:
            (tmp_path / f"{name}/seed0/run.json").write_text(json.dumps(content))
    runs = [(tmp_path / name / "seed0", None) for name in ("ours", "tool", "list", "rows")]
    assert [row["state"] for row in states.describe_runs(runs)] == ["finished", "broken", "broken", "finished"]
    assert "not a record of this suite" in states.describe_runs(runs)[1]["reason"]
    states.print_states(runs, "table")
    assert "4 runs: 2 broken, 2 finished" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, None])
def test_a_finished_run_whose_history_was_damaged_is_broken(tmp_path, damage):
    folder = tmp_path / "seed0"
    write_run(folder, [(2, 0.5), (4, 0.5)])
    info = json.loads((folder / "run.json").read_text())
    history = folder / "history.jsonl"
    rows = records.read_history(folder)
    (folder / "run.json").write_text(json.dumps({**info, "rows": len(rows), "digest": digest(rows)}))
    assert states.describe_run(folder)["state"] == "finished"
    history.write_bytes(history.read_bytes().splitlines(True)[0] if damage is None else damage)
    row = states.describe_run(folder)
    assert row["state"] == "broken"
    assert "history.jsonl" in row["reason"]


def test_a_sweep_lists_its_missing_runs(tmp_path, run_app):
    write_run(tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3/seed0", [(0, 0.1), (4, 0.2)])
    done = run_app("status", "sweep=fig5b", "scale=demo", "seed=0", "--json")
    assert done.returncode == 0, done.stderr
    states = {row["run"].split("demo/")[1]: row["state"] for row in json.loads(done.stdout)}
    assert states.pop("fig5b/wd_1e-3/seed0") == "finished"
    assert set(states.values()) == {"missing"}
    assert "fig5a/clr_3.0/seed0" in states
    assert not list(tmp_path.rglob("train.log"))


def test_a_run_whose_lock_is_not_seen_runs_while_its_job_does(tmp_path, monkeypatch):
    folder = tmp_path / "seed0"
    write_run(folder, [(0, 0.1)], status="running")
    queued.write(folder, queued.Submitted(engine="slurm", id="7", log="log"))
    for state, expected in (("RUNNING", "running"), ("PENDING", "queued"), (None, "stopped")):
        monkeypatch.setattr(queued, "in_queue", lambda state=state: {"7": state} if state else {})
        assert [row["state"] for row in states.describe_runs([(folder, None)])] == [expected]


def test_alone_it_lists_what_waits_too_and_not_what_was_moved_aside(tmp_path, run_app):
    home = tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3"
    write_run(home / "seed0", [(0, 0.1), (4, 0.2)])
    write_run(home / "seed0/earlier-1", [(0, 0.1), (4, 0.2)])
    queued.write(home / "seed1", queued.Submitted(engine="slurm", id="7", log="log"))
    done = run_app("status", "--json")
    rows = json.loads(done.stdout)
    assert [(row["run"].rpartition("/")[2], row["state"], row["job"]) for row in rows] == [
        ("seed0", "finished", None),
        ("seed1", "missing", "7"),
    ]


def test_alone_it_lists_what_is_there(tmp_path, run_app):
    write_run(tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3/seed0", [(0, 0.1), (4, 0.2)])
    done = run_app("status")
    assert "1 run: 1 finished" in done.stdout
    assert "fig5b/wd_1e-3/seed0" in done.stdout
    (tmp_path / "disk").mkdir()
    (tmp_path / "multirun_outputs").rename(tmp_path / "disk/runs")
    (tmp_path / "multirun_outputs").symlink_to(tmp_path / "disk")
    assert "1 run: 1 finished" in run_app("status").stdout
    (tmp_path / "disk").rename(tmp_path / "a b (1)")
    for output in ("output='a b (1)/runs'", "output=a b (1)/runs"):  # as Hydra reads it, and as typed
        assert "1 run: 1 finished" in run_app("status", output).stdout
    missing = run_app("status", "output=elsewhere")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: output=elsewhere: no such folder")
