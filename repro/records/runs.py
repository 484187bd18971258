"""Runs as one tidy pandas frame: one row per test, the same columns for every source. Does not import torch."""

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from hydra.errors import HydraException
from omegaconf import DictConfig

from repro import records, schedules
from repro.config import PROTOCOL, catalogue, resolve
from repro.config.errors import ReproError, one_line
from repro.config.terminal import plural
from repro.records import naming, starts
from repro.records.files import find
from repro.records.history import AGAIN, broken, read_history
from repro.records.info import read_info
from repro.records.lock import holder
from repro.records.types import FINISHED, Info, Row

if TYPE_CHECKING:
    from repro.tracking.pull import SourceRun

KEYS = ["curve", "seed", "status"]
VALUES = ["iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy", "images_per_second"]
TYPES = {"curve": "str", "seed": "int64", "status": "str", "iteration": "int64"}
PARALLEL = 16  # histories read concurrently


@dataclass
class Runs:
    """Runs as read: ``frame`` has the columns KEYS + VALUES, ``info`` each run's ``run.json`` by (curve, seed)."""

    frame: pd.DataFrame
    info: dict[tuple[str, int], Info] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)  # one line for each run that could not be read
    notes: list[str] = field(default_factory=list)  # one line for each choice among several runs
    counts: str = ""  # how many runs each filter kept
    place: str = ""  # the source, as messages name it

    def drop(self, curve: str, seed: int) -> None:
        """Remove a run."""
        del self.info[curve, seed]
        self.frame = self.frame[(self.frame["curve"] != curve) | (self.frame["seed"] != seed)]


@dataclass(frozen=True)
class _Run:
    """One attempt at a run of a figure; its history is read later."""

    curve: str
    seed: int
    name: str
    info: Info
    rows: Callable[[], list[Row]]
    whole: bool = True  # whether the source reports that it has every row
    notes: list[str] = field(default_factory=list)  # filled by rows()
    copies: list["_Run"] = field(default_factory=list)  # other sources of the same rows, if these cannot be read


def local(curves: Mapping[str, Path], variants: bool = False, suffix: str = "") -> Runs:
    """The runs on disk of ``curves``: name -> the folder that holds its ``seed<k>`` folders.

    ``suffix`` is the figure's own variant, a folder below. With ``variants``, runs with further overrides of the
    experiment are further curves, named after these overrides.
    """
    runs, errors = [], []
    for curve, folder in curves.items():
        for variant, seed, path in _folders(folder, variants, suffix):
            try:
                info = read_info(path)
            except ReproError as error:
                errors.append(str(error))
                continue
            if info is not None:
                if info["status"] == "running" and holder(path) is None:
                    info = {**info, "status": "stopped"}  # its process was killed
                name = _variant_name(curve, variant, info)
                runs.append(_Run(name, seed, str(path), info, partial(read_history, path)))
    notes: list[str] = []
    if variants:
        runs, notes = _newest(_merge_names(runs))
    loaded = _assemble(runs)
    loaded.broken[:0] = errors
    loaded.notes = notes
    return loaded


def pulled(
    source_runs: "Iterable[SourceRun]",
    curves: Mapping[str, str],
    scale: str,
    suffix: str = "",
    variants: bool = False,
) -> Runs:
    """The runs of ``curves`` (name -> whose runs it shows) among those that W&B has: the newest attempt at each.

    ``suffix`` is the figure's own variant; with ``variants`` the others are further curves.
    """
    all_runs = list(source_runs)
    of_curves = [run for run in all_runs if run.info["curve"] in curves.values()]
    at_scale = [run for run in of_curves if run.info["config"]["scale"]["name"] == scale]
    runs = []
    for run in at_scale:
        variant = run.info.get("variant") or ""
        for name, home in curves.items():
            if home == run.info["curve"] and (variant == suffix or (variants and _extends(variant, suffix))):
                name = _variant_name(name, "" if variant == suffix else variant, run.info)
                runs.append(_Run(name, run.info["seed"], run.name, run.info, run.rows, run.whole, run.notes))
    chosen, notes = _newest(_merge_names(runs))
    assembled = _assemble(chosen)
    assembled.notes[:0] = notes
    assembled.counts = (
        f"{plural(len(all_runs), 'run')} found, {len(of_curves)} of its curves, {len(at_scale)} of them at "
        f"scale {scale}, {len(runs)} of those with its overrides"
    )
    return assembled


def _variant_name(curve: str, variant: str, info: Info) -> str:
    """``curve``, followed by the run's overrides if its folder is named after them."""
    overrides = (info.get("overrides") or naming.split(variant)) if variant else []
    return ", ".join([curve, *overrides])


def _merge_names(runs: list[_Run]) -> list[_Run]:
    """The runs, each under the shortest of its names: the folders of one run may be spelled differently."""
    names: dict[tuple[str, ...], str] = {}
    keys = [(run.curve.split(", ")[0], run.info.get("curve", ""), run.info.get("fingerprint", "")) for run in runs]
    for key, run in zip(keys, runs, strict=True):
        names[key] = min(names.get(key, run.curve), run.curve, key=len)
    return [replace(run, curve=names[key]) if key[-1] else run for key, run in zip(keys, runs, strict=True)]


def _newest(runs: list[_Run]) -> tuple[list[_Run], list[str]]:
    """One attempt at each run of a curve, the newest that finished, or the newest if none did; and notes."""
    notes = []
    attempts: dict[tuple[str, int], list[_Run]] = {}
    for run in runs:
        attempts.setdefault((run.curve, run.seed), []).append(run)
    chosen = []
    for (curve, seed), candidates in sorted(attempts.items()):
        candidates.sort(key=_recency)
        newest = candidates[-1]
        identity = (newest.info.get("fingerprint"), newest.info.get("digest"))
        copies = [r for r in candidates[:-1] if (r.info.get("fingerprint"), r.info.get("digest")) == identity]
        finished = [run for run in candidates if run.info["status"] in FINISHED]
        if len({(run.info.get("fingerprint"), run.info.get("digest")) for run in finished}) > 1:
            names = ", ".join(run.name for run in finished)
            is_configured_otherwise = len({run.info.get("fingerprint") for run in finished}) > 1
            aspect = "configuration" if is_configured_otherwise else "results"
            notes.append(
                f"note: {curve} seed {seed}: {len(finished)} finished runs differ in {aspect} ({names}); "
                f"the newest, {newest.name}, is drawn"
            )
        chosen.append(replace(newest, copies=copies[::-1] if identity[-1] else []))
    return chosen, notes


def _recency(run: _Run) -> tuple[bool, str, int]:
    finished = run.info["status"] in FINISHED and run.whole
    return finished, run.info.get("started", ""), run.info.get("attempt", 0)


def _assemble(runs: list[_Run]) -> Runs:
    """The frame of one attempt at each run.

    A diverged run repeats its last row for the tests that it did not reach: its network does not recover, and
    dropping it would flatter the mean over seeds.
    """

    def read(run: _Run) -> list[Row] | str:
        problem = ""
        for copy in (run, *run.copies):
            if not isinstance(history := read_one(copy), str):
                return history
            problem = problem or history
        return problem

    def read_one(run: _Run) -> list[Row] | str:
        try:
            history = run.rows()
        except ReproError as error:
            return str(error)
        if problem := broken(run.info, history):
            return f"{run.name}: {problem}; {AGAIN}"
        return history

    loaded = Runs(pd.DataFrame())
    runs = sorted(runs, key=lambda run: (run.curve, run.seed))
    outdated = [run for run in runs if run.info.get("protocol", PROTOCOL) != PROTOCOL]
    current = [run for run in runs if run not in outdated]
    if outdated:
        versions = ", ".join(sorted({str(run.info["protocol"]) for run in outdated}))
        loaded.broken.append(
            f"{len(outdated)} of {len(runs)} runs have protocol version {versions} and are excluded: this is "
            f"version {PROTOCOL}; train them again"
        )
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for run, history in zip(current, pool.map(read, current), strict=True):
            if isinstance(history, str):
                loaded.broken.append(history)
                continue
            loaded.notes += run.notes
            info = loaded.info[run.curve, run.seed] = run.info
            if info["status"] == "diverged" and history:
                history = history + _repeat_last(history[-1], info["config"])
            rows += [{"curve": run.curve, "seed": run.seed, "status": info["status"], **row} for row in history]
    frame = pd.DataFrame(rows, columns=KEYS + VALUES)
    loaded.frame = frame.astype({c: TYPES.get(c, "float64") for c in frame.columns})
    return loaded


def outdated(loaded: Runs, scale: str) -> dict[tuple[str, int], str]:
    """The runs whose values differ from the current ``conf/``: (curve, seed) -> a description of the differences.

    A run is compared with its experiment at this scale with the run's recorded overrides.
    """
    expected: dict[tuple[str, ...], DictConfig | str] = {}
    problems = {}
    for (curve, seed), info in loaded.info.items():
        if "fingerprint" not in info:
            continue
        changes = info.get("overrides") or naming.split(info.get("variant") or "")
        overrides = (f"experiment={info['curve']}", f"scale={scale}", *naming.as_overrides(changes))
        if overrides not in expected:
            try:
                expected[overrides] = catalogue.composed(*overrides)
            except HydraException as error:
                expected[overrides] = one_line(error)
        base = expected[overrides]
        if isinstance(base, str):
            problems[curve, seed] = base
            continue
        base.seed = seed
        try:
            run = resolve(base, overrides)
            starts.settle(run, changes)
        except ReproError as error:
            problems[curve, seed] = str(error)
            continue
        if problem := records.outdated(info, run):
            problems[curve, seed] = problem
    return problems


def _folders(folder: Path, variants: bool, suffix: str) -> list[tuple[str, int, Path]]:
    """Variant ("" for the figure's own), seed and folder of every run under a curve's folder."""
    folders = []
    for path in find(folder, "run.json") if variants else (folder / suffix).glob("seed*/run.json"):
        if match := re.fullmatch(r"seed(\d+)", path.parent.name):
            variant = path.parent.parent.relative_to(folder).as_posix().removeprefix(".")
            if _extends(variant, suffix):
                folders.append(("" if variant == suffix else variant, int(match[1]), path.parent))
    return sorted(folders)


def _extends(variant: str, suffix: str) -> bool:
    """Whether a variant has the overrides of ``suffix``, and perhaps more."""
    return not suffix or {*naming.split(suffix)} <= {*naming.split(variant)}


def _repeat_last(last: Row, config: dict[str, Any]) -> list[Row]:
    """Rows for the tests that a diverged run did not reach: its last row, with the schedule's LR and momentum."""
    test_every, end = config["test_every"], config["iterations"]
    schedule = schedules.build(config["schedule"]["lr"], config["schedule"]["momentum"])
    tests = [*range((last["iteration"] // test_every + 1) * test_every, end, test_every), end]
    planned = [(i, *schedule(i)) for i in tests if i > last["iteration"]]
    return [{**last, "iteration": i, "lr": lr, "momentum": momentum} for i, lr, momentum in planned]
