"""Records as a server would have them, and frames that are the same to the last bit."""

import json
from importlib.metadata import version

import pandas as pd
import pytest
import wandb_server

from repro import records
from repro.records import read_history, read_info, runs
from repro.tracking import _compat, mirror, pull

CURVE = "fig5a/clr_3.0"
HOMES = {"clr_3.0": CURVE}
READS_FILES = tuple(map(int, version("wandb").split(".")[:2])) >= _compat.READS_FILES
reads_files = pytest.mark.skipif(not READS_FILES, reason="this wandb cannot read its offline files")


def hosted(server, where, folder, name=None, state="finished"):
    """A record as the server would have it."""
    info, rows = read_info(folder), read_history(folder)
    run = wandb_server.Run(where.entity, where.name, name or records.record_id(info))
    begun = {k: v for k, v in info.items() if k not in (*records.ENDING, "config")}
    run.config = {k: {"value": v} for k, v in {**begun, **info["config"]}.items()}
    run.summary = mirror.ending(info) if state == "finished" else {}
    run.history = {
        i: json.dumps({"_step": i, "_timestamp": 1e9 + i, **{k: v for k, v in row.items() if v is not None}})
        for i, row in enumerate(rows)
    }
    run.state = state
    server.add(run)
    return run


def frame_of(where, cache, scale="smoke"):
    return runs.pulled(pull.server(where, [CURVE], cache), HOMES, scale)


def same(a, b):
    """Equal bit for bit."""
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    for column in a.columns:
        if a[column].dtype == "float64":
            assert a[column].to_numpy().tobytes() == b[column].to_numpy().tobytes()
    return True
