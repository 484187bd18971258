"""Search for hyper-parameters as the paper does: the Hydra app ``python -m repro.search``.

Its arguments are those of ``repro.train``, which describe the run to search hyper-parameters for, and those of
``conf/search.yaml``: ``method=`` and ``search.KEY=``.
"""

import importlib
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro import command
from repro.config import register_schema
from repro.config.errors import ReproError, one_line
from repro.config.folders import CONF
from repro.config.resolving import check_folders, check_numbers
from repro.records import naming
from repro.search.files import make_folder, write
from repro.search.found import Found, in_words
from repro.search.runs import base_of
from repro.search.settings import METHODS, Common, LRRange, Recipe, Regularizer, Strategy

IGNORED_BY_SNAPSHOT = ("seeds", "low", "growth", "watch", "rounds", "bisections")
SET_BY_METHOD = ("schedule.lr.iterations", "divergence", "test_every")


def app(composed: DictConfig, arguments: Sequence[str], training: Sequence[str], dry_run: bool) -> None:
    """Search, write the result and print it; ``training`` are those of the ``arguments`` that the runs take."""
    from repro.search import dry, report

    method = method_of(composed.search)
    settings = settings_of(method, composed.search)
    search: Any = importlib.import_module(f"repro.search.{method}").search
    try:
        refuse(training, method, settings)
        base = base_of(training)
        if base.config.snapshots or base.config.start.curve:
            advice = "remove them (snapshots=[])" if base.config.snapshots else "choose another experiment"
            raise ReproError(f"{base.config.curve}: its snapshots are for a run of its own length; {advice}")
        if dry_run:
            dry.show(method, base, settings)
            return
        make_folder(base, settings, method)  # before anything trains
        found: Found = search(base, settings)
        found.search = shlex.join(["python", "-m", "repro.search", *arguments])
        folder = write(found, base, settings)
        if found.parts:
            found.files.append(report.write(found, base, folder))
    except Exception as error:  # otherwise Hydra prints a line of its own before the error
        command.fail(error)
    print("\n".join(summary(found)))


def method_of(node: Any) -> str:
    """The method whose settings these are. Raises ReproError for other ones: ``method=`` alone chooses them."""
    method = HydraConfig.get().runtime.choices["method"]
    if not isinstance(node, DictConfig):
        raise ReproError(f"search={node}: it holds the settings; set one of them with search.KEY=VALUE")
    if node.method != method:
        raise ReproError(f"search.method={node.method}: method= chooses the method; remove it")
    return str(method)


def settings_of(method: str, node: DictConfig) -> Common:
    """The settings of a method, checked. Raises ReproError for an unknown key or an impossible value."""
    values: Any = OmegaConf.to_container(node, resolve=True)
    values.pop("method")
    merged = OmegaConf.structured(METHODS[method])
    for key, value in values.items():
        try:
            OmegaConf.update(merged, key, value)
        except OmegaConfBaseException as error:
            wants_list = "is not a ListConfig" in str(error)
            problem = f"it is a list; write search.{key}=[{value}]" if wants_list else one_line(error)
            raise ReproError(f"search.{key}={value}: {problem}") from None
    settings = cast(Common, OmegaConf.to_object(merged))
    check_numbers(settings, "search.")
    if len(settings.momentum) not in (1, 2) or not all(0 <= m < 1 for m in settings.momentum):
        raise ReproError(
            f"search.momentum={settings.momentum}: give one value below 1, or two: at low LR and at high LR"
        )
    if settings.name is not None:
        check_folders("search.name", settings.name.split("/"))
        if not _is_readable(settings.name):
            problem = f"Hydra cannot read experiment={settings.name}; use letters, digits, -, _ and /"
            raise ReproError(f"search.name={settings.name}: {problem}")
    if isinstance(settings, LRRange) and settings.low >= settings.high:
        raise ReproError(f"search.low={settings.low:g} is not below search.high={settings.high:g}")
    if method in ("weight_decay", "dropout") and isinstance(settings, LRRange):
        if settings.factors != [1]:
            raise ReproError(f"search.factors={settings.factors}: method={method} does not read it; remove it")
        if len(settings.ratios) > 1:
            raise ReproError(f"search.ratios={settings.ratios}: method={method} reads one; give one")
    if isinstance(settings, Recipe) and not settings.stages:
        raise ReproError("search.stages=[] is empty; list at least one stage")
    if isinstance(settings, Regularizer) and settings.mode is Strategy.snapshot:
        defaults: Any = OmegaConf.load(CONF / f"method/{method}.yaml")
        # The other stages of the recipe read the other keys.
        for key in ["bisections"] if method == "recipe" else IGNORED_BY_SNAPSHOT:
            if (value := values.get(key, defaults[key])) != defaults[key]:
                raise ReproError(
                    f"search.{key}={value}: search.mode=snapshot does not read it; remove one of the two"
                )
    return settings


def _is_readable(name: str) -> bool:
    """Whether Hydra reads a name unquoted, as that of an experiment."""
    try:
        return str(OverridesParser.create().parse_override(f"experiment={name}").value()) == name
    except HydraException:
        return False


def refuse(training: Sequence[str], method: str = "", settings: Common | None = None) -> None:
    """Raise ReproError for overrides of keys that the search sets."""
    own_schedule = method in ("lr_range", "batch_size", "weight_decay", "dropout")
    if isinstance(settings, Regularizer) and settings.mode is Strategy.snapshot:
        own_schedule = False  # it reads the schedule's max LR
    for override in training:
        key = override.lstrip("+~").partition("=")[0]
        if key == "sweep" or override in ("-m", "--multirun"):
            raise ReproError(
                f"{override}: a search launches its runs itself; search.seeds=4 trains each with four seeds"
            )
        if own_schedule and key.startswith(("schedule.lr.", "schedule.momentum.")):
            other = "search.momentum" if "momentum" in key else "search.low and search.high"
            raise ReproError(f"{key}: method={method} chooses its own schedule; use {other} instead")
        if key in SET_BY_METHOD:
            raise ReproError(
                f"{key}: the search sets it; use search.tests, search.epochs and search.divergence instead"
            )


def summary(found: Found) -> list[str]:
    """The lines that are printed at the end."""
    lines = [f"{name}: {in_words(value)}" for name, value in found.chosen.items()]
    lines = [*(lines or ["nothing is suggested"]), f"why: {found.why}", *(f"note: {note}" for note in found.notes)]
    lines.append(f"cost: {found.cost}")
    if found.files:
        folder = found.files[0].parent
        lines.append(f"wrote {', '.join(str(path.relative_to(folder)) for path in found.files)} in {folder}")
    if found.command:
        lines.append(f"train it: {found.command}")
    return lines


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of the search itself, including options, and those of the runs that it trains."""
    searching: list[str] = []
    training: list[str] = []
    for argument, is_option in command.marked_options(arguments):
        key = argument.lstrip("+~").partition("=")[0]
        is_of_search = key in ("method", "search", "hydra.searchpath") or key.startswith("search.")
        if is_of_search or (is_option and argument not in ("-m", "--multirun")):
            searching.append(argument)
        else:
            training.append(argument)
    return searching, training


def main() -> None:
    """The console script ``repro-search``."""
    register_schema()
    naming.register()
    arguments = [a for a in sys.argv[1:] if a != "--dry-run"]
    searching, training = split(arguments)
    dry_run = "--dry-run" in sys.argv
    sys.argv[1:] = searching
    command.hydra_app(partial(app, arguments=arguments, training=training, dry_run=dry_run), "search")
