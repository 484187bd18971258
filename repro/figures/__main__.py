"""``python -m repro.figures``."""

from repro.command import run

if __name__ == "__main__":
    run("repro.figures.app")
