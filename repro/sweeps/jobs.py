"""A job of a sweep: its overrides, the configuration they compose, its folder. No torch here."""

import copy
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict, read_write

from repro.config import Config, resolve
from repro.config.errors import ReproError
from repro.config.folders import settled
from repro.data import images
from repro.records import naming

# In a sweep the terminal belongs to the progress display, so a job logs only to its folder.
QUIET = "hydra.job_logging.root.handlers=[file]"


@dataclass
class Job:
    """One run of a sweep."""

    overrides: list[str]
    config: Config  # resolved
    folder: Path
    changes: list[str]  # what the run changes in its experiment
    composed: DictConfig  # including the hydra section

    @property
    def in_its_folder(self) -> list[str]:
        """The overrides that make any launcher run the job in ``folder``."""
        sweep = self.composed.hydra.sweep
        quoted = {key: str(sweep[key]).replace("'", "\\'") for key in ("dir", "subdir")}
        return [f"hydra.sweep.{key}='{path}'" for key, path in quoted.items()]


class Composer:
    """Composes the jobs of one sweep from its configuration, ``composed``."""

    def __init__(self, loader: ConfigLoader, composed: DictConfig):
        self.loader, self.composed = loader, composed
        self.cache: dict[tuple[str, ...], tuple[str, DictConfig]] = {}  # without seed -> seed, result

    def job(self, overrides: list[str]) -> Job:
        """The job with these overrides. Raises ReproError for wrong values, and what Hydra raises."""
        composed = self._compose(overrides)
        HydraConfig.instance().set_config(composed)
        hydra = HydraConfig.get()
        folder = Path(hydra.sweep.dir) / hydra.sweep.subdir
        with read_write(composed.hydra):  # said, because the process that runs the job need not know our resolvers
            composed.hydra.sweep.dir, composed.hydra.sweep.subdir = hydra.sweep.dir, hydra.sweep.subdir
        task = copy.copy(composed)
        with open_dict(task):
            del task["hydra"]
        try:
            config = settled(resolve(task), hydra)
            images.identify(config.dataset)
            return Job(overrides, config, folder, naming.changes(composed, hydra), composed)
        except ReproError as error:
            raise ReproError(f"{' '.join(overrides)}: {error}") from None

    def _compose(self, overrides: list[str]) -> DictConfig:
        # Composing takes tens of milliseconds, so jobs that differ only in their seed share one composition.
        seed = next((o for o in overrides if o.startswith("seed=")), None)
        key = tuple(o for o in overrides if o != seed)
        if seed is None or key not in self.cache:
            composed: DictConfig = self.loader.load_sweep_config(self.composed, [*overrides, QUIET])
            if seed and "seed" in composed.hydra.job.config.override_dirname.exclude_keys:
                self.cache[key] = seed, copy.deepcopy(composed)
            return composed
        cached_seed, composed = self.cache[key]
        composed = copy.deepcopy(composed)
        composed.seed = OverridesParser.create().parse_override(seed).value()
        with read_write(composed.hydra):
            composed.hydra.overrides.task = [
                seed if o == cached_seed else o for o in composed.hydra.overrides.task
            ]
        return composed
