"""The paths of the suite's own files: its configuration, and the user's cache. Does not import torch."""

import os
from pathlib import Path

from hydra.conf import HydraConf
from omegaconf import DictConfig

from repro.config.schema import Config

_PACKAGE = Path(__file__).parents[1]
CONF = next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.exists())


def settled(config: Config, hydra: HydraConf | DictConfig) -> Config:
    """``config`` with its final paths, changed in place: ~ expanded, absolute if Hydra changes the working folder.

    ``hydra`` is Hydra's part of the configuration.
    """
    base = Path(hydra.runtime.cwd) if hydra.job.chdir else Path()
    config.output = str(base / Path(config.output).expanduser())
    config.dataset.root = str(base / Path(config.dataset.root).expanduser())
    if config.dataset.cache is not None:
        config.dataset.cache = str(base / Path(config.dataset.cache).expanduser())
    return config


def expand_home(argument: str) -> str:
    """``key=~/...`` with ~ expanded, which neither a shell nor Hydra does after an equals sign."""
    key, _, value = argument.partition("=")
    return f"{key}={Path(value).expanduser()}" if value.startswith("~/") else argument


def cache_folder(configured: str | None = None) -> Path:
    """The folder for files that can be made or pulled again: below ``configured``, or the user's cache folder."""
    cache = Path(configured or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.expanduser() / "disciplined-repro"
