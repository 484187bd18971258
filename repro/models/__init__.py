"""Networks, by name: how they are built and initialised, and their parameter groups.

What may enter: networks and their layers, as functions of their arguments alone. A family of networks is a module
here with a dictionary NETWORKS, name -> function ``(num_classes, channels, *, options) -> nn.Module``; your own is
named by its import path, ``package.module:function``. A function with a parameter ``resolution`` receives the
pixels a side of the images; a network with an attribute ``multiples`` has its own multiples of LR and weight decay
(``parameter_groups``). Nothing else needs an edit.

Public: ``build``, ``depth``, ``from_config``, ``networks``, ``parameter_groups``, ``one_group``,
``require_size``.
"""

from repro.models.layers import one_group
from repro.models.registry import build, depth, from_config, networks, require_size
from repro.models.rules import parameter_groups

__all__ = ["build", "depth", "from_config", "networks", "one_group", "parameter_groups", "require_size"]
