"""Runs into one tidy pandas frame: a row a test, the same columns whatever the source. No torch here."""

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
from repro.records import naming, starts
from repro.records.files import find
from repro.records.history import AGAIN, broken, read_history
from repro.records.info import read_info
from repro.records.types import FINISHED, Info, Row

if TYPE_CHECKING:
    from repro.tracking.pull import SourceRun

KEYS = ["curve", "seed", "status"]
VALUES = ["iteration", "lr", "momentum", "train_loss", "test_loss", "test_accuracy", "images_per_second"]
TYPES = {"curve": "str", "seed": "int64", "status": "str", "iteration": "int64"}
PARALLEL = 16  # histories read at once


@dataclass
class Runs:
    """Runs as read: ``frame`` has the columns KEYS + VALUES, ``info`` each run's ``run.json`` by (curve, seed)."""

    frame: pd.DataFrame
    info: dict[tuple[str, int], Info] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)  # one line each: what could not be read
    notes: list[str] = field(default_factory=list)  # one line each: what was chosen among several
    counts: str = ""  # what each filter left of what the source has
    place: str = ""  # the source, in words

    def drop(self, curve: str, seed: int) -> None:
        """Leave a run out."""
        del self.info[curve, seed]
        self.frame = self.frame[(self.frame["curve"] != curve) | (self.frame["seed"] != seed)]


@dataclass(frozen=True)
class _Run:
    """One attempt at a run of a figure, its history not read yet."""

    curve: str
    seed: int
    name: str
    info: Info
    rows: Callable[[], list[Row]]
    whole: bool = True  # whether the source says that it has every row
    notes: list[str] = field(default_factory=list)  # what rows() found to say
    copies: list["_Run"] = field(default_factory=list)  # others of the same rows, if these cannot be read


def local(curves: Mapping[str, Path], variants: bool = False) -> Runs:
    """The runs on disk of ``curves``: name -> the folder that holds its ``seed<k>`` folders.

    With ``variants``, what a command line changed in the experiment makes a curve of its own, named after it.
    """
    runs, errors = [], []
    for curve, folder in curves.items():
        for variant, seed, path in _folders(folder, variants):
            try:
                info = read_info(path)
            except ReproError as error:
                errors.append(str(error))
                continue
            if info is not None:
                name = _variant_name(curve, variant, info)
                runs.append(_Run(name, seed, str(path), info, partial(read_history, path)))
    notes: list[str] = []
    if variants:
        runs, notes = _newest(_one_name(runs))
    loaded = _assembled(runs)
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
    """The runs of ``curves`` (name -> whose runs it shows) among what W&B has: the newest attempt at each.

    ``suffix`` is the variant that is the figure's own; with ``variants`` the others are curves too.
    """
    everything = list(source_runs)
    ours = [f for f in everything if f.info["curve"] in curves.values()]
    scaled = [f for f in ours if f.info["config"]["scale"]["name"] == scale]
    runs = []
    for f in scaled:
        variant = f.info.get("variant") or ""
        for name, home in curves.items():
            if home == f.info["curve"] and (variant == suffix or (variants and variant.startswith(suffix))):
                name = _variant_name(name, "" if variant == suffix else variant, f.info)
                runs.append(_Run(name, f.info["seed"], f.name, f.info, f.rows, f.whole, f.notes))
    chosen, notes = _newest(_one_name(runs))
    assembled = _assembled(chosen)
    assembled.notes[:0] = notes
    assembled.counts = (
        f"{len(everything)} runs found, {len(ours)} of its curves, {len(scaled)} of them at scale {scale}, "
        f"{len(runs)} of those with its overrides"
    )
    return assembled


def _variant_name(curve: str, variant: str, info: Info) -> str:
    """``curve``, and what a run changes in it if its folder is named after that."""
    changed = (info.get("overrides") or naming.split(variant)) if variant else []
    return ", ".join([curve, *changed])


def _one_name(runs: list[_Run]) -> list[_Run]:
    """The runs, each under the shortest of its names: folders of one run may have been spelled differently."""
    names: dict[tuple[str, ...], str] = {}
    keys = [(run.curve.split(", ")[0], run.info.get("curve", ""), run.info.get("fingerprint", "")) for run in runs]
    for key, run in zip(keys, runs, strict=True):
        names[key] = min(names.get(key, run.curve), run.curve, key=len)
    return [replace(run, curve=names[key]) if key[-1] else run for key, run in zip(keys, runs, strict=True)]


def _newest(runs: list[_Run]) -> tuple[list[_Run], list[str]]:
    """One attempt at each run of a curve, the newest that finished or if none did the newest; and notes."""
    notes = []
    attempts: dict[tuple[str, int], list[_Run]] = {}
    for run in runs:
        attempts.setdefault((run.curve, run.seed), []).append(run)
    chosen = []
    for (curve, seed), several in sorted(attempts.items()):
        several.sort(key=_recency)
        newest = several[-1]
        same = (newest.info.get("fingerprint"), newest.info.get("digest"))
        copies = [r for r in several[:-1] if (r.info.get("fingerprint"), r.info.get("digest")) == same]
        finished = [run for run in several if run.info["status"] in FINISHED]
        if len({(run.info.get("fingerprint"), run.info.get("digest")) for run in finished}) > 1:
            names = ", ".join(run.name for run in finished)
            configured = len({run.info.get("fingerprint") for run in finished}) > 1
            what = "configuration" if configured else "results"
            notes.append(
                f"note: {curve} seed {seed}: {len(finished)} finished runs differ in {what} ({names}); "
                f"the newest, {newest.name}, is drawn"
            )
        chosen.append(replace(newest, copies=copies[::-1] if same[-1] else []))
    return chosen, notes


def _recency(run: _Run) -> tuple[bool, str, int]:
    finished = run.info["status"] in FINISHED and run.whole
    return finished, run.info.get("started", ""), run.info.get("attempt", 0)


def _assembled(runs: list[_Run]) -> Runs:
    """The frame of one attempt at each run.

    A run that diverged keeps its last row for the tests that it did not reach: a network of NaNs stays one, and
    leaving it out would flatter the mean over seeds.
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
    other = [run for run in runs if run.info.get("protocol", PROTOCOL) != PROTOCOL]
    current = [run for run in runs if run not in other]
    if other:
        versions = ", ".join(sorted({str(run.info["protocol"]) for run in other}))
        loaded.broken.append(
            f"{len(other)} of {len(runs)} runs are of protocol version {versions} and left out: this is version "
            f"{PROTOCOL}; train them again"
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
                history = history + _held(history[-1], info["config"])
            rows += [{"curve": run.curve, "seed": run.seed, "status": info["status"], **row} for row in history]
    frame = pd.DataFrame(rows, columns=KEYS + VALUES)
    loaded.frame = frame.astype({c: TYPES.get(c, "float64") for c in frame.columns})
    return loaded


def outdated(loaded: Runs, scale: str) -> dict[tuple[str, int], str]:
    """The runs (by curve and seed) whose values ``conf/`` no longer has, and what differs, in words.

    A run is held against its experiment at this scale with what it was said to change.
    """
    expected: dict[tuple[str, ...], DictConfig | str] = {}
    problems = {}
    for (curve, seed), info in loaded.info.items():
        if "fingerprint" not in info:
            continue
        changed = info.get("overrides") or naming.split(info.get("variant") or "")
        overrides = (f"experiment={info['curve']}", f"scale={scale}", *naming.as_overrides(changed))
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
            starts.settle(run, changed)
        except ReproError as error:
            problems[curve, seed] = str(error)
            continue
        if problem := records.outdated(info, run):
            problems[curve, seed] = problem
    return problems


def averaged(runs: Runs) -> pd.DataFrame:
    """The rows that a figure may average: of each curve, its finished runs, or if there is none its others."""
    done = runs.frame["status"].isin(FINISHED)
    curves = runs.frame["curve"]
    return runs.frame[done | ~curves.isin(curves[done].unique())]


def over_seeds(frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Mean and sample standard deviation (ddof 1) of ``y`` over the seeds, by curve and ``x``.

    Only where every seed of the curve has a row: a mean never changes the runs it is over.
    """
    seeds = frame.groupby("curve")["seed"].nunique()
    table = frame.groupby(["curve", x], sort=True)[y].agg(["mean", "std", "count"]).reset_index()
    return table[table["count"] == table["curve"].map(seeds)]


def final(frame: pd.DataFrame, y: str, tests: int = 3) -> pd.Series:
    """Mean of ``y`` over the last ``tests`` tests of each run, indexed by (curve, seed)."""
    last = frame.sort_values("iteration").groupby(["curve", "seed"]).tail(tests)
    return last.groupby(["curve", "seed"])[y].mean()


def config_of(loaded: Runs, curve: str) -> dict[str, Any] | None:
    """The configuration of the curve's first run, finished or not; None where it has none."""
    return next((info["config"] for (c, _), info in loaded.info.items() if c == curve), None)


def own_iteration(loaded: Runs, curve: str, iteration: int | None) -> float:
    """Where a paper-scale ``iteration`` (None: the end) lies in the curve's runs, finished or not.

    Where the curve has no run, another curve's says how long an iteration is; its end is then nowhere (NaN).
    """
    config = config_of(loaded, curve)
    if iteration is None:
        return float("nan") if config is None else float(config["iterations"])
    return float(iteration * (config or next(iter(loaded.info.values()))["config"])["scale"]["iterations"])


def at(frame: pd.DataFrame, loaded: Runs, curve: str, y: str, iteration: int | None) -> pd.Series:
    """``y`` at a paper-scale ``iteration`` (None: the end): each seed's nearest test, if it has come that far."""
    rows = frame[frame["curve"] == curve]
    if rows.empty:
        return pd.Series(dtype="float64")
    target = own_iteration(loaded, curve, iteration)
    rows = rows[rows.groupby("seed")["iteration"].transform("max") >= target]
    distance = (rows["iteration"] - target).abs()
    nearest: pd.Series = rows.loc[distance.groupby(rows["seed"]).idxmin()].set_index("seed")[y]
    return nearest


def _folders(folder: Path, variants: bool) -> list[tuple[str, int, Path]]:
    """Variant ("" for none), seed and folder of every run under a curve's folder."""
    folders = []
    for path in find(folder, "run.json") if variants else folder.glob("seed*/run.json"):
        if match := re.fullmatch(r"seed(\d+)", path.parent.name):
            variant = path.parent.parent.relative_to(folder).as_posix()
            folders.append((variant.removeprefix("."), int(match[1]), path.parent))
    return sorted(folders)


def _held(last: Row, config: dict[str, Any]) -> list[Row]:
    """The tests that a diverged run did not come to, with the values of its last one and the schedule's LR."""
    every, end = config["test_every"], config["iterations"]
    schedule = schedules.build(config["schedule"]["lr"], config["schedule"]["momentum"])
    tests = [*range((last["iteration"] // every + 1) * every, end, every), end]
    planned = [(i, *schedule(i)) for i in tests if i > last["iteration"]]
    return [{**last, "iteration": i, "lr": lr, "momentum": momentum} for i, lr, momentum in planned]
