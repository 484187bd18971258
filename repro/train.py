"""Train one run, or the runs of a sweep: the Hydra app ``python -m repro.train``."""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.train")

import sys

from repro import command
from repro.config import register_schema
from repro.records import naming
from repro.sweeps import task
from repro.sweeps.arguments import expand_sweep


def main() -> None:
    """Train, or with ``--dry-run`` print the cost."""
    if "--dry-run" in sys.argv:
        from repro.sweeps import sweeper

        sweeper.show([a for a in sys.argv[1:] if a != "--dry-run"], "cost")
    else:
        register_schema()
        naming.register()
        sys.argv[1:] = expand_sweep(sys.argv[1:])
        command.hydra_app(task.train, "train")
