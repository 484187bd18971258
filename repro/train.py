"""Train one run, or with a sweep many: the Hydra app ``python -m repro.train``."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from repro.config import register_schema, resolve
from repro.config.errors import ReproError, run_app
from repro.config.folders import CONF, settled
from repro.records import naming
from repro.sweeps.arguments import expand_sweep
from repro.training.lifecycle import run


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def app(composed: DictConfig) -> None:
    """One run, in the folder that Hydra made for it."""
    hydra_config = HydraConfig.get()
    try:
        config = settled(resolve(composed, hydra_config.overrides.task), hydra_config)
        run(config, Path(hydra_config.runtime.output_dir), naming.changes(composed, hydra_config))
    except ReproError as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # the sweep reports it
        sys.exit(f"error: {error}")


def main() -> None:
    """The console script ``repro-train``."""
    if "--dry-run" in sys.argv:
        from repro.sweeps import sweeper

        sweeper.show([a for a in sys.argv[1:] if a != "--dry-run"], "cost")
    else:
        register_schema()
        naming.register()
        run_app(_app)


def _app() -> None:
    sys.argv[1:] = expand_sweep(sys.argv[1:])
    app()


if __name__ == "__main__":
    main()
