"""Sweeps on a Ray of two nodes: workers that are told to end or killed, a lack of requested resources.

``make test-clusters`` starts the cluster (``ray.sh``) and runs this beside it.
"""

import os
import signal

import pytest
from launching import SMALL, ended, records, start, wait_for_rows

pytestmark = pytest.mark.skipif("RAY_ADDRESS" not in os.environ, reason="needs a Ray: make test-clusters")

LONG = [*SMALL, "scale=demo", "iterations=30_000", "checkpoint_iterations=20"]  # tens of seconds
CPUS = ["hydra/launcher=ray", "hydra.launcher.ray.remote.num_gpus=0", "hydra.launcher.ray.remote.num_cpus=1"]


def test_the_bits_are_those_of_a_local_sweep_and_lie_where_it_was_launched(tmp_path):
    code, _, error = ended(start(tmp_path, *CPUS, *SMALL, "scale=smoke", "seed=range(16)"))
    assert code == 0, error
    code, _, error = ended(start(tmp_path, *SMALL, "scale=smoke", "seed=range(16)", "output=local"))
    assert code == 0, error
    there, here = records(tmp_path), records(tmp_path, "local")
    assert sorted(there) == sorted(here) == list(range(16))
    assert [there[seed]["digest"] for seed in range(16)] == [here[seed]["digest"] for seed in range(16)]


def test_a_worker_that_ends_or_dies_is_tried_again_and_a_failed_run_fails_alone(tmp_path):
    sweep = start(tmp_path, *CPUS, *LONG, "seed=0,1,2")
    wait_for_rows(sweep, tmp_path, 0, 1, 2)
    for seed, number in ((0, signal.SIGTERM), (1, signal.SIGKILL)):
        os.kill(records(tmp_path)[seed]["pid"], number)
    code, _, error = ended(sweep)
    assert code == 0, error
    infos = records(tmp_path)
    assert {seed: (info["status"], info["attempt"]) for seed, info in infos.items()} == {
        0: ("finished", 2),
        1: ("finished", 2),
        2: ("finished", 1),
    }


def test_a_run_that_is_never_tried_again_is_named_and_the_others_are_collected(tmp_path):
    never = "hydra.launcher.ray.remote.max_retries=0"
    sweep = start(tmp_path, *CPUS, never, *LONG, "seed=0,1")
    wait_for_rows(sweep, tmp_path, 0, 1)
    os.kill(records(tmp_path)[0]["pid"], signal.SIGKILL)
    code, _, error = ended(sweep)
    assert code == 1
    assert "1 of 2 runs failed" in error
    assert "seed0: its process died (Ray task" in error
    assert records(tmp_path)[1]["status"] == "finished"


def test_what_no_node_has_is_said(tmp_path):
    code, _, error = ended(start(tmp_path, "hydra/launcher=ray", *SMALL, "scale=smoke", "seed=0,1"), seconds=60)
    assert code == 1
    assert "no node of the Ray cluster has 1 GPU and 2 CPU, which a run requests" in error
    assert "hydra.launcher.ray.remote.num_gpus=0 trains on CPUs" in error
