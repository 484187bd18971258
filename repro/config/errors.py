"""Errors as the user reads them: one line with what is wrong, where, and what to do. Does not import torch."""

import errno
import re
import sys
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Any

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from repro.config import schema
from repro.config.folders import CONF

FULL = {
    errno.ENOSPC: "the disk with this folder is full",
    errno.EDQUOT: "your quota on the disk with this folder is used up",
}
ADVICE = {  # errno -> what to do
    **dict.fromkeys((*FULL, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it readable and writable"),
}
EXTRAS = ["joblib", "ray", "slurm"]  # our extras that install a launcher, as named in conf/hydra/launcher
GROUPS_OF = {  # config groups that one command alone has -> what to do
    "figure": "python -m repro.figures and repro.report take figure=, repro.train sweep=",
    "table": "python -m repro.figures and repro.report take table=, repro.train sweep=",
    "method": "python -m repro.search takes method=",
    "sweep": "python -m repro.train takes sweep=",
}
NEAR = 0.75  # smallest similarity of an unknown key and a suggested one; 1 for identical keys


class ReproError(Exception):
    """An error that the user can fix: its one line says what is wrong, where, and what to do."""


def describe(error: BaseException) -> str | None:
    """The line for an error that the user can fix; None for a bug."""
    if isinstance(error, ReproError):
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return one_line(error)
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        place = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{place}it is not YAML: {getattr(error, 'problem', None) or ' '.join(str(error).split())}"
    if isinstance(error, OSError):
        return system_error(error, "then run the same command again")
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        groups = {path.relative_to(CONF).as_posix() for path in CONF.glob("**/") if path != CONF}
        pairs = [(a, *a.lstrip("+").partition("=")) for a in sys.argv[1:]]
        nulls = [a for a, key, _, value in pairs if value.lower() == "null" and key.partition("@")[0] in groups]
        subject = f"{' '.join(nulls)}: a group" if nulls else "a config group"
        return f"{subject} is never null; choose one of its options (--help lists them)"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[error.start : error.end]!a} is not in this locale's encoding; set LC_ALL=C.UTF-8"
    if isinstance(error, UnicodeDecodeError):  # of a YAML file, which is not named
        before, after = error.object[: error.start], error.object[error.start :]
        line = before.rpartition(b"\n")[2] + after.partition(b"\n")[0]
        return f"{line.decode('latin-1').strip()!r}: the file with this line is not UTF-8; save it as UTF-8"
    return None if error.__cause__ is None else describe(error.__cause__)


def system_error(error: OSError, next_step: str) -> str:
    """The line for an OSError: the file, what is wrong and, where known, what to do, followed by ``next_step``."""
    problem = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        problem = FULL[error.errno] if error.filename else FULL[error.errno].replace(" with this folder", "")
    file = "" if error.filename is None else f"{error.filename}: "
    return f"{file}{problem}" + (f"; {ADVICE[error.errno]}, {next_step}" if error.errno in ADVICE else "")


def one_line(error: BaseException) -> str:
    """An error of Hydra or OmegaConf as one line: what is wrong, and the valid choices.

    Hydra's advice to add an unknown key with ``+`` is dropped: only a dictionary, such as model.options, takes it.
    """
    if isinstance(error, OverrideParseException):
        return _unparsable(error.override)
    message = str(error).split("Config search path:")[0].split("Set the environment variable")[0]
    message = message.split("To append to your default list")[0].removeprefix("Error merging override ")
    if message.startswith("Could not override") and isinstance(error.__cause__, OmegaConfBaseException):
        return _unknown_key(error.__cause__)
    if match := re.match(r"Could not override '(\w+)'\.\s+No match in the defaults list", message):
        command = GROUPS_OF.get(match[1])
        return f"{match[1]}=: no such choice here" + (f"; {command}" if command else "; --help lists the choices")
    if match := re.match(r"Ambiguous value for argument '(.*?)'\n", message):
        key, _, value = match[1].partition("=")
        return f"{match[1]}: several values need -m; a list is {key}=[{value}]"
    if match := re.match(r"Sweep parameters? '(.*?)' requires? --multirun", message):
        return f"{match[1]}: several values need -m; a list is [1,2]"
    if match := re.match(r"ReproError raised while resolving interpolation: (.*)", message):
        return match[1]
    if match := re.search(r"An item is already at '(.*?)'", message):
        return f"{match[1]}: the key exists already; remove the +"
    unknown = r"(In '.*?'): Config\w+ raised.*\nKey .* not in '(\w+)'\s+full_key: (\S+)"
    if match := re.search(unknown, message, re.S):
        known = dotted(OmegaConf.structured(schema.Config)) if hasattr(schema, match[2]) else []
        return f"{match[1]}: {no_such_key(match[3], known)}"
    if "${hydra:runtime.choices.experiment}': Incompatible value 'None'" in message:
        return "experiment=[...]: it takes one name; several need -m, as in -m experiment=fig5a/*,fig8b/*"
    if match := re.search(r"Could not find 'experiment/(.*?)'", message):
        return _no_experiment(match[1])
    no_choice = r"Could not find '([\w/]+)/([^'/]*)'\s+Available options in '\1':\s*(.*)"
    if (match := re.search(no_choice, message, re.S)) and not match[1].startswith("hydra/"):
        choices = ", ".join(match[3].split())
        return f"{match[1]}={match[2]}: no such choice; choose from {choices}"
    if match := re.search(r"In 'hydra/launcher/(\w+)': Could not (?:load|find) '(.*?)'", message):
        return no_launcher(match[1], match[2])
    if (match := re.search(r"Could not find 'hydra/launcher/(\w+)'", message)) and match[1] in EXTRAS:
        return no_launcher(match[1])
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


def _no_experiment(name: str) -> str:
    """The line for an unknown experiment: its curves if it is a figure, else the nearest names, else all names."""
    paths = (p.relative_to(CONF / "experiment").with_suffix("") for p in CONF.glob("experiment/**/*.yaml"))
    names = sorted(path.as_posix() for path in paths)
    line = f"experiment={name}: no such experiment"
    if curves := [other for other in names if other.startswith(f"{name}/")]:
        return f"{line}; sweep={name} trains all of {', '.join(curves)}"
    if nearest := get_close_matches(name, names, cutoff=NEAR):
        return f"{line}; did you mean {' or '.join(nearest)}?"
    return f"{line}; choose from {', '.join(names)}"


def _unparsable(override: str) -> str:
    """The line for an override that Hydra's grammar rejects."""
    override = re.sub(r"^\+\+(?=(figures|tables)\.)", "", override)  # which repro.figures adds
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: an argument is key=value, or an option such as --help"
    if not re.fullmatch(r"[+~]*[\w./@:]+", key):
        return f"{override}: {key} is not a key"
    quote = '"' if "'" in value else "'"
    typed = re.sub(r'(["$`\\])', r"\\\1", f"{key}={quote}{value}{quote}")  # between a shell's double quotes
    return f'{override}: Hydra cannot read this value; a list is [1,2], text with special characters "{typed}"'


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: Python's, torch's on a GPU, or torch's on a CPU."""
    is_named = type(error).__name__ in ("MemoryError", "OutOfMemoryError")
    return is_named or "can't allocate memory" in str(error)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unknown_key(cause: OmegaConfBaseException) -> str:
    """The line for a key that a command line sets and the configuration does not have."""
    key = str(cause.full_key)
    prefix = key.rpartition(".")[0]
    if not isinstance(cause, ConfigAttributeError | ConfigKeyError) or cause.parent_node is None:
        return str(cause).splitlines()[0]
    known = [f"{prefix}.{k}" if prefix else k for k in dotted(cause.parent_node)]
    if prefix and getattr(cause.object_type, "__module__", "") == schema.__name__:
        known = list(dict.fromkeys([*known, *dotted(OmegaConf.structured(schema.Config))]))
    line = no_such_key(key, known)
    fixed = cause.object_type is not dict or key.startswith("search.")
    return line if fixed or line.endswith("?") else f"{line}; +{key}=... adds it"


def no_such_key(key: str, known: Iterable[str]) -> str:
    """The line for an unknown key: the nearest of the dotted keys ``known``, or its siblings."""
    known = list(known)
    prefix, dot, name = key.rpartition(".")

    def similarity(candidate: str) -> float:
        *groups, last = candidate.split(".")
        return 1.0 if name in groups else SequenceMatcher(None, name, last).ratio()

    best = max(map(similarity, known), default=0.0)
    if best >= NEAR:
        nearest = [candidate for candidate in known if similarity(candidate) == best]
        nearest.sort(key=lambda candidate: -SequenceMatcher(None, key, candidate).ratio())
        return f"{key}: no such key; did you mean {' or '.join(nearest[:4])}?"
    siblings = dict.fromkeys(
        k.removeprefix(prefix + dot).split(".")[0] for k in known if k.startswith(prefix + dot)
    )
    return f"{key}: no such key" + (f"; choose from {', '.join(siblings)}" if siblings else "")


def dotted(node: Any) -> list[str]:
    """The dotted keys of a composed configuration's leaves, without Hydra's own part."""

    def leaves(values: dict[Any, Any], prefix: str) -> list[str]:
        found = []
        for key, value in values.items():
            nested = isinstance(value, dict) and value
            found += leaves(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}"]
        return found

    container = OmegaConf.to_container(node, resolve=False)
    return [k for k in leaves(container, "") if not k.startswith("hydra.")] if isinstance(container, dict) else []


def no_launcher(name: str, lacking: str | None = None) -> str:
    """The line for ``hydra/launcher=<name>`` without its plug-in, or without that plug-in's config ``lacking``."""
    if (extra := name.removesuffix("-cpu")) in EXTRAS:
        return f"hydra/launcher={name}: its plug-in is not installed; pip install -e '.[{extra}]'"
    problem = f"{lacking} is missing" if lacking else "its plug-in is not installed"
    return f"hydra/launcher={name}: {problem}; install the Hydra launcher plug-in that provides it"
