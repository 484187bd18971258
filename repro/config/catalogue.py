"""What ``conf/`` holds: the run that a command line describes, the curves of a figure. No torch here."""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from repro.config import Config, register_schema, resolve
from repro.config.folders import CONF


def composed(*overrides: str) -> Any:
    """What a command line of ``repro.train`` composes, without Hydra's own part.

    In a Hydra app its search path holds. Raises what Hydra raises.
    """
    register_schema()
    begun = GlobalHydra.instance().is_initialized()
    before = HydraConfig.instance().cfg
    with contextlib.nullcontext() if begun else initialize_config_dir(str(CONF), version_base="1.3"):
        path = [] if any(o.startswith("hydra.searchpath=") for o in overrides) else search_path()
        made: Any = compose("train", [*path, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(made)
        try:
            made.curve = made.curve  # it says which experiment was chosen, as Hydra knows now
        finally:
            HydraConfig.instance().cfg = before
        with open_dict(made):
            del made["hydra"]
        return made


def folders_of(arguments: Sequence[str]) -> list[Path]:
    """The folders that ``--config-dir`` and ``hydra.searchpath`` add to the search path."""
    options = ("--config-dir", "-cd")
    apart = [value for option, value in itertools.pairwise(arguments) if option in options]
    joined = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config-dir=")]
    listed: list[str] = []
    for argument in arguments:
        if argument.startswith("hydra.searchpath="):
            with contextlib.suppress(HydraException):  # Hydra itself says what is wrong
                value = OverridesParser.create().parse_override(argument).value()
                listed += map(str, value if isinstance(value, list) else [])
    return [Path(value.removeprefix("file://")) for value in (*apart, *joined, *listed)]


def choices(*groups: str) -> str:
    """The options of config groups as text, a line a group: ``${choices:...}`` of the help texts.

    Every folder of ``conf/experiment`` is a sweep too.
    """
    folders = [CONF, *folders_of(sys.argv[1:])]
    options: dict[str, set[str]] = {}
    for folder in folders:
        for path in (path for group in groups for path in (folder / group).rglob("*.yaml")):
            options.setdefault(path.parent.relative_to(folder).as_posix(), set()).add(path.stem)
    if "sweep" in options:
        figures = {path.name for folder in folders for path in (folder / "experiment").glob("*") if path.is_dir()}
        options["sweep"] = options["sweep"] - {"figure"} | figures
    return "\n".join(f"{group}: {', '.join(sorted(names))}" for group, names in sorted(options.items()))


def added_folders() -> list[str]:
    """The folders beside ``conf/`` that the running Hydra app reads: ``--config-dir`` and ``hydra.searchpath``."""
    if not HydraConfig.initialized():
        return []
    hydra: Any = HydraConfig.get()
    sources = OmegaConf.select(hydra, "runtime.config_sources") or []  # empty after Hydra's compose()
    given = [f"file://{source.path}" for source in sources if source.provider == "command-line"]
    return [*given, *(folder for folder in hydra.searchpath if folder not in given)]


def search_path() -> list[str]:
    """The override that gives the ``added_folders()`` to another Hydra; no override where there are none."""
    folders = added_folders()
    return [f"hydra.searchpath={json.dumps(folders, ensure_ascii=False)}"] if folders else []


@contextlib.contextmanager
def hydra_of_our_own() -> Iterator[None]:
    """Hydra with ``conf/`` alone, whatever app or notebook has started it already."""
    before, config_before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before
        HydraConfig.instance().cfg = config_before


def run_of(*overrides: str) -> Config:
    """The run that a command line of ``repro.train`` describes. Raises ReproError and what Hydra raises."""
    return resolve(composed(*overrides), overrides)


def curves(experiments: str, sources: list[Path]) -> dict[str, str]:
    """Curve -> whose runs it shows, of every file in an experiment folder.

    Usually its own, <figure>/<curve>; a file with a key ``curve`` shows another's.
    """
    homes = {}
    for source in sources:
        for path in sorted((source / "experiment" / experiments).glob("*.yaml")):
            own = OmegaConf.load(path)
            home = own.get("curve") if isinstance(own, DictConfig) else None
            homes[path.stem] = home or f"{experiments}/{path.stem}"
    return homes
