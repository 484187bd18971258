"""``python -m repro.bench``."""

from repro.bench.app import main

if __name__ == "__main__":
    main()
