"""``python -m repro.tracking``."""

from repro.tracking.upload import main

if __name__ == "__main__":
    main()
