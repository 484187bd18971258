"""A sweep becomes jobs, any launcher runs them, and every failure has a name.

Hydra's own sweeper does not see experiments in subfolders, lets two jobs write into one folder, and reports only
the first of several failures.
"""

import itertools
import logging
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from repro.config import fingerprint, register_schema
from repro.config.errors import ReproError, no_launcher, run_app
from repro.config.folders import CONF
from repro.records import already_finished
from repro.sweeps import _compat, cost, machine, states
from repro.sweeps.arguments import expand_sweep
from repro.sweeps.jobs import QUIET, Composer, Job
from repro.sweeps.launcher import OnThisMachine
from repro.sweeps.progress import Progress


class Sweeper:
    """Expands experiments, refuses what cannot be right, drops finished runs, launches the rest."""

    def __init__(self, params: dict[str, Any] | None = None, show: str | None = None):
        self.params = dict(params or {})
        self.show = show  # instead of launching: "cost", or how repro.sweeps.states shows the runs

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what ``sweep`` needs. Raises ReproError where the launcher's plug-in is not installed."""
        self.loader = hydra_context.config_loader
        self.composer = Composer(self.loader, config)
        try:
            self.launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
        except RuntimeError as error:
            if not str(error).startswith("Unknown plugin class"):
                raise
            raise ReproError(no_launcher(config.hydra.runtime.choices["hydra/launcher"])) from error

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every job that is not finished; ReproError names those that failed."""
        here = self.launcher if isinstance(self.launcher, OnThisMachine) else None
        if here and not self.show:
            here.start()
        jobs = merged([self.composer.job(overrides) for overrides in self._expand(arguments)])
        if self.show == "cost":
            cost.show([(job.folder, job.config) for job in jobs], local=here is not None)
            return []
        if self.show:
            states.show([(job.folder, job.config) for job in jobs], self.show)
            return []
        todo = [job for job in jobs if not already_finished(job.folder, job.config)]
        if len(todo) < len(jobs):
            done = len(jobs) - len(todo)
            print(f"{done} of {len(jobs)} runs are finished already; force=true trains them again")
        if not todo:
            return []
        returns = list(here.launch_jobs(todo) if here else self._launch(todo))
        report_failures(todo, returns)
        return returns

    def _launch(self, jobs: list[Job]) -> list[JobReturn]:
        """By a launcher that knows Hydra alone."""
        try:
            with Progress([(job.folder, job.config) for job in jobs]):
                overrides = [[*job.overrides, QUIET] for job in jobs]
                return list(self.launcher.launch(overrides, initial_job_idx=0))
        except Exception as error:
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            raise ReproError(
                f"the launcher gave up ({type(error).__name__}: {reason}); what it started may still run. "
                "Launch again when they have ended: finished runs are kept, the others go on"
            ) from error

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


def show(arguments: list[str], how: str) -> None:
    """Show a sweep, or a run as a sweep of one, instead of launching it: "cost", or a mode of ``states.show``.

    ``arguments`` are those of ``python -m repro.train``.
    """
    if not any(a.startswith("sweep=") or a in ("-m", "--multirun") for a in arguments):
        alone = [] if any(a.startswith("threads=") for a in arguments) else [f"threads={machine.cores()}"]
        arguments = ["-m", *alone, *arguments]
    app = hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(_nothing)

    def shown() -> None:
        sys.argv[1:] = [*expand_sweep(arguments), "hydra.job.name=train", f"hydra.sweeper.show={how}"]
        app()

    register_schema()
    run_app(shown)


def _nothing(composed: DictConfig) -> None:
    """What every job of a sweep would do that is shown, not launched."""


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


def report_failures(jobs: list[Job], returns: list[JobReturn]) -> None:
    """ReproError that lists every failed run with its reason, if there is one."""
    failed = []
    for job, done in zip(jobs, returns, strict=True):
        if (error := _compat.error_of(done)) is not None:
            reason = str(error) if isinstance(error, ReproError) else f"{type(error).__name__}: {error}"
            failed.append(f"  {job.folder}: {reason}")
            logging.getLogger(__name__).debug("failed", exc_info=error)
    if failed:
        raise ReproError("\n".join([f"{len(failed)} of {len(jobs)} runs failed:", *failed]))
