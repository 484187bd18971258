"""What ``repro.tracking._compat`` relies on still exists, in every version of wandb that is taken."""

import importlib
import re
from pathlib import Path

import pytest
import wandb

import repro
from repro.config.errors import ReproError
from repro.tracking import _compat

ROOT = Path(repro.__file__).parent


def test_the_settings_are_wandbs():
    named = {**_compat.patience(4), **_compat.quiet(False, False)}
    known = wandb.Settings.model_fields
    assert set(named) <= set(known)
    assert _compat.patience(None) == {}
    made = _compat.settings(
        mode="offline", console="off", **named, **_compat.flushed_every(1.0), finish_timeout=3.0
    )
    assert made.x_disable_stats
    assert (
        set(_compat.OPTIONAL) <= set(known)
        or tuple(map(int, wandb.__version__.split(".")[:2])) < _compat.READS_FILES
    )
    assert importlib.import_module(_compat.PRELOAD)


def test_a_wandb_that_is_too_old_is_one_line(monkeypatch):
    monkeypatch.setattr(_compat, "version", lambda name: "0.19.11")
    with pytest.raises(
        ReproError, match=r"^wandb 0\.19\.11 is installed, and W&B needs 0\.22 or newer: pip install"
    ):
        _compat.settings(mode="offline")
    monkeypatch.setattr(_compat, "version", lambda name: "0.25.1")
    _compat.require()
    with pytest.raises(ReproError, match=r"^wandb 0\.25\.1 is installed, and reading a\.wandb needs 0\.31"):
        _compat.printing(Path("a.wandb"))


def test_a_key_is_found_without_asking_for_one(monkeypatch, tmp_path):
    """As a wandb is asked that cannot be told not to ask."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", f"{tmp_path}/netrc")
    assert not _compat._has_key("https://wandb.example")
    (tmp_path / "netrc").write_text("machine wandb.example login user password " + "k" * 40)
    assert _compat._has_key("https://wandb.example")
    assert not _compat._has_key("https://api.wandb.ai")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert _compat._has_key("https://api.wandb.ai")


def test_what_wandb_does_not_document_is_used_in_one_file():
    private = re.compile(r"\bx_[a-z]+_[a-z_]+=|get_core_path|sync_file|wandb\.sdk|wandb\.util|wandb\._|use_cache")
    found = [path.name for path in ROOT.rglob("*.py") if private.search(path.read_text())]
    assert found == ["_compat.py"]
