"""``python -m repro.bench``."""

from repro import command


def main() -> None:
    """The console script ``repro-bench``."""
    command.run(_main)


def _main() -> None:
    from repro.bench.app import main

    main()


if __name__ == "__main__":
    main()
