"""docs/tutorial.md, run as it is written with fewer iterations and, to search for, a smaller network: one's own pictures and network, up to the report."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from repro.config.folders import CONF

TEXT = (CONF.parent / "docs/tutorial.md").read_text(encoding="utf-8")
MINE = """
from torch import nn


def network(num_classes, channels):
    layers = [nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, num_classes)]
    return nn.Sequential(*layers)
"""
THEIRS = "torchvision.models:shufflenet_v2_x0_5"
FEWER = {
    "iterations=300": "iterations=60",
    "search.minutes=20": "search.stages=[lr_range] search.share=1 search.factors=[1] search.final_seeds=1",
}
SMALL = ["dataset.resolution=16", "search.tests=12", "tracking=disabled", "dataset.cache=cache"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def command(line, run_app):
    for said, fewer in FEWER.items():
        line = line.replace(said, fewer)
    program, *arguments = shlex.split(line)[2:]
    done = run_app(program.removeprefix("repro."), *arguments, *([] if program == "repro.train" else SMALL))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tutorial_leads_from_pictures_to_a_report(tmp_path, run_app):
    pytest.importorskip("torchvision")
    [pictures] = blocks("python")
    subprocess.run([sys.executable, "-c", pictures.replace("[:600]", "[:160]")], cwd=tmp_path, check=True)
    (tmp_path / "mine.py").write_text(MINE)
    cost, *searches = (block.strip() for block in blocks("sh"))
    lr_range, recipe = (
        line.replace(THEIRS, "mine:network") for line in searches
    )  # a few iterations teach it enough
    assert "at most 4 runs" in command(cost, run_app)
    assert not (tmp_path / "multirun_outputs").exists()
    told = command(lr_range, run_app)
    again = command(lr_range, run_app)
    assert "1 of 1 run is finished already" in again
    assert again.splitlines()[-4:] == told.splitlines()[-4:]
    chosen = float(re.search(r"^max LR: (.*)$", told, re.M)[1])
    train = re.search(r"^train it: (.*)$", told, re.M)[1]
    short = "iterations=2 schedule.lr.step_size=1 tracking=disabled dataset.cache=cache"
    command(f"{train} model.name={THEIRS} {short}", run_app)
    [path] = (tmp_path / "multirun_outputs/paper").glob("folder-*/lr_range/**/run.json")
    info = json.loads(path.read_text())
    assert info["status"] in ("finished", "diverged")
    assert info["config"]["schedule"]["lr"]["max_lr"] == pytest.approx(chosen)
    assert info["config"]["model"]["name"] == THEIRS
    told = command(recipe, run_app)
    assert "found ends at" in told
    [page] = (tmp_path / "multirun_outputs/search/paper").glob("folder-*/recipe.html")
    html = page.read_text(encoding="utf-8")
    for word in ("what was tried", "Cost:", "LR range test", "data:image/svg+xml;base64,"):
        assert word in html
