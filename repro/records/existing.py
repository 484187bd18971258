"""The record that a folder already holds: is it of this run, finished and whole? If not, make room. No torch."""

import copy
import hashlib
from pathlib import Path

from repro.config import PROTOCOL, Config, fingerprint, flat, from_dict
from repro.config.errors import ReproError
from repro.records.history import AGAIN, broken, read_history
from repro.records.info import read_info
from repro.records.types import FINISHED, Info


def already_finished(folder: Path, config: Config) -> bool:
    """Whether this very run is finished in ``folder``; ``config.force`` wants it trained again in any case.

    Raises ReproError that names what differs where a finished run of another configuration is in the way, or one
    whose files are not what it recorded of them.
    """
    info = read_info(folder)
    if info is None or info["status"] not in FINISHED or config.force:
        return False
    differ = differences(info, config)
    if not differ:
        require_intact(folder, info)
        return True
    raise ReproError(
        f"{folder} holds a finished run of another configuration ({'; '.join(differ)}); "
        "force=true moves it aside, output=DIR puts the new one elsewhere"
    )


def differences(info: Info, config: Config) -> list[str]:
    """What makes a recorded run another than ``config``, a line a key; an unknown digest is no difference."""
    try:
        old, new = flat(from_dict(info["config"])), flat(config)
    except ReproError as error:
        return [str(error)]
    if None in (old["dataset.digest"], new["dataset.digest"]):
        del old["dataset.digest"], new["dataset.digest"]
    old["protocol"], new["protocol"] = info.get("protocol"), PROTOCOL
    return [f"{key}: {old[key]} there, {new[key]} now" for key in new if old[key] != new[key]]


def outdated(info: Info, config: Config) -> str | None:
    """In words, what other values a recorded run was trained with than ``config`` has; None where there are none.

    A record without a fingerprint is not of this suite, and nothing is said of it.
    """
    now = copy.deepcopy(config)
    now.dataset.digest = info["config"].get("dataset", {}).get("digest")
    if info.get("fingerprint") in (None, fingerprint(now)):
        return None
    if differ := differences(info, now):
        return "; ".join(differ)
    spelt_otherwise = fingerprint(from_dict(info["config"])) == info["fingerprint"]  # a number as 1.0 or 1
    return None if spelt_otherwise else "another fingerprint"


def require_intact(folder: Path, info: Info) -> None:
    """Raises ReproError where a finished run's files are not what it recorded of them; weights may be missing."""
    if problem := broken(info, read_history(folder)):
        raise ReproError(f"{folder / 'history.jsonl'}: {problem}; {AGAIN}")
    if "weights_sha256" in info and (folder / "weights.pt").exists():
        read_weights(folder, info)


def read_weights(folder: Path, info: Info) -> bytes:
    """``weights.pt`` of a run. Raises ReproError where it cannot be read or is not what its record says."""
    path = folder / "weights.pt"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReproError(f"{path}: cannot be read: {error.strerror}; {AGAIN}") from None
    if info.get("weights_sha256") not in (None, hashlib.sha256(content).hexdigest()):
        raise ReproError(f"{path}: not the weights that the run recorded (another SHA-256); {AGAIN}")
    return content


def move_aside(folder: Path) -> None:
    """Make room for a new run where a finished one lies: its files go into the next ``earlier-<n>`` there."""
    info = read_info(folder)
    if info is None or info["status"] not in FINISHED:
        return
    numbers = [path.name.removeprefix("earlier-") for path in folder.glob("earlier-*")]
    aside = folder / f"earlier-{1 + max((int(n) for n in numbers if n.isdecimal()), default=0)}"
    aside.mkdir()
    snapshots = [path.name for path in folder.glob("snapshot-*.pt")]
    for name in ("history.jsonl", "weights.pt", *snapshots, "wandb", "run.json"):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
