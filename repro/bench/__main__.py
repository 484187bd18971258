"""``python -m repro.bench``."""

from repro.command import run

if __name__ == "__main__":
    run("repro.bench.app")
