"""What is printed of text from outside: brackets and colons are what they are."""

import re
from pathlib import Path

import repro
from repro.config.terminal import console, plural
from repro.sweeps.progress import Progress

PACKAGE = Path(repro.__file__).parent


def test_text_and_tables_are_printed_as_they_are(capsys):
    from rich.table import Table

    text = "[/red] [bold]x[/bold] :smile: a:on:b"
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    console(width=200).print(text, table)
    assert capsys.readouterr().out.count(text) == 5


def test_one_is_singular():
    assert [plural(count, "run") for count in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]


def test_a_progress_bar_shows_a_curve_as_it_is(tmp_path, resolved, capsys):
    from rich.console import Console

    config = resolved("experiment=fig5a/clr_3.0", "scale=smoke")
    progress = Progress([(tmp_path, config)])
    progress.bar.update(progress.overall, description="mine/[/red]:smile:")
    Console(width=200).print(progress.bar.get_renderable())
    assert "mine/[/red]:smile:" in capsys.readouterr().out


def test_there_is_one_console():
    """rich's own reads brackets as markup, and fails on ``[/x]``."""
    makers = {path.name for path in PACKAGE.rglob("*.py") if re.search(r"\bConsole\(", path.read_text())}
    assert makers == {"terminal.py"}
