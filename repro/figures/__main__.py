"""``python -m repro.figures``."""

from repro import command


def main() -> None:
    """The console script ``repro-figures``."""
    command.run(_main)


def _main() -> None:
    from repro.figures.app import main

    main()


if __name__ == "__main__":
    main()
