"""The configuration of a run: its types, scale, checks and fingerprint; the contents of ``conf/``.

What belongs here: code that identifies a run, and code that reports errors to the user. Nothing that trains or
draws, and no torch. ``conf/`` composes a ``Config``; ``resolve`` applies the scale and checks every value. The
resolved configuration is trained, recorded and hashed.

Public: the types of ``schema`` and the names below; ``catalogue`` (the curves and figures of ``conf/``),
``errors`` (errors as the user reads them), ``folders`` (the paths of the suite's own files).
"""

from repro.config.identity import (
    CIRCUMSTANCES,
    LATER,
    PROTOCOL,
    fingerprint,
    flat,
    from_dict,
    is_respelled,
    to_dict,
)
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
    "is_respelled",
    "notes",
    "refuse_unknown_keys",
    "register_schema",
    "resolve",
    "to_dict",
    "typed_keys",
]
