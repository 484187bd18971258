"""``python -m repro.figures``."""

from repro.figures.app import main

if __name__ == "__main__":
    main()
