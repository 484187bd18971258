"""What tests share: composing a configuration, running the apps, tiny real data."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from PIL import Image

from repro import config, resources
from repro.config import folders

os.environ.update(resources.waiting(os.environ, crowded=True))  # tests train side by side
from repro.records import naming


@pytest.fixture(scope="session")
def composed():
    """A function: command-line overrides -> the composed configuration, with Hydra's own part."""
    config.register_schema()
    naming.register()
    with initialize_config_dir(str(folders.CONF), version_base="1.3"):

        def make(*overrides):
            cfg = compose("train", [*overrides], return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            return cfg

        yield make


@pytest.fixture(scope="session")
def resolved(composed):
    """A function: command-line overrides -> the resolved run."""

    def make(*overrides):
        cfg = composed(*overrides)
        with open_dict(cfg):
            del cfg["hydra"]
        return config.resolve(cfg, overrides)

    return make


@pytest.fixture
def run_app(tmp_path):
    """A function: module and arguments -> the finished process, run in ``tmp_path``."""

    def run(module, *arguments, **environment):
        command = [sys.executable, "-m", f"repro.{module}", *arguments]
        env = {**os.environ, "WANDB_SILENT": "true", **environment}
        env.pop("WANDB_SERVICE", None)  # a wandb service of this process is not its
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    return run


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """While entered, no file of this process grows beyond so many bytes: the disk seems to be full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def image_tree(root: Path, train: int = 3, test: int = 2, classes: int = 10) -> Path:
    """An image-folder tree of random 32x32 PNGs, so many a class."""
    rng = np.random.default_rng(7)
    for split, count in (("train", train), ("test", test)):
        for label in range(classes):
            folder = root / split / f"class{label:02d}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:04d}.png")
    return root
