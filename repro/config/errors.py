"""Errors as the user reads them: one line that says what is wrong, where, and what to do. No torch here."""

import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from repro.config.folders import CONF

EXTRAS = ["ray", "slurm"]  # of ours that bring a launcher, by the launcher's name in conf/hydra/launcher


class ReproError(Exception):
    """What the user can mend: its one line says what is wrong, where, and what to do."""


def run_app(app: Callable[[], Any]) -> None:
    """Run a Hydra app; an error that the user can mend is one line and exit code 1, a bug its traceback."""
    debugging = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print over many lines
    # Our conf/hydra/launcher/ray.yaml is meant to complete the plug-in's own configuration of that name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against")
    try:
        app()
    except KeyboardInterrupt as interrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(128 + getattr(interrupt, "signal", 2))
    except (ReproError, HydraException, OmegaConfBaseException) as error:
        if debugging:
            raise
        sys.exit(f"error: {error if isinstance(error, ReproError) else one_line(error)}")
    except OSError as error:
        if debugging or error.filename is None:
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}; make it writable or make room, then launch again")


def one_line(error: BaseException) -> str:
    """An error of Hydra or OmegaConf as one line: what is wrong, and the choices there are."""
    message = str(error).split("Config search path:")[0].split("Set the environment variable")[0]
    if wrong := re.search(r"Could not find 'experiment/(.*?)'", message):
        names = sorted(
            p.relative_to(CONF / "experiment").with_suffix("") for p in CONF.glob("experiment/**/*.yaml")
        )
        return f"experiment={wrong[1]}: no such experiment; there are {', '.join(map(str, names))}"
    if wrong := re.search(r"In 'hydra/launcher/(\w+)': Could not (?:load|find) '(.*?)'", message):
        return no_launcher(wrong[1], wrong[2])
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text, options = "", False
    for line in lines:
        if line.startswith(("full_key:", "object_type=", "reference_type=")):
            continue
        text += ("" if not text else ", " if options else " ") + line
        options = options or line.startswith("Available options")
    text = text.replace(":, ", ": ")
    if error.__cause__ is not None and isinstance(error.__cause__, OmegaConfBaseException):
        cause = one_line(error.__cause__)
        text = text if cause in text else f"{text.rstrip('.')}: {cause}"
    return text


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def no_launcher(name: str, lacking: str | None = None) -> str:
    """What to say where ``hydra/launcher=<name>`` misses its plug-in, or the configuration that one brings."""
    if name in EXTRAS:
        return f"hydra/launcher={name}: its plug-in is not installed; pip install -e '.[{name}]'"
    what = f"{lacking} is not there" if lacking else "its plug-in is not installed"
    return f"hydra/launcher={name}: {what}; install the launcher plug-in of Hydra that brings it"
