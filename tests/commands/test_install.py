"""``constraints.txt`` holds every extra of ``pyproject.toml``: asked of the files, and of pip itself."""

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
NOT_HERE = ("from versions: none", "ConnectionError", "Max retries", "ReadTimeout")  # no package index


def pinned(python, platform):
    """Name -> version that constraints.txt has on such a machine."""
    where = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": platform}
    kept = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(where)]
    names = [canonicalize_name(pin.name) for pin in kept]
    assert sorted(set(names)) == sorted(names)
    return {name: next(iter(pin.specifier)).version for name, pin in zip(names, kept, strict=True)}


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_everything_that_an_extra_names_is_pinned_to_a_version_that_it_allows(extra):
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for wanted in map(Requirement, lines):
        for python, platform in product(["3.10", "3.11", "3.13"], ["linux", "darwin", "win32"]):
            version = pinned(python, platform).get(canonicalize_name(wanted.name), "0")
            assert wanted.specifier.contains(version, prereleases=True), f"{wanted} on Python {python}, {platform}"


def test_pip_finds_every_extra_together_and_nothing_that_is_not_pinned(tmp_path):
    """As pip would install them into this environment. Each has one candidate, so that pip has nothing to search."""
    pytest.importorskip("pip")
    wanted = [
        *PROJECT["dependencies"],
        *(line for lines in PROJECT["optional-dependencies"].values() for line in lines),
    ]
    report = tmp_path / "report.json"
    options = ["--dry-run", "--quiet", "--retries", "1", "--timeout", "30", "--report", str(report)]
    command = [sys.executable, "-m", "pip", "install", *options, "-c", str(ROOT / "constraints.txt"), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    if done.returncode and any(sign in done.stderr for sign in NOT_HERE):
        pytest.skip(f"no package index here: {re.sub(r'//[^/ ]+', '//...', done.stderr.strip().splitlines()[-1])}")
    assert done.returncode == 0, done.stderr
    found = {
        item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(report.read_text())["install"]
    }
    pins = pinned(".".join(map(str, sys.version_info[:2])), sys.platform)
    assert {name: pins.get(canonicalize_name(name)) for name in found} == found
