"""Print the state of runs: ``python -m repro.status [sweep=fig8b] [scale=...] [--watch] [--json]``.

With a sweep (or any arguments of ``repro.train``) it lists the runs of that sweep, including missing ones; without
arguments, every run under ``multirun_outputs`` or ``output=DIR``.
"""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.status")

import sys
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from repro.config.folders import expand_home
from repro.records import queued
from repro.records.files import run_folders
from repro.sweeps import states


def typed_value(override: str) -> str:
    """The value of KEY=VALUE as Hydra reads it, or as it is typed where Hydra could not read it."""
    try:
        return str(OverridesParser.create().parse_override(override).value())
    except HydraException:
        return override.partition("=")[2]


def main() -> None:
    """The console script ``repro-status``."""
    arguments = [expand_home(a) for a in sys.argv[1:] if a not in ("--json", "--watch")]
    mode = "json" if "--json" in sys.argv else "watch" if "--watch" in sys.argv else "table"
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
    elif any(not argument.startswith("output=") for argument in arguments):
        from repro.sweeps import sweeper

        sweeper.show(arguments, mode)
    else:
        output = Path(typed_value(arguments[-1]) if arguments else "multirun_outputs").expanduser()
        if not output.is_dir():
            sys.exit(
                f"error: output={output}: no such folder; run this where the runs were started, or give their "
                "folder"
            )
        states.print_states(((path, None) for path in run_folders(output, queued.NAME)), mode)
