"""The task of every job: train the run that a composed configuration describes. Imports torch when it trains."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from repro.config import resolve, typed_keys
from repro.config.folders import settled
from repro.records import naming
from repro.tracking import environment
from repro.training import lifecycle


def train(composed: DictConfig) -> None:
    """One run, in the folder that Hydra made for it."""
    hydra_config = HydraConfig.get()
    typed = hydra_config.overrides.task
    config = environment.obey(settled(resolve(composed, typed), hydra_config), typed_keys(typed))
    lifecycle.run(config, Path(hydra_config.runtime.output_dir), naming.changes(composed, hydra_config))
