"""Train one run, or with a sweep many: the Hydra app ``python -m repro.train``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from repro import command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def app(composed: "DictConfig") -> None:
    """One run, in the folder that Hydra made for it."""
    from hydra.core.hydra_config import HydraConfig

    from repro.config import resolve
    from repro.config.folders import settled
    from repro.records import naming
    from repro.training.lifecycle import run

    hydra_config = HydraConfig.get()
    config = settled(resolve(composed), hydra_config)
    run(config, Path(hydra_config.runtime.output_dir), naming.changes(composed, hydra_config))


def main() -> None:
    """The console script ``repro-train``."""
    command.run(_main, "interrupted; run the same command again to resume")


def _main() -> None:
    from repro.config import register_schema
    from repro.records import naming
    from repro.sweeps.arguments import expand_sweep

    if "--dry-run" in sys.argv:
        from repro.sweeps import sweeper

        sweeper.show([a for a in sys.argv[1:] if a != "--dry-run"], "cost")
        return
    register_schema()
    naming.register()
    sys.argv[1:] = expand_sweep(sys.argv[1:])
    command.hydra_app(app, "train")


if __name__ == "__main__":
    main()
