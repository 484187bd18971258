"""The only file that uses what wandb does not document, or what only some of its versions have.

``tests/tracking/test_wandb_compat.py`` fails first when that changes. wandb is imported only where it is used.
"""

import inspect
import netrc
import os
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from repro.config.errors import ReproError

OLDEST = (0, 22)
READS_FILES = (0, 31)  # from this version on, wandb prints its offline files
PRELOAD = "wandb.sdk.launch"  # wandb.init imports it, and with it all of wandb
# Settings that not every version has: without them wandb writes its file, and gives up, in its own time.
OPTIONAL = ("x_transaction_log_flush_interval", "finish_timeout", "finish_timeout_raises")


def require(least: tuple[int, int] = OLDEST, what: str = "W&B") -> None:
    """ReproError that names the installed wandb if it is older than ``least``, which ``what`` needs."""
    try:
        installed = version("wandb")
    except PackageNotFoundError:
        raise ReproError(
            f"{what} needs the package wandb: pip install 'wandb>={'.'.join(map(str, OLDEST))}'"
        ) from None
    numbers = tuple(int(n) for n in re.findall(r"\d+", installed)[:2])
    if numbers < least:
        needed = ".".join(map(str, least))
        raise ReproError(
            f"wandb {installed} is installed, and {what} needs {needed} or newer: pip install -U 'wandb>={needed}'"
        )


def settings(**values: Any) -> Any:
    """``wandb.Settings`` of these values, without those of ``OPTIONAL`` that this version lacks."""
    require()
    import wandb

    known = wandb.Settings.model_fields
    return wandb.Settings(**{k: v for k, v in values.items() if k in known or k not in OPTIONAL})


def patience(retries: int | None) -> dict[str, Any]:
    """The setting for how often wandb's core asks a server that does not answer."""
    return {} if retries is None else {"x_graphql_retry_max": retries}


def quiet(system_metrics: bool, code: bool) -> dict[str, Any]:
    """The settings for what a run sends beside its rows."""
    return {
        "x_disable_stats": not system_metrics,
        "x_save_requirements": code,
        "save_code": code,
        "disable_git": not code,
    }


def flushed_every(seconds: float) -> dict[str, Any]:
    """The setting for how many seconds of rows a killed process can lose."""
    return {"x_transaction_log_flush_interval": seconds}


def sign_in(signing: Any, verify: bool) -> bool:
    """Whether there is a key, found without a question on the terminal; with ``verify`` the server is asked too.

    Raises what wandb raises. ``signing`` are the settings of the place.
    """
    import wandb

    setup = wandb.setup(settings=signing)
    if "prompt" in inspect.signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=verify))
    if not _has_key(str(setup.settings.base_url)):  # it would ask for one
        return False
    return bool(wandb.login(verify=verify))


def _has_key(base_url: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(path).authenticators(urlsplit(base_url).hostname or ""):
                return True
    return False


def scan(run: Any) -> Any:
    """Every row of a run of the public API, asked of the server and not of wandb's own cache."""
    cached = "use_cache" in inspect.signature(run.scan_history).parameters
    return run.scan_history(**({"use_cache": False} if cached else {}))


def offline_file(run: Any) -> Path:
    """The file that an offline run writes."""
    return Path(run.settings.sync_file)


def printing(path: Path) -> list[str]:
    """The command that prints an offline file, a JSON a record. ReproError where this wandb has none."""
    require(READS_FILES, f"reading {path}")
    from wandb.util import get_core_path

    return [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file", str(path)]
