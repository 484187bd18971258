"""Sweeps on a real Slurm: jobs that are killed, cancelled, queued again and preempted; a controller, a node lost.

``make test-clusters`` starts the Slurm (``slurm.sh``) and runs this beside it.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import launching
import pytest
from launching import SMALL, ended, records, train, wait_for, wait_for_rows

pytestmark = pytest.mark.skipif("TEST_CLUSTER" not in os.environ, reason="needs a Slurm: make test-clusters")

LONG = [*SMALL, "scale=demo", "iterations=60_000", "checkpoint_iterations=20"]  # tens of seconds
SLURM = ["hydra/launcher=slurm-cpu", "hydra.launcher.mem_gb=1"]


def start(tmp_path, *arguments):
    return launching.start(tmp_path, *SLURM, *arguments)


def folder(tmp_path, seed):
    return next((tmp_path / "multirun_outputs").glob(f"*/fig8b/tbs512/**/seed{seed}"))


def job_of(tmp_path, seed):
    return json.loads((folder(tmp_path, seed) / "job.json").read_text())


def slurm(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def start_now(id):
    """A job that is queued again would wait for two minutes."""
    wait_for(lambda: "PENDING" in slurm("squeue", "-h", "-j", id, "-o", "%T"))
    slurm("scontrol", "update", f"JobId={id}", "StartTime=now")


def test_the_bits_are_those_of_a_local_sweep_and_lie_where_it_was_launched(tmp_path):
    code, out, error = ended(
        start(tmp_path, *SMALL, "scale=smoke", "seed=range(16)", "hydra.launcher.runs_per_job=4")
    )
    assert code == 0, error
    assert "16 runs are 4 Slurm jobs" in out
    local = train(*SMALL, "scale=smoke", "seed=range(16)", "output=local")
    subprocess.run(local, cwd=tmp_path, check=True, capture_output=True)
    on_slurm, here = records(tmp_path), records(tmp_path, "local")
    assert sorted(on_slurm) == sorted(here) == list(range(16))
    assert [on_slurm[seed]["digest"] for seed in range(16)] == [here[seed]["digest"] for seed in range(16)]


def test_a_sweep_may_be_launched_from_a_job_that_has_asked_for_other_memory(tmp_path):
    command = shlex.join(train(*SLURM, *SMALL, "scale=smoke", "seed=0,1"))
    said = tmp_path / "said"
    options = ["--wait", "--mem-per-cpu=500", f"--chdir={tmp_path}", f"--output={said}", f"--wrap={command}"]
    done = subprocess.run(["sbatch", *options], capture_output=True, text=True)
    assert done.returncode == 0, said.read_text()
    assert {seed: info["status"] for seed, info in records(tmp_path).items()} == {0: "finished", 1: "finished"}


def test_every_job_is_collected_and_every_failed_run_named(tmp_path):
    sweep = start(tmp_path, *LONG, "seed=range(4)")
    wait_for_rows(sweep, tmp_path, 0, 1, 2, 3)
    killed, cancelled, again = (job_of(tmp_path, seed) for seed in (1, 2, 3))
    os.kill(records(tmp_path)[1]["pid"], signal.SIGKILL)
    slurm("scancel", cancelled["id"])
    slurm("scontrol", "requeue", again["id"])
    start_now(again["id"])
    code, _, error = ended(sweep)
    assert code == 1
    assert "2 of 4 runs failed" in error
    (of_killed,) = [line for line in error.splitlines() if re.match(r".*seed1:", line)]
    (of_cancelled,) = [line for line in error.splitlines() if re.match(r".*seed2:", line)]
    assert f"its process died (Slurm job {killed['id']}: FAILED, exit code" in of_killed
    assert f"Slurm job {cancelled['id']}: CANCELLED" in of_cancelled
    assert Path(killed["log"]).exists()
    assert killed["log"] in of_killed
    states = {seed: info["status"] for seed, info in records(tmp_path).items()}
    assert (states[0], states[3]) == ("finished", "finished")
    assert "resuming after iteration" in (folder(tmp_path, 3) / "train.log").read_text()
    code, out, error = ended(start(tmp_path, *LONG, "seed=range(4)"))
    assert code == 0, error
    assert "2 of 4 runs are finished already" in out
    local = train(*LONG, "seed=1,2,3", "output=local")
    subprocess.run(local, cwd=tmp_path, check=True, capture_output=True)
    here, there = records(tmp_path, "local"), records(tmp_path)
    assert {s: here[s]["digest"] for s in (1, 2, 3)} == {s: there[s]["digest"] for s in (1, 2, 3)}


def test_launching_again_waits_for_jobs_that_live_and_ctrl_c_says_which_do(tmp_path):
    longer = [*LONG, "iterations=120_000", "seed=0,1"]  # than another command takes to start
    sweep = start(tmp_path, *longer)
    wait_for_rows(sweep, tmp_path, 0, 1)
    status = [sys.executable, "-m", "repro.status", "--json"]
    rows = json.loads(subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    assert [(row["state"], row["job"]) for row in rows] == [("running", job_of(tmp_path, k)["id"]) for k in (0, 1)]
    sweep.send_signal(signal.SIGINT)
    _, _, error = ended(sweep)
    ids = [job_of(tmp_path, seed)["id"] for seed in (0, 1)]
    assert f"2 Slurm jobs are still queued or running: {' '.join(ids)}" in error
    assert f"scancel {ids[0].partition('_')[0]}" in error
    code, out, error = ended(start(tmp_path, *longer))
    assert code == 0, error
    assert "2 of 2 runs have jobs that are queued or running; waiting for them" in out
    assert [job_of(tmp_path, seed)["id"] for seed in (0, 1)] == ids
    assert {info["attempt"] for info in records(tmp_path).values()} == {1}


def test_a_preempted_job_and_a_controller_that_is_restarted(tmp_path):
    sweep = start(tmp_path, *LONG, "seed=0,1", "hydra.launcher.cpus_per_task=2")
    wait_for_rows(sweep, tmp_path, 0, 1)
    urgent = slurm(
        "sbatch", "--parsable", "-p", "urgent", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 2"
    ).strip()
    status = [sys.executable, "-m", "repro.status", "--json"]

    def queued():
        rows = json.loads(subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
        return [row["job"] for row in rows if row["state"] == "queued"]

    wait_for(queued)
    (preempted,) = queued()
    wait_for(lambda: urgent not in slurm("squeue", "-h", "-o", "%i"))
    subprocess.run(["pkill", "-x", "slurmctld"], check=True)
    time.sleep(3)
    subprocess.Popen(["slurmctld", "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0)
    wait_for(lambda: preempted in slurm("squeue", "-h", "-r", "-o", "%i"))
    start_now(preempted)
    code, _, error = ended(sweep)
    assert code == 0, error
    assert sorted(info["attempt"] for info in records(tmp_path).values()) == [1, 2]


def test_a_run_whose_node_is_lost_goes_on_when_it_is_back(tmp_path):
    sweep = start(tmp_path, *LONG, "seed=0")
    wait_for_rows(sweep, tmp_path, 0)
    id = job_of(tmp_path, 0)["id"]
    subprocess.run(["pkill", "-KILL", "-x", "slurmd"], check=True)
    subprocess.run(["pkill", "-KILL", "-f", "slurmstepd"], check=True)
    os.kill(records(tmp_path)[0]["pid"], signal.SIGKILL)
    subprocess.run(
        ["scontrol", "update", f"NodeName={os.uname().nodename}", "State=DOWN", "Reason=lost"], check=True
    )
    subprocess.Popen(["slurmd", "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: "PENDING" in slurm("squeue", "-h", "-r", "-j", id, "-o", "%T"))
    subprocess.run(["scontrol", "update", f"NodeName={os.uname().nodename}", "State=RESUME"])  # unless it is back
    slurm("scontrol", "update", f"JobId={id}", "StartTime=now")
    code, _, error = ended(sweep)
    assert code == 0, error
    assert records(tmp_path)[0]["attempt"] == 2
