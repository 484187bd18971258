"""``python -m repro.tracking``."""

from repro import command


def main() -> None:
    """The console script ``repro-tracking``."""
    command.run(_main)


def _main() -> None:
    from repro.tracking.upload import main

    main()


if __name__ == "__main__":
    main()
