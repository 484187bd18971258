"""What a run is: the typed configuration, its scale, its checks, its fingerprint; what ``conf/`` holds.

What may enter: what says which run is meant, and how an error reaches the user. Nothing that trains or draws, and
no torch. ``conf/`` composes a ``Config``; ``resolve`` applies the scale and checks every value. What it returns is
what is trained, recorded and hashed.

Public: the types of ``schema``, and what is named below; ``catalogue`` (which curves and figures ``conf/`` has),
``errors`` (errors as the user reads them), ``folders`` (where the suite's own files lie).
"""

from repro.config.identity import CIRCUMSTANCES, LATER, PROTOCOL, fingerprint, flat, from_dict, to_dict
from repro.config.resolving import check_folders, notes, refuse_unknown_keys, resolve, typed_keys
from repro.config.schema import (
    Config,
    Dataset,
    Engine,
    Filler,
    Mode,
    Model,
    Precision,
    Regularization,
    Replicates,
    Scale,
    Schedule,
    Start,
    Tracking,
    Update,
    register_schema,
)

__all__ = [
    "CIRCUMSTANCES",
    "LATER",
    "PROTOCOL",
    "Config",
    "Dataset",
    "Engine",
    "Filler",
    "Mode",
    "Model",
    "Precision",
    "Regularization",
    "Replicates",
    "Scale",
    "Schedule",
    "Start",
    "Tracking",
    "Update",
    "check_folders",
    "fingerprint",
    "flat",
    "from_dict",
    "notes",
    "refuse_unknown_keys",
    "register_schema",
    "resolve",
    "to_dict",
    "typed_keys",
]
