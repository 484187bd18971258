"""A job of a sweep: what it overrides, what that composes and resolves to, where it goes. No torch here."""

import copy
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict, read_write

from repro.config import Config, resolve
from repro.config.errors import ReproError
from repro.data import images

# In a sweep the terminal is the progress display's: a job's log goes to its folder alone.
QUIET = "hydra.job_logging.root.handlers=[file]"


@dataclass
class Job:
    """One run of a sweep."""

    overrides: list[str]
    config: Config  # resolved
    folder: Path
    composed: DictConfig  # with Hydra's own part


class Composer:
    """Makes the jobs of one sweep; ``composed`` is the sweep's own configuration."""

    def __init__(self, loader: ConfigLoader, composed: DictConfig):
        self.loader, self.composed = loader, composed
        self.compositions: dict[tuple[str, ...], tuple[str, DictConfig]] = {}

    def job(self, overrides: list[str]) -> Job:
        """The job that overrides what it is given. Raises ReproError, and what Hydra raises."""
        composed = self._composed(overrides)
        HydraConfig.instance().set_config(composed)
        folder = Path(composed.hydra.sweep.dir) / composed.hydra.sweep.subdir
        task = copy.copy(composed)
        with open_dict(task):
            del task["hydra"]
        try:
            config = resolve(task)
            images.identify(config.dataset)
            return Job(overrides, config, folder, composed)
        except ReproError as error:
            raise ReproError(f"{' '.join(overrides)}: {error}") from None

    def _composed(self, overrides: list[str]) -> DictConfig:
        """As Hydra composes it; that takes tens of milliseconds, which jobs that differ by seed alone share."""
        seed = next((o for o in overrides if o.startswith("seed=")), None)
        others = tuple(o for o in overrides if o != seed)
        if seed is None or others not in self.compositions:
            composed: DictConfig = self.loader.load_sweep_config(self.composed, [*overrides, QUIET])
            if seed and "seed" in composed.hydra.job.config.override_dirname.exclude_keys:
                self.compositions[others] = seed, composed
            return composed
        other, composed = self.compositions[others]
        composed = copy.deepcopy(composed)
        composed.seed = OverridesParser.create().parse_override(seed).value()
        with read_write(composed.hydra):
            composed.hydra.overrides.task = [seed if o == other else o for o in composed.hydra.overrides.task]
        return composed
