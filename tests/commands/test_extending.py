"""A network, an image set and a schedule of one's own: a Python file and a YAML file each, found by everything."""

import json
import re
import shutil

import pytest
from on_disk import image_tree
from PIL import Image

PYTHON = """
import numpy as np
from torch import nn

from repro.data.registry import ImageSet
from repro.schedules import Iterations


def network(num_classes, channels, *, hidden=8):
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36 * hidden, num_classes)
    )


def read(root):
    rng = np.random.default_rng(0)
    parts = {"train": 40, "test": 20}
    images = {f"{k}_images": rng.integers(0, 256, (n, 6, 6, 1), dtype=np.uint8) for k, n in parts.items()}
    return {**images, **{f"{k}_labels": rng.integers(0, 3, n) for k, n in parts.items()}}


SHAPES = ImageSet(train=40, test=20, classes=3, size=6, channels=1, read=read)


def warmup(i, *, value: float, ramp: Iterations) -> float:
    return value * min(1.0, (i + 1) / ramp)
"""
YAML = {
    "model/mine.yaml": "name: mine:network\ninit: own\noptions: {hidden: 5}\n",
    "dataset/mine.yaml": "name: mine:SHAPES\nmirror: false\n",
    "schedule/mine.yaml": "lr: {shape: 'mine:warmup', value: 0.0001, ramp: 100}\nmomentum: {shape: constant, value: 0.9}\n",
}
MINE = ("--config-dir", "conf", "model=mine", "dataset=mine", "schedule=mine", "tracking=disabled", "threads=1",
        "batch_size=10", "iterations=400", "test_every=100", "scale.iterations=0.1")  # fmt: skip


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(PYTHON)
    for name, text in YAML.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_ones_own_network_data_and_schedule_are_trained_by_name(mine, run_app):
    done = run_app("train", *MINE)
    assert done.returncode == 0, done.stderr
    [path] = mine.glob("multirun_outputs/**/run.json")
    info = json.loads(path.read_text())
    assert info["status"] == "finished"
    assert info["config"]["model"]["options"] == {"hidden": 5}
    rows = [json.loads(line) for line in (path.parent / "history.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [10, 20, 30, 40]
    assert info["config"]["schedule"]["lr"]["ramp"] == 10  # a tenth, as of the iterations
    assert rows[0]["lr"] == pytest.approx(0.0001)
    again = run_app("evaluate", str(path.parent))
    assert f"{rows[-1]['test_loss']:.6f}" in again.stdout


def test_a_dry_run_knows_their_cost(mine, run_app):
    done = run_app("train", *MINE, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1 run to do, 0 finished; 400 images" in done.stdout


def test_a_run_is_not_finished_for_other_images(run_app, tmp_path):
    for name in ("a", "b"):
        image_tree(tmp_path / name, train=4, test=2, classes=2)
    Image.new("RGB", (32, 32)).save(tmp_path / "b/train/class00/0000.png")
    train = ("experiment=fig5b/wd_1e-3", "scale=smoke", "tracking=disabled", "dataset=folder", "batch_size=4")
    train += ("scale.batch=1", "model.bn_groups=1", "dataset.resolution=16", "dataset.test_images=null")
    first = run_app("train", *train, "dataset.root=a")
    assert first.returncode == 0, first.stderr
    assert "already finished" in run_app("train", *train, "dataset.root=a").stdout
    shutil.move(tmp_path / "a", tmp_path / "away")
    assert run_app("train", *train, "dataset.root=a").returncode == 0  # there is nothing to compare it with
    for arguments in ((), ("--dry-run",)):
        other = run_app("train", *train, "dataset.root=b", *arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert other.returncode == 1, other.stdout
        assert "holds a finished run of another configuration (dataset.digest: " in other.stderr


def test_a_file_that_is_not_yaml_is_named_with_its_line(run_app, tmp_path):
    for name in ("experiment/fig0/mine.yaml", "figure/fig0.yaml"):
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text("# mine\ntitle: a: b\n")
    for command in (("train", "experiment=fig0/mine", "scale=smoke"), ("figures", "figure=fig0")):
        done = run_app(command[0], "--config-dir", "conf", *command[1:])
        assert done.returncode == 1
        line = (
            r"error: /\S+/fig0\S*\.yaml, line 2, column 9: it is not YAML: mapping values are not allowed here\n"
        )
        assert re.fullmatch(line, done.stderr)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=mine:networks", "model.name=mine:networks: no network 'mine:networks': module 'mine' has no"),
        (
            "model.name=yours:network",
            "model.name=yours:network: no network 'yours:network': No module named 'yours'",
        ),
        (
            "+model.options.depth=3",
            "model.name=mine:network: mine:network has no option depth; its options are: hidden",
        ),
        (
            "dataset.resolution=8",
            "model.name=mine:network: it does not accept images of 8x8 pixels (mat1 and mat2 shapes cannot be",
        ),
        ("dataset.name=mine:read", "dataset.name=mine:read: it is not a repro.data.registry.ImageSet"),
        ("dataset.name=yours:SHAPES", "dataset.name=yours:SHAPES: No module named 'yours'"),
        (
            "schedule.lr.shape=mine:ramp",
            "schedule.lr.shape: no schedule 'mine:ramp': module 'mine' has no attribute",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(mine, run_app, override, message):
    done = run_app("train", *MINE, override)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
