"""Where the suite's own files lie: its configuration, and what it keeps for the user. No torch here."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
CONF = next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.exists())


def cache_folder(configured: str | None = None) -> Path:
    """What can be made or pulled again lies there: in ``configured``, or in the user's cache folder."""
    cache = Path(configured or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.expanduser() / "disciplined-repro"
