"""A disciplined approach to neural network hyper-parameters (arXiv 1803.09820), reproduced.

For notebooks: ``repro.load("fig5b", "scale=quick")`` reads a figure's runs into one tidy frame.
"""

TYPE_CHECKING = False  # typing takes milliseconds to import, and a command can be interrupted in them
if TYPE_CHECKING:
    from typing import Any

    from repro.figures.reading import load

__all__ = ["load"]


def __getattr__(name: str) -> "Any":
    """``load``, imported on first access: importing the package costs nothing."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from repro.figures.reading import load

    return load
