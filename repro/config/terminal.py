"""Printing text that comes from outside as it is. No torch here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(**options: Any) -> "Console":
    """A rich console that takes brackets and colons for what they are, neither markup nor an emoji's name."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)
