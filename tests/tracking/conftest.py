"""What the tests of tracking share: the stand-in for a server, a project, finished records."""

import re

import pytest
import wandb_server
from hosting import CURVE

from repro.records import Record
from repro.tracking import mirror
from repro.tracking.server import find_project


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """One server for all: wandb's client keeps one address a process."""
    folder = tmp_path_factory.mktemp("wandb")
    ours = {
        "WANDB_API_KEY": wandb_server.KEY,
        "WANDB_CONFIG_DIR": f"{folder}/config",
        "WANDB_CACHE_DIR": f"{folder}/cache",
        "WANDB_DATA_DIR": f"{folder}/data",
        "WANDB_ERROR_REPORTING": "false",
        "NETRC": f"{folder}/netrc",
    }
    with wandb_server.running() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {**ours, "WANDB_BASE_URL": server.url}.items():
            patch.setenv(name, value)
        yield server
        assert server.unknown == set(), "the client asks for what the stand-in does not speak"


@pytest.fixture
def server(stand_in):
    """The server without faults, and a process in which W&B has not failed."""
    stand_in.faults = []
    mirror.silent.value = 0
    yield stand_in
    stand_in.faults = []


@pytest.fixture
def where(server, request):
    """A project of the test's own."""
    return find_project(wandb_server.ENTITY, re.sub(r"\W+", "-", request.node.name))


@pytest.fixture
def made(resolved):
    """A function: folder, seed and rows -> the folder with a finished record of clr_3.0 at smoke scale."""

    def make(folder, seed=0, rows=3, change=0.0, status="finished", **first):
        config = resolved(f"experiment={CURVE}", "scale=smoke", f"seed={seed}")
        record = Record(folder, config, {"python": "3", "torch": "2", "device": "cpu", "threads": 1})
        record.info |= first
        for i in range(rows):
            record.append({"iteration": 2 * i, "lr": 0.1 + i / 3, "momentum": 0.95, "train_loss": None if i == 0 else 1 / i,
                           "test_loss": 1e-17 + i, "test_accuracy": i / rows + change, "images_per_second": 7.1})  # fmt: skip
        record.finish(status, final_accuracy=1.0, diverged=False)
        return folder

    return make
