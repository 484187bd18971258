"""A job of a sweep: its overrides, the configuration they compose, its folder. Does not import torch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict, read_write

from repro.config import Config, Dataset, resolve, typed_keys
from repro.config.errors import ReproError
from repro.config.folders import settled
from repro.data import images
from repro.records import naming, starts
from repro.tracking import environment

# In a sweep the terminal belongs to the progress display, so a job logs only to its folder.
QUIET = "hydra.job_logging.root.handlers=[file]"


@dataclass
class Job:
    """One run of a sweep."""

    overrides: list[str]
    config: Config  # resolved
    folder: Path
    changes: list[str]  # its overrides of its experiment (``naming.changes``)
    composed: DictConfig  # including the hydra section

    @property
    def in_its_folder(self) -> list[str]:
        """The overrides with which any launcher runs the job in ``folder``, from the snapshot set by the sweep."""
        sweep, start = self.composed.hydra.sweep, self.config.start
        values = {"hydra.sweep.dir": Path(sweep.dir).absolute(), "hydra.sweep.subdir": sweep.subdir}
        if start.curve is not None:
            values |= {f"start.{key}": getattr(start, key) for key in ("fingerprint", "command")}
            values["start.folder"] = Path(start.folder or "").absolute()
        return [quoted(key, value) for key, value in values.items()]


def quoted(key: str, value: object) -> str:
    """An override whose value is quoted, so that it may contain any character of a path."""
    text = str(value).replace("'", "\\'")
    return f"{key}='{text}'"


class Composer:
    """Composes the jobs of one sweep from its configuration, ``composed``."""

    def __init__(self, loader: ConfigLoader, composed: DictConfig):
        self.loader, self.composed = loader, composed
        self.cache: dict[tuple[str, ...], tuple[str, DictConfig]] = {}  # overrides without seed -> seed, composed
        self.digests: dict[str, str | None] = {}  # computing one stats every file: once a sweep

    def job(self, overrides: list[str], number: int = 0) -> Job:
        """The job with these overrides, ``number`` in its sweep.

        Raises ReproError for wrong values, and what Hydra raises.
        """
        composed = self._compose(overrides)
        with read_write(composed.hydra):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        HydraConfig.instance().set_config(composed)
        hydra = HydraConfig.get()
        task = copy.copy(composed)
        with open_dict(task):
            del task["hydra"]
        config = settled(resolve(task, hydra.overrides.task), hydra)
        environment.obey(config, typed_keys(hydra.overrides.task))
        self.identify(config.dataset)
        changes = naming.changes(composed, hydra)
        starts.settle(config, changes)
        home, subdir = hydra.sweep.dir, hydra.sweep.subdir  # resolving them takes milliseconds
        with read_write(composed.hydra):  # resolved here: the process that runs the job may lack our resolvers
            composed.hydra.sweep.dir, composed.hydra.sweep.subdir = home, subdir
        return Job(overrides, config, Path(home) / subdir, changes, composed)

    def identify(self, dataset: Dataset, decode: bool = False) -> None:
        """``images.identify``, once for all jobs with these images."""
        key = repr(dataset)  # all of it: how a folder is split decides which images are trained on
        if key not in self.digests or (decode and self.digests[key] is None):
            images.identify(dataset, decode)
            self.digests[key] = dataset.digest
        dataset.digest = self.digests[key]

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


def compose_all(composer: Composer, combinations: Sequence[list[str]], first: int = 0) -> list[Job]:
    """The job of each combination of overrides, numbered from ``first``.

    Raises ReproError for wrong values, which begins with what the combination does not share with the others, and
    what Hydra raises.
    """
    jobs = []
    for number, overrides in enumerate(combinations, start=first):
        try:
            jobs.append(composer.job(overrides, number))
        except ReproError as error:
            shared = set.intersection(*map(set, combinations))
            label = " ".join(override for override in overrides if override not in shared)
            raise ReproError(f"{label}: {error}" if label else str(error)) from None
    return jobs
