"""Networks, by name: how they are built and initialised, and their parameter groups.

What belongs here: networks and their layers, as functions of their arguments alone. To add a family of networks,
add a module here with a dictionary NETWORKS, name -> function
``(num_classes, channels, *, options) -> nn.Module``; nothing else needs an edit. A network outside this package is
named by its import path, ``package.module:function``. A function with a parameter ``resolution`` receives the
images' size in pixels a side; a network with an attribute ``multiples`` has its own multiples of LR and weight
decay (``parameter_groups``).

Public: ``build``, ``depth``, ``from_config``, ``networks``, ``parameter_groups``, ``one_group``,
``require_size``.
"""

from repro.models.layers import one_group
from repro.models.registry import build, depth, from_config, networks, require_size
from repro.models.rules import parameter_groups

__all__ = ["build", "depth", "from_config", "networks", "one_group", "parameter_groups", "require_size"]
