"""Words and text for the terminal. Does not import torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(**options: Any) -> "Console":
    """A rich console that prints brackets and colons literally: no markup, no emoji names."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)


def plural(count: int, noun: str) -> str:
    """A count and its noun: "1 run", "1,200 runs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
