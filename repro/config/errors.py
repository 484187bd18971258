"""Errors as the user reads them: one line that says what is wrong, where, and what to do. No torch here."""

import errno
import re

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from repro.config.folders import CONF

ADVICE = {  # by the number of a system's error
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it readable and writable"),
}
EXTRAS = ["ray", "slurm"]  # of ours that bring a launcher, by the launcher's name in conf/hydra/launcher


class ReproError(Exception):
    """What the user can mend: its one line says what is wrong, where, and what to do."""


def describe(error: BaseException) -> str | None:
    """The line for an error that the user can mend; None for a bug."""
    if isinstance(error, ReproError):
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return one_line(error)
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        where = "" if error.filename is None else f"{error.filename}: "
        advice = f"; {ADVICE[error.errno]}, then run the same command again" if error.errno in ADVICE else ""
        return f"{where}{what}{advice}"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[error.start : error.end]!a} is not in this locale's encoding; set LC_ALL=C.UTF-8"
    return None if error.__cause__ is None else describe(error.__cause__)


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


def no_launcher(name: str, lacking: str | None = None) -> str:
    """What to say where ``hydra/launcher=<name>`` misses its plug-in, or the configuration that one brings."""
    if name in EXTRAS:
        return f"hydra/launcher={name}: its plug-in is not installed; pip install -e '.[{name}]'"
    what = f"{lacking} is not there" if lacking else "its plug-in is not installed"
    return f"hydra/launcher={name}: {what}; install the launcher plug-in of Hydra that brings it"
