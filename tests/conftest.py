"""What tests share: composing a configuration, running the apps, tiny real data."""

import copy
import json
import os
import re
import select
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from repro import config, resources
from repro.config import folders

os.environ.update(resources.waiting(os.environ, crowded=True))  # tests train side by side
from repro.records import naming


@pytest.fixture(autouse=True)
def outside_an_app():
    """No test is inside a Hydra app that an earlier one composed."""
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


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

    @cache
    def compose_once(*overrides):
        cfg = composed(*overrides)
        hydra = HydraConfig.instance().cfg
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, hydra

    @cache
    def make(*overrides):
        before = HydraConfig.instance().cfg
        # Composing is slow, and what a seed or the replicates change is done by resolving.
        later = [o for o in overrides if re.fullmatch(r"seed=\d+|replicates=(seeds|author)", o)]
        cfg, HydraConfig.instance().cfg = compose_once(*(o for o in overrides if o not in later))
        cfg = copy.deepcopy(cfg)
        for key, _, value in (o.partition("=") for o in later):
            cfg[key] = value
        run = config.resolve(cfg, overrides)
        HydraConfig.instance().cfg = before  # no test is inside an app that a former one composed
        return run

    return lambda *overrides: copy.deepcopy(make(*overrides))


@pytest.fixture(scope="session")
def command_server(tmp_path_factory):
    """A function: a command, as ``command_server.py`` takes it -> the finished process."""
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("command_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def run(module, arguments, cwd, env):
        files = {name: str(tmp_path_factory.mktemp("command") / name) for name in ("stdout", "stderr")}
        command = {"module": module, "arguments": arguments, "cwd": str(cwd), "environment": env, **files}
        print(json.dumps(command), file=server.stdin, flush=True)
        if not select.select([server.stdout], [], [], 300)[0]:
            os.killpg(server.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([module, *arguments], 300)
        code = int(server.stdout.readline())
        texts = {name: Path(file).read_text(encoding="utf-8") for name, file in files.items()}
        return subprocess.CompletedProcess([module, *arguments], code, **texts)

    with server:
        yield run
        server.stdin.close()


@pytest.fixture
def run_app(tmp_path, command_server):
    """A function: module and arguments -> the finished process, run in ``tmp_path``.

    A process of its own, all of it, where the environment says how Python starts (PYTHONPATH, LC_ALL).
    """

    def run(module, *arguments, **environment):
        env = {**os.environ, "WANDB_SILENT": "true", **environment}
        env.pop("WANDB_SERVICE", None)  # a wandb service of this process is not its
        if not any(name.startswith(("PYTHON", "LC_", "LANG")) for name in environment):
            return command_server(f"repro.{module}", arguments, tmp_path, env)
        command = [sys.executable, "-m", f"repro.{module}", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    return run
