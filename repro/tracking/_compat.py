"""The only file that uses parts of wandb that are undocumented, or that only some of its versions have.

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
READS_FILES = (0, 31)  # the first version that can print its offline files
PRELOAD = "wandb.sdk.launch"  # wandb.init imports it, and with it all of wandb
# Settings that not every version has: without them wandb uses its own intervals and timeouts.
OPTIONAL = ("x_transaction_log_flush_interval", "finish_timeout", "finish_timeout_raises")


def require(least: tuple[int, int] = OLDEST, what: str = "W&B") -> None:
    """Raise ReproError if wandb is not installed, or older than ``least``, which ``what`` needs."""
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
    """``wandb.Settings`` with these values, without those in ``OPTIONAL`` that this version lacks."""
    require()
    import wandb

    known = wandb.Settings.model_fields
    return wandb.Settings(**{k: v for k, v in values.items() if k in known or k not in OPTIONAL})


def patience(retries: int | None) -> dict[str, Any]:
    """The setting for how often wandb's core retries a server that does not respond."""
    return {} if retries is None else {"x_graphql_retry_max": retries}


def quiet(system_metrics: bool, code: bool) -> dict[str, Any]:
    """The settings for what a run sends in addition to its rows."""
    return {
        "x_disable_stats": not system_metrics,
        "x_save_requirements": code,
        "save_code": code,
        "disable_git": not code,
    }


def flushed_every(seconds: float) -> dict[str, Any]:
    """The setting that limits the rows that a killed process can lose to those of ``seconds``."""
    return {"x_transaction_log_flush_interval": seconds}


def sign_in(signing: Any, verify: bool) -> bool:
    """Whether there is an API key, found without prompting; with ``verify`` the server checks it.

    ``signing`` are the ``wandb.Settings`` of the server. Raises what wandb raises.
    """
    import wandb

    setup = wandb.setup(settings=signing)
    if "prompt" in inspect.signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=verify))
    if not _has_key(str(setup.settings.base_url)):  # wandb.login would prompt for one
        return False
    return bool(wandb.login(verify=verify))


def _has_key(base_url: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    configured = os.environ.get("NETRC")
    for path in [Path(configured)] if configured else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(path).authenticators(urlsplit(base_url).hostname or ""):
                return True
    return False


def scan(run: Any) -> Any:
    """Every row of a run of the public API, from the server and not from wandb's cache."""
    has_cache = "use_cache" in inspect.signature(run.scan_history).parameters
    return run.scan_history(**({"use_cache": False} if has_cache else {}))


def offline_file(run: Any) -> Path:
    """The file that an offline run writes."""
    return Path(run.settings.sync_file)


def printing(path: Path) -> list[str]:
    """The command that prints an offline file as one JSON object per record.

    Raises ReproError if the installed wandb has no such command.
    """
    require(READS_FILES, f"reading {path}")
    from wandb.util import get_core_path

    return [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file", str(path)]
