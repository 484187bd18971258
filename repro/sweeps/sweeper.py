"""A sweep is expanded into jobs, any launcher runs them, and every failed run is reported.

Hydra's own sweeper misses experiments in subfolders, lets two jobs write into one folder, and reports only the
first of several failures.
"""

import contextlib
import itertools
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import InstantiationException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from repro import command
from repro.config import fingerprint, notes, register_schema
from repro.config.errors import ReproError, describe, first_line, no_launcher
from repro.config.terminal import plural
from repro.records import already_finished, edited, is_finished, naming, read_info
from repro.sweeps import _compat, dry_run, elsewhere, machine, states, waves
from repro.sweeps.arguments import as_typed, expand_experiments, expand_sweep, is_sweep, require_here
from repro.sweeps.jobs import Composer, Job, compose_all
from repro.sweeps.launcher import OnThisMachine
from repro.sweeps.progress import Progress, modified_ns
from repro.training import lifecycle


class Sweeper:
    """Expands experiments, rejects wrong configurations, skips finished runs, launches the rest."""

    def __init__(self, params: dict[str, Any] | None = None, show: str | None = None):
        values: Any = OmegaConf.to_container(OmegaConf.create(params or {}), resolve=True)
        self.params = {key: as_typed(value) for key, value in values.items()}
        self.show = show  # what to print instead of launching: "cost", or a mode of repro.sweeps.states

    def setup(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what ``sweep`` needs. Raises ReproError if the launcher's plug-in is not installed."""
        self.loader = hydra_context.config_loader
        self.composer = Composer(self.loader, config)
        try:
            self.launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
        except InstantiationException as error:
            if isinstance(error.__cause__, ReproError):
                raise error.__cause__ from None
            raise
        except RuntimeError as error:
            if not str(error).startswith("Unknown plugin class"):
                raise
            raise ReproError(no_launcher(config.hydra.runtime.choices["hydra/launcher"])) from error

    @property
    def _cluster(self) -> elsewhere.Collects | None:
        return self.launcher if isinstance(self.launcher, elsewhere.Collects) else None

    def sweep(self, arguments: list[str]) -> Any:
        """Launch every unfinished job; returns the results in order. Raises ReproError that names all failures."""
        if not self.show:
            self.start()
        jobs = self.jobs(self._expand(arguments))
        if self.show and self.show != "cost":
            states.print_states([(job.folder, job.config) for job in jobs], self.show)
            return []
        return self.launch(jobs)

    def start(self) -> None:
        """Start slow preparations, which continue while the jobs are composed."""
        if isinstance(self.launcher, OnThisMachine):
            self.launcher.start()

    def jobs(self, combinations: Iterable[list[str]], quiet: bool = False) -> list[Job]:
        """The job of each combination of overrides, a shared run only once; unless ``quiet`` prints notes."""
        jobs = merge_shared(compose_all(self.composer, [*combinations]))
        waves.link(jobs)
        if self.show in (None, "cost") and not quiet:
            for note in dict.fromkeys(note for job in jobs for note in notes(job.config)):
                print(note)
            for line in waves.described(jobs):
                print(line)
        return jobs

    def launch(self, jobs: list[Job]) -> list[JobReturn]:
        """Launch the unfinished jobs, or print their cost; returns and raises as ``sweep`` does."""
        local_launcher = self.launcher if isinstance(self.launcher, OnThisMachine) else None
        unfinished, failures = sort_out(jobs, self.composer)
        if self.show == "cost":
            failures |= waves.refused(waves.in_waves(unfinished)[0] if unfinished else [])
            trainable = [job for job in jobs if job.folder not in failures]
            costs = [(job.folder, job.config) for job in trainable]
            if costs:
                dry_run.print_cost(costs, local_launcher is not None, self._cluster)
            raise_failures(failures, len(jobs))
            return []
        if finished := len(jobs) - len(unfinished) - len(failures):
            again = f"force=true trains {'it' if finished == 1 else 'them'} again"
            print(f"{dry_run.finished_already(finished, len(jobs))} already; {again}")
            trained_now = {job.folder for job in unfinished} | set(failures)
            note_edits(job for job in jobs if job.folder not in trained_now)
        runs = len(unfinished) + len(failures)
        before = {job.folder: modified_ns(job.folder) for job in unfinished}
        returns: list[JobReturn] = []
        try:
            if unfinished:
                launch = local_launcher.launch_jobs if local_launcher else self._launch
                returns = waves.launch(unfinished, launch)
        except BaseException:  # a signal, mostly
            failures |= {folder: reason for folder in before if (reason := failed_since(folder, before[folder]))}
            if failures:
                print(f"error: {describe_failures(failures, runs)}", file=sys.stderr)
            raise
        by_others = 0
        for job, job_return in zip(unfinished, returns, strict=True):
            if (failure := _compat.error_of(job_return)) is None:
                continue
            if is_finished_now(job):
                by_others += 1
                continue
            failures[job.folder] = describe(failure) or f"{type(failure).__name__}: {failure}"
            logging.getLogger(__name__).debug("failed", exc_info=failure)
        if by_others:
            line = dry_run.finished_already(by_others, runs)
            print(f"note: {line} all the same, by another process or before its own died", file=sys.stderr)
        raise_failures(failures, runs)
        return returns

    def _launch(self, jobs: list[Job]) -> list[JobReturn]:
        """Launch jobs by their overrides, in other processes or machines; their results by their records."""
        returns: dict[Path, JobReturn] = {}
        for job, problem in zip(jobs, elsewhere.unable(jobs), strict=True):
            if problem is not None:
                lifecycle.refuse(job.config, job.folder, job.changes, problem)
                returns[job.folder] = _compat.failed_return(job.overrides, ReproError(problem))
        trainable = [job for job in jobs if job.folder not in returns]
        overrides = [elsewhere.overrides(job) for job in trainable]
        cluster = self._cluster
        launch = cluster.collect if cluster else self._launch_by_hydra
        if trainable:
            with Progress([(job.folder, job.config) for job in trainable], queued=cluster is not None):
                returns |= dict(zip((job.folder for job in trainable), launch(trainable, overrides), strict=True))
        return [returns[job.folder] for job in jobs]

    def _launch_by_hydra(self, jobs: list[Job], overrides: list[list[str]]) -> Sequence[JobReturn]:
        """Launch by Hydra's interface, whose launchers raise when a job dies, and abandon the others."""
        before = {job.folder: modified_ns(job.folder) for job in jobs}
        try:
            returns = self.launcher.launch(overrides, initial_job_idx=0)
        except Exception as error:
            print(
                f"error: the launcher gave up ({type(error).__name__}: {first_line(error)}); {elsewhere.AGAIN}",
                file=sys.stderr,
            )
            ending = f"the launcher gave up: {type(error).__name__}"
            return [elsewhere.found(job, before[job.folder], ending) for job in jobs]
        ending = "the launcher reports its job as completed"
        return [
            job_return if _compat.error_of(job_return) else elsewhere.found(job, before[job.folder], ending)
            for job, job_return in zip(jobs, returns, strict=True)
        ]

    def _expand(self, arguments: list[str]) -> Iterator[list[str]]:
        """The overrides of every job; arguments replace the sweep's ``params`` of the same key."""
        values: list[tuple[str, list[str]]] = []
        parser = OverridesParser.create(config_loader=self.loader)
        typed = parser.parse_overrides(arguments)
        params = [
            f"{key}={value}"
            for key, value in self.params.items()
            if key.lstrip("+") not in {o.get_key_element().lstrip("+") for o in typed}
        ]
        for override in [*parser.parse_overrides(params), *typed]:
            key = override.get_key_element()
            if key == "experiment":
                choices = expand_experiments(override, self.loader)
            elif not override.is_sweep_override():
                choices = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                choices = list(override.sweep_string_iterator())
            else:
                raise ReproError(f"{override.input_line}: an interval cannot be swept; list its values")
            if not choices:
                raise ReproError(f"{override.input_line}: nothing matches, so there is nothing to run")
            if not isinstance(override.value(), dict):  # as in a single run, a dictionary extends earlier values
                values = [(k, v) for k, v in values if k.lstrip("+") != key.lstrip("+")]
            values.append((key, choices))
        keys = [key for key, _ in values]
        for combination in itertools.product(*(choices for _, choices in values)):
            yield [f"{key}={value}" for key, value in zip(keys, combination, strict=True)]


def show(arguments: list[str], mode: str) -> None:
    """Print a sweep, or a run as a sweep of one, instead of launching it: "cost", or a mode of ``print_states``.

    ``arguments`` are those of ``python -m repro.train``.
    """
    if not any(a.startswith("sweep=") or a in ("-m", "--multirun") for a in arguments):
        for override in arguments if mode == "cost" else []:
            if is_sweep(override):
                raise ReproError(f"{override}: several runs need -m")
            require_here(override)
        # A single run uses all cores by default.
        threads = [] if any(a.startswith("threads=") for a in arguments) else [f"threads={machine.cores()}"]
        arguments = ["-m", *threads, *arguments]
    register_schema()
    naming.register()
    sys.argv[1:] = [*expand_sweep(arguments), f"hydra.sweeper.show={mode}"]
    command.hydra_app(_no_task, "train")


def _no_task(composed: DictConfig) -> None:
    """The task of a sweep that is printed, not launched: never called."""


def merge_shared(jobs: list[Job]) -> list[Job]:
    """The jobs without duplicates: a run that several curves share is kept once.

    Raises ReproError if two different runs would write into one folder.
    """

    def without_experiment(job: Job) -> list[str]:
        return [override for override in job.overrides if not override.startswith("experiment=")]

    kept: dict[Path, Job] = {}
    for job in jobs:
        first = kept.setdefault(job.folder, job)
        is_shared = (
            job.overrides != first.overrides
            and without_experiment(job) == without_experiment(first)
            and fingerprint(job.config) == fingerprint(first.config)
        )
        if first is not job and not is_shared:
            raise ReproError(
                f"two jobs would write into {job.folder}: '{' '.join(first.overrides)}' and "
                f"'{' '.join(job.overrides)}'"
            )
    return list(kept.values())


def sort_out(jobs: list[Job], composer: Composer) -> tuple[list[Job], dict[Path, str]]:
    """The unfinished jobs; and by folder, why other jobs cannot be trained: a conflicting or broken record."""
    unfinished, failures = [], {}
    for job in jobs:
        try:
            if job.config.dataset.digest is None and is_finished(job.folder, job.config):
                composer.identify(job.config.dataset, decode=True)
            if not already_finished(job.folder, job.config):
                unfinished.append(job)
        except ReproError as error:
            failures[job.folder] = str(error)
    return unfinished, failures


def is_finished_now(job: Job) -> bool:
    """Whether a job that failed is finished by its record: another process has trained it meanwhile."""
    with contextlib.suppress(ReproError):
        return not job.config.force and already_finished(job.folder, job.config)
    return False


def note_edits(jobs: Iterable[Job]) -> None:
    """Print which of the user's own functions have changed since these finished jobs were trained."""
    infos = [(read_info(job.folder), job.config) for job in jobs]
    for text, count in Counter(text for info, config in infos if info and (text := edited(info, config))).items():
        print(f"note: {text} {count} of them {'was' if count == 1 else 'were'} trained", file=sys.stderr)


def raise_failures(failures: Mapping[Path, str], runs: int) -> None:
    """Raise ReproError that names every failed run with its reason, if any of ``runs`` runs failed."""
    if failures:
        raise ReproError(describe_failures(failures, runs))


def describe_failures(failures: Mapping[Path, str], runs: int) -> str:
    """Every failed run with its reason; one line if all ``runs`` failed for the same reason."""
    if len(failures) == runs > 1 and len(reasons := set(failures.values())) == 1:
        return f"none of the {runs} runs could train: {reasons.pop()}"
    lines = [f"  {folder}: {reason}" for folder, reason in failures.items()]
    return "\n".join([f"{len(failures)} of {plural(runs, 'run')} failed:", *lines])


def failed_since(folder: Path, modified: int | None) -> str | None:
    """Why a run failed, if its record says so and was written since ``modified`` (``modified_ns``), or None."""
    with contextlib.suppress(ReproError):
        if modified_ns(folder) != modified and (info := read_info(folder)) and info["status"] == "failed":
            return info.get("reason", "no reason was recorded")
    return None
