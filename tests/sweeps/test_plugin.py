"""What Hydra finds by itself, and what is known to it only when a command says so."""

import subprocess
import sys


def python(code, *arguments, cwd=None):
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)


def test_hydra_finds_the_plugin_by_itself(tmp_path):
    code = """
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
print([c.__module__ for c in Plugins.instance().discover(Sweeper) if c.__name__ == "ReproSweeper"])
"""
    done = python(code, cwd=tmp_path)
    assert done.stdout == "['hydra_plugins.repro_suite']\n", done.stderr


def test_finding_it_costs_other_apps_nothing():
    code = """
import sys
import hydra.plugins.launcher, hydra.plugins.sweeper
before = {name.partition(".")[0] for name in sys.modules}
import hydra_plugins.repro_suite
print(sorted({name.partition(".")[0] for name in sys.modules} - before))
"""
    done = python(code)
    assert done.stdout == "['hydra_plugins']\n", done.stderr


def test_importing_a_module_makes_nothing_known_to_hydra():
    modules = "config, evaluate, report, status, train"
    code = f"""
import warnings
filters = list(warnings.filters)
from repro import {modules}
from repro.config import catalogue, errors
from repro.figures import app
from repro.sweeps import sweeper, workers
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
ours = [name for name in warnings.filters if name not in filters and name[1] and "hydra" in name[1].pattern]
print([name for name in ConfigStore.instance().repo if "schema" in name], Plugins in Singleton._instances, ours)
"""
    done = python(code)
    assert done.stdout == "[] False []\n", done.stderr
