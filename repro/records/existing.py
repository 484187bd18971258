"""The record that a folder already holds: whether it is this run's, finished and intact. Does not import torch."""

import copy
import hashlib
from pathlib import Path

from repro import user_code
from repro.config import PROTOCOL, Config, fingerprint, flat, from_dict, is_respelled
from repro.config.errors import ADVICE, ReproError
from repro.records.history import AGAIN, broken, read_history
from repro.records.info import read_info
from repro.records.types import FINISHED, Info


def is_finished(folder: Path, config: Config) -> bool:
    """Whether ``folder`` holds a finished run, of whatever configuration; always False with ``config.force``."""
    info = read_info(folder)
    return info is not None and info["status"] in FINISHED and not config.force


def already_finished(folder: Path, config: Config) -> bool:
    """Whether this run is finished in ``folder``; always False with ``config.force``, which trains it again.

    Raises ReproError if the folder holds a finished run of another configuration, naming the differences, or a
    finished run whose files do not match its record.
    """
    info = read_info(folder)
    if info is None or info["status"] not in FINISHED or config.force:
        return False
    changed = differences(info, config)
    if not changed:
        require_intact(folder, info)
        return True
    raise ReproError(
        f"{folder} holds a finished run of another configuration ({'; '.join(changed)}); "
        "force=true moves it aside, output=DIR puts the new one elsewhere"
    )


def differences(info: Info, config: Config) -> list[str]:
    """How a recorded run differs from ``config``, one line per key; an unknown digest does not count."""
    try:
        old, new = flat(from_dict(info["config"])), flat(config)
    except ReproError as error:
        return [str(error)]
    if None in (old["dataset.digest"], new["dataset.digest"]):
        del old["dataset.digest"], new["dataset.digest"]
    old["protocol"], new["protocol"] = info.get("protocol"), PROTOCOL
    return [f"{key}: {old[key]} there, {new[key]} now" for key in new if old[key] != new[key]]


def outdated(info: Info, config: Config) -> str | None:
    """A description of the values of a recorded run that differ from ``config``; None if they agree.

    A record without a fingerprint was not made by this suite and is not compared.
    """
    current = copy.deepcopy(config)
    current.dataset.digest = info["config"].get("dataset", {}).get("digest")
    if info.get("fingerprint") in (None, fingerprint(current)):
        return None
    if changed := differences(info, current):
        return "; ".join(changed)
    return None if is_respelled(from_dict(info["config"]), info["fingerprint"]) else "another fingerprint"


def code_of(config: Config) -> list[str]:
    """The user's own network and shapes in ``config``, each as "package.module:function <digest of its code>".

    An own image set is not among them: its images have a digest.
    """
    names = [config.model.name, config.schedule.lr.get("shape"), config.schedule.momentum.get("shape")]
    found = {name: user_code.digest(name) for name in map(str, names) if ":" in name}
    return [f"{name} {digest}" for name, digest in found.items() if digest is not None]


def edited(info: Info, config: Config) -> str | None:
    """Which of the user's own functions have been edited since the run was recorded, as text; None if none has."""
    now = dict(code.split() for code in code_of(config))
    then = dict(code.split() for code in info.get("code", []))
    changed = [name for name, digest in then.items() if now.get(name, digest) != digest]
    return f"the code of {' and '.join(changed)} has changed since" if changed else None


def require_history(folder: Path, info: Info) -> None:
    """Raise ReproError if the history of a run that has ended cannot be read or does not match its record."""
    if problem := broken(info, read_history(folder)):
        raise ReproError(f"{folder / 'history.jsonl'}: {problem}; {AGAIN}")


def require_intact(folder: Path, info: Info) -> None:
    """Raise ReproError if a finished run's files do not match its record; the weights may be missing."""
    require_history(folder, info)
    if "weights_sha256" in info and (folder / "weights.pt").exists():
        read_weights(folder, info)


def read_weights(folder: Path, info: Info) -> bytes:
    """The bytes of a run's ``weights.pt``. Raises ReproError if it cannot be read or does not match the record."""
    path = folder / "weights.pt"
    try:
        content = path.read_bytes()
    except OSError as error:
        next_step = ADVICE.get(error.errno or 0, AGAIN)
        raise ReproError(f"{path}: cannot be read: {error.strerror}; {next_step}") from None
    if info.get("weights_sha256") not in (None, hashlib.sha256(content).hexdigest()):
        raise ReproError(f"{path}: not the weights that the run recorded (another SHA-256); {AGAIN}")
    return content


def move_aside(folder: Path) -> None:
    """Move the files of a finished run into the next ``earlier-<n>`` of its folder, to make room for a new run."""
    info = read_info(folder)
    if info is None or info["status"] not in FINISHED:
        return
    snapshots = [path.name for path in folder.glob("snapshot-*.pt")]
    names = ("history.jsonl", "weights.pt", *snapshots, "wandb", "run.json")
    present = [name for name in names if (folder / name).exists()]
    numbers = [path.name.removeprefix("earlier-") for path in folder.glob("earlier-*")]
    last = max((int(n) for n in numbers if n.isdecimal()), default=0)
    aside = folder / f"earlier-{last}"
    begun = {path.name for path in aside.glob("*")} if last else set()
    if not begun or "run.json" in begun or begun & set(present):  # otherwise a process was killed as it moved them
        aside = folder / f"earlier-{last + 1}"
        aside.mkdir()
    for name in present:
        (folder / name).rename(aside / name)
