"""Properties of a network that a search needs. Imports torch only inside the functions."""

import inspect

from repro.config import Config
from repro.data import registry


def depth(config: Config) -> int:
    """The number of convolutional and linear layers of the network. Raises ReproError."""
    from repro import models

    data = registry.get(config.dataset)
    side = max(config.dataset.resolution or data.size, config.dataset.min_resolution or 0)
    return models.depth(models.from_config(config.model, data.classes, (side, side, data.channels), 0))


def takes(config: Config, option: str) -> bool:
    """Whether the network's function has a parameter of that name. Raises ReproError for an unknown network."""
    from repro.models.registry import find

    return option in inspect.signature(find(config.model.name)).parameters
