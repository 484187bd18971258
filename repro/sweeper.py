"""A sweep becomes jobs, any launcher runs them, and every failure has a name.

Hydra's own sweeper does not see experiments in subfolders, lets two jobs write into one folder, and reports only
the first of several failures.
"""

import copy
import itertools
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from repro import cost, images, status
from repro.config import Config, Dataset, fingerprint, resolve
from repro.errors import ReproError, no_launcher
from repro.progress import Progress
from repro.records import already_finished

# In a sweep the terminal is the progress display's: a job's log goes to its folder alone.
QUIET = "hydra.job_logging.root.handlers=[file]"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # Hydra's default: one run after the other


@dataclass
class Job:
    """One run of a sweep: what it overrides, what that composes, where it goes."""

    overrides: list[str]
    config: Config
    folder: Path
    composed: DictConfig  # with Hydra's own part


class Sweeper:
    """Expands experiments, refuses what cannot be right, drops finished runs, launches the rest."""

    def __init__(self, params: dict[str, Any] | None = None, show: str | None = None):
        self.params = dict(params or {})
        self.show = show  # instead of launching: "cost", or how repro.status shows the runs
        self.compositions: dict[tuple[str, ...], tuple[str, DictConfig]] = {}

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what ``sweep`` needs. Raises ReproError where the launcher's plug-in is not installed."""
        self.loader = hydra_context.config_loader
        self.composed = config
        self.local = config.hydra.launcher._target_ == BASIC
        try:
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
        except RuntimeError as error:
            if not str(error).startswith("Unknown plugin class"):
                raise
            raise ReproError(no_launcher(config.hydra.runtime.choices["hydra/launcher"])) from error
        self.launch = launcher.launch

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every job that is not finished; ReproError names those that failed."""
        if self.local and not self.show:
            from repro import workers

            workers.start_server(self.composed)  # it has its imports done when the jobs are composed
        jobs = merged([self._job(overrides) for overrides in self._expand(arguments)])
        if self.show == "cost":
            cost.show([(job.folder, job.config) for job in jobs], local=self.local)
            return []
        if self.show:
            status.show([(job.folder, job.config) for job in jobs], self.show)
            return []
        todo = [job for job in jobs if not already_finished(job.folder, job.config)]
        if len(todo) < len(jobs):
            done = len(jobs) - len(todo)
            print(f"{done} of {len(jobs)} runs are finished already; force=true trains them again")
        if not todo:
            return []
        returns = self._launch(todo)
        report_failures(todo, returns)
        return returns

    def _launch(self, jobs: list[Job]) -> list[JobReturn]:
        """By our own processes, unless another launcher was chosen."""
        runs = [(job.folder, job.config) for job in jobs]
        if not self.local:
            try:
                with Progress(runs):
                    return list(self.launch([[*job.overrides, QUIET] for job in jobs], initial_job_idx=0))
            except Exception as error:
                reason = (str(error).strip() or "no reason given").splitlines()[0]
                raise ReproError(
                    f"the launcher gave up ({type(error).__name__}: {reason}); what it started may still run. "
                    "Launch again when they have ended: finished runs are kept, the others go on"
                ) from error
        from repro import workers

        Path(self.composed.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        prepare(config.dataset for _, config in runs)
        planned = cost.fitting([job.config for job in jobs])
        with Progress(runs):
            return workers.launch([(job.composed, job.folder) for job in jobs], planned)

    def _expand(self, arguments: list[str]) -> Iterator[list[str]]:
        """The overrides of every job; what the command line says replaces the sweep's own ``params``."""
        values: dict[str, list[str]] = {}
        parser = OverridesParser.create(config_loader=self.loader)
        params = [f"{key}={value}" for key, value in self.params.items()]
        for override in parser.parse_overrides([*params, *arguments]):
            key = override.get_key_element()
            if key == "experiment":
                choices = expand_experiments(override, self.loader)
            elif not override.is_sweep_override():
                choices = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                choices = list(override.sweep_string_iterator())
            else:
                raise ReproError(f"{override.input_line}: an interval has no list of values; name them")
            if not choices:
                raise ReproError(f"{override.input_line}: nothing matches, so there is nothing to run")
            values[key] = choices
        for combination in itertools.product(*values.values()):
            yield [f"{key}={value}" for key, value in zip(values, combination, strict=True)]

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

    def _job(self, overrides: list[str]) -> Job:
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


def expand_experiments(override: Override, loader: ConfigLoader) -> list[str]:
    """The experiments that an override names, with patterns such as ``fig5a/*`` or ``glob(fig5a/*)`` expanded."""
    exclude: list[str] = []
    if isinstance(value := override.value(), Glob):
        include, exclude = value.include, value.exclude
    elif override.is_sweep_override():
        include = list(override.sweep_string_iterator())
    else:
        include = [override.get_value_element_as_str()]
    found: dict[str, None] = {}
    for name in include:
        matches = [n for n in experiments(loader) if fnmatchcase(n, name)] if "*" in name else [name]
        if not matches:
            raise ReproError(f"{override.input_line}: nothing matches, so there is nothing to run")
        found |= dict.fromkeys(matches)
    return [name for name in found if not any(fnmatchcase(name, pattern) for pattern in exclude)]


def experiments(loader: ConfigLoader, folder: str = "") -> list[str]:
    """Every experiment of the search path, as <figure>/<curve>."""
    names = []
    group = f"experiment/{folder}".rstrip("/")
    for name in loader.get_group_options(group, ObjectType.GROUP):
        names += experiments(loader, f"{folder}{name}/")
    return names + [f"{folder}{name}" for name in loader.get_group_options(group, ObjectType.CONFIG)]


def merged(jobs: list[Job]) -> list[Job]:
    """The jobs without those that another curve shares; ReproError if two others would write into one folder."""

    def settings(job: Job) -> list[str]:
        return [o for o in job.overrides if not o.startswith("experiment=")]

    kept: dict[Path, Job] = {}
    for job in jobs:
        other = kept.setdefault(job.folder, job)
        shared = (
            job.overrides != other.overrides
            and settings(job) == settings(other)
            and fingerprint(job.config) == fingerprint(other.config)
        )
        if other is not job and not shared:
            raise ReproError(
                f"two jobs would write into {job.folder}: '{' '.join(other.overrides)}' and "
                f"'{' '.join(job.overrides)}'"
            )
    return list(kept.values())


def prepare(datasets: Iterable[Dataset]) -> None:
    """Download and decode once what several runs at once would all download and decode; they tell what fails."""
    seen = set()
    for dataset in datasets:
        key = (dataset.name, dataset.root, dataset.cache)
        if dataset.digest is None and key not in seen:
            seen.add(key)
            with suppress(ReproError):
                images.load(dataset)


def report_failures(jobs: list[Job], returns: list[JobReturn]) -> None:
    """ReproError that lists every failed run with its reason, if there is one."""
    failed = []
    for job, done in zip(jobs, returns, strict=True):
        if done.status is not JobStatus.COMPLETED:
            error = done._return_value
            reason = str(error) if isinstance(error, ReproError) else f"{type(error).__name__}: {error}"
            failed.append(f"  {job.folder}: {reason}")
            logging.getLogger(__name__).debug("failed", exc_info=error)
    if failed:
        raise ReproError("\n".join([f"{len(failed)} of {len(jobs)} runs failed:", *failed]))
