"""Where the suite's own files lie: its configuration, and what it keeps for the user. No torch here."""

import os
from pathlib import Path

from hydra.conf import HydraConf
from omegaconf import DictConfig

from repro.config.schema import Config

_PACKAGE = Path(__file__).parents[1]
CONF = next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.exists())


def settled(config: Config, hydra: HydraConf | DictConfig) -> Config:
    """``config`` with the paths it will be run with: ~ expanded, absolute where Hydra changes the working folder.

    ``hydra`` is Hydra's part of the configuration.
    """
    base = Path(hydra.runtime.cwd) if hydra.job.chdir else Path()
    config.output = str(base / Path(config.output).expanduser())
    config.dataset.root = str(base / Path(config.dataset.root).expanduser())
    if config.dataset.cache is not None:
        config.dataset.cache = str(base / Path(config.dataset.cache).expanduser())
    return config


def expand_home(argument: str) -> str:
    """``key=~/...`` with the user's home folder, which neither a shell nor Hydra's grammar puts there."""
    key, _, value = argument.partition("=")
    return f"{key}={Path(value).expanduser()}" if value.startswith("~/") else argument


def cache_folder(configured: str | None = None) -> Path:
    """What can be made or pulled again lies there: in ``configured``, or in the user's cache folder."""
    cache = Path(configured or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.expanduser() / "disciplined-repro"
