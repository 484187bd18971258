"""``python -m repro.tracking``."""

from repro.command import run

if __name__ == "__main__":
    run("repro.tracking.upload")
