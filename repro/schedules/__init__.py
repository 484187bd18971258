"""Schedules: iteration -> (learning rate, momentum).

What belongs here: ``functions``, the shapes of a schedule, without state or torch, and ``settings``, which
reads what a configuration says of them. A new shape is one function there and needs no entry here.

Public: ``build``, ``check_range``, ``cut_short``, ``declared``, ``scaled``, ``shapes``, the annotations
``Iterations`` and ``PerIteration``, and the shapes.
"""

from repro.schedules.functions import (
    Iterations,
    PerIteration,
    constant,
    cyclical_momentum,
    inv,
    lr_range,
    lr_range_exponential,
    multistep,
    onecycle,
    ramp_multistep,
    shapes,
    triangular,
)
from repro.schedules.settings import build, check_range, cut_short, declared, scaled

__all__ = [
    "Iterations",
    "PerIteration",
    "build",
    "check_range",
    "constant",
    "cut_short",
    "cyclical_momentum",
    "declared",
    "inv",
    "lr_range",
    "lr_range_exponential",
    "multistep",
    "onecycle",
    "ramp_multistep",
    "scaled",
    "shapes",
    "triangular",
]
