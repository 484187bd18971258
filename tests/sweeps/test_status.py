"""Where every run stands, read from the records."""

import json

from test_figures import write_run

from repro import records
from repro.records import lock
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


def test_a_record_of_other_values_is_named_as_such(tmp_path, resolved):
    then = resolved("experiment=fig8b/tbs256", "scale=demo", "schedule.lr.base_lr=0.04")
    now = resolved("experiment=fig8b/tbs256", "scale=demo")
    record = records.Record(tmp_path, then, {})
    record.finish("finished")
    row = states.describe_run(tmp_path, now)
    assert row["state"] == "outdated"
    assert row["reason"].startswith("schedule.lr: {'shape': 'onecycle', 'base_lr': 0.04,")
    assert states.describe_run(tmp_path, then)["state"] == states.describe_run(tmp_path)["state"] == "finished"


def test_a_sweep_lists_its_missing_runs(tmp_path, run_app):
    write_run(tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3/seed0", [(0, 0.1), (4, 0.2)])
    done = run_app("status", "sweep=fig5b", "scale=demo", "seed=0", "--json")
    assert done.returncode == 0, done.stderr
    states = {row["run"].split("demo/")[1]: row["state"] for row in json.loads(done.stdout)}
    assert states.pop("fig5b/wd_1e-3/seed0") == "finished"
    assert set(states.values()) == {"missing"}
    assert "fig5a/clr_3.0/seed0" in states
    assert not list(tmp_path.rglob("train.log"))


def test_alone_it_lists_what_is_there(tmp_path, run_app):
    write_run(tmp_path / "multirun_outputs/demo/fig5b/wd_1e-3/seed0", [(0, 0.1), (4, 0.2)])
    done = run_app("status")
    assert "1 runs: 1 finished" in done.stdout
    assert "fig5b/wd_1e-3/seed0" in done.stdout
    missing = run_app("status", "output=elsewhere")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: output=elsewhere: no such folder")
