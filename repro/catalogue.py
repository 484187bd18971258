"""What ``conf/`` asks for: the run that a command line describes, and whether a record is still of that run."""

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from repro import records
from repro.config import Config, register_schema, resolve
from repro.errors import ReproError, one_line
from repro.folders import CONF


def composed(*overrides: str) -> Any:
    """What a command line of ``repro.train`` composes, without Hydra's own part.

    In a Hydra app its search path holds. Raises what Hydra raises.
    """
    register_schema()
    begun = GlobalHydra.instance().is_initialized()
    before = HydraConfig.instance().cfg
    with contextlib.nullcontext() if begun else initialize_config_dir(str(CONF), version_base="1.3"):
        made: Any = compose("train", [*overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(made)
        try:
            made.curve = made.curve  # it says which experiment was chosen, as Hydra knows now
        finally:
            HydraConfig.instance().cfg = before
        with open_dict(made):
            del made["hydra"]
        return made


def run_of(*overrides: str) -> Config:
    """The run that a command line of ``repro.train`` describes. Raises ReproError and what Hydra raises."""
    return resolve(composed(*overrides))


def outdated(runs: Mapping[tuple[str, int], Mapping[str, Any]], scale: str) -> dict[tuple[str, int], str]:
    """The runs (``run.json`` by curve and seed) whose values ``conf/`` no longer has, and what differs, in words.

    A run is held against its experiment at this scale with the overrides that its folder is named after.
    """
    expected: dict[tuple[str, ...], DictConfig | str] = {}
    found = {}
    for (curve, seed), info in runs.items():
        if "fingerprint" not in info:
            continue
        names = re.split(r",(?=[\w./@~+]+=)", info.get("variant") or "")
        overrides = (f"experiment={info['curve']}", f"scale={scale}", *filter(None, names))
        if overrides not in expected:
            try:
                expected[overrides] = composed(*overrides)
            except HydraException as error:
                expected[overrides] = one_line(error)
        base = expected[overrides]
        if isinstance(base, str):
            found[curve, seed] = base
            continue
        base.seed = seed
        try:
            run = resolve(base)
        except ReproError as error:
            found[curve, seed] = str(error)
            continue
        if problem := records.outdated(info, run):
            found[curve, seed] = problem
    return found
