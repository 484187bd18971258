"""Sweeps that the tests of both engines launch, and what they leave."""

import json
import subprocess
import sys
import time

SMALL = ["experiment=fig8b/tbs512", "tracking=disabled"]


def train(*arguments):
    return [sys.executable, "-m", "repro.train", "-m", *arguments]


def start(tmp_path, *arguments):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(train(*arguments), cwd=tmp_path, **pipes)


def ended(sweep, seconds=240):
    """Exit code, output and errors of a sweep."""
    out, error = sweep.communicate(timeout=seconds)
    return sweep.returncode, out, error


def records(tmp_path, output="multirun_outputs"):
    """Every run's record, by its seed."""
    infos = [json.loads(path.read_text()) for path in (tmp_path / output).glob("*/fig8b/**/run.json")]
    return {info["seed"]: info for info in infos}


def wait_for(condition, seconds=90, sweep=None):
    """Until ``condition()``; a sweep that ends before is an error."""
    until = time.monotonic() + seconds
    while not condition():
        assert sweep is None or sweep.poll() is None, sweep.stderr.read()
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)


def wait_for_rows(sweep, tmp_path, *seeds):
    """Until each of these runs has three rows."""

    def have_rows():
        files = [*(tmp_path / "multirun_outputs").glob("*/fig8b/tbs512/**/history.jsonl")]
        counts = {path.parent.name: len(path.read_text().splitlines()) for path in files}
        return all(counts.get(f"seed{seed}", 0) >= 3 for seed in seeds)

    wait_for(have_rows, sweep=sweep)
