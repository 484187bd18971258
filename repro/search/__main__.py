"""``python -m repro.search``."""

if __name__ == "__main__":
    from repro.command import run

    run("repro.search.app")
