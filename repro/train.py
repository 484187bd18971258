"""Train one run, or with a sweep many: the Hydra app ``python -m repro.train``."""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.train")

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from repro import command
from repro.config import register_schema, resolve, typed_keys
from repro.config.folders import settled
from repro.records import naming
from repro.sweeps.arguments import expand_sweep
from repro.tracking import environment
from repro.training import lifecycle


def app(composed: DictConfig) -> None:
    """One run, in the folder that Hydra made for it."""
    hydra_config = HydraConfig.get()
    typed = hydra_config.overrides.task
    config = environment.obey(settled(resolve(composed, typed), hydra_config), typed_keys(typed))
    lifecycle.run(config, Path(hydra_config.runtime.output_dir), naming.changes(composed, hydra_config))


def main() -> None:
    """Train, or with ``--dry-run`` tell the cost."""
    if "--dry-run" in sys.argv:
        from repro.sweeps import sweeper

        sweeper.show([a for a in sys.argv[1:] if a != "--dry-run"], "cost")
    else:
        register_schema()
        naming.register()
        sys.argv[1:] = expand_sweep(sys.argv[1:])
        command.hydra_app(app, "train")
