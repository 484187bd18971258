"""A search whose process is interrupted, or whose runs ask for more memory than there is."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from repro.records import read_history, read_info

SEARCH = ["method=lr_range", "experiment=fig8b/tbs512", "scale=smoke", "iterations=150000", "search.seeds=2",
          "search.tests=30", "search.rounds=1", "workers=1", "threads=1", "tracking=disabled"]  # fmt: skip
HUNGRY = """
import torch
from torch import nn

class Hungry(nn.Linear):
    def forward(self, images):
        if self.training and len(images) > 64:
            torch.empty(1 << 50)
        return super().forward(images.flatten(1))

def network(num_classes, channels):
    return Hungry(64 * channels, num_classes)
"""


def test_an_interrupted_search_resumes_and_finds_the_same(tmp_path, run_app):
    def second():  # of its runs
        return next((tmp_path / "interrupted").rglob("seed1"), tmp_path)

    command = [sys.executable, "-m", "repro.search", *SEARCH, "output=interrupted"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(read_history(second())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted; run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert read_info(second())["status"] == "interrupted"
    assert not list((tmp_path / "interrupted").rglob("lr_range.csv"))
    resumed = run_app("search", *SEARCH, "output=interrupted")
    whole = run_app("search", *SEARCH, "output=whole")
    assert (resumed.returncode, whole.returncode) == (0, 0), resumed.stderr
    assert "1 of 2 runs is finished already" in resumed.stdout
    for name in ("lr_range.csv", "lr_range-curves.csv"):
        [here], [there] = (list((tmp_path / output).rglob(name)) for output in ("interrupted", "whole"))
        pd.testing.assert_frame_equal(pd.read_csv(here), pd.read_csv(there), check_exact=True)
    end = re.compile(r"^(max LR: .*\n.*\nwhy: .*|nothing is suggested\nwhy: .*)$", re.M)
    assert end.search(resumed.stdout)[0] == end.search(whole.stdout)[0]


def test_a_batch_that_the_memory_does_not_hold_ends_the_doubling(tmp_path, run_app):
    """The allocator itself refuses, as it does where a process has used its memory up."""
    (tmp_path / "mine.py").write_text(HUNGRY)
    done = run_app("search", "method=batch_size", "model=custom", "model.factory=mine:network", "dataset=digits",
                   "batch_size=32", "iterations=60", "search.largest=512", "search.limit_mb=1e9", "search.tests=6",
                   "search.rounds=1", "threads=1", "tracking=disabled")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "batch size: 64\n" in done.stdout
    assert "why: batch 64 trains, and batch 128 ran out of memory; there " in done.stdout
    infos = [json.loads(path.read_text()) for path in Path(tmp_path, "multirun_outputs").rglob("run.json")]
    assert {(info["config"]["batch_size"], info["status"]) for info in infos} >= {
        (64, "finished"),
        (128, "failed"),
    }
    [reason] = [info["reason"] for info in infos if info["status"] == "failed"]
    assert reason.startswith("out of memory on cpu (")
