"""A run's folder: ``run.json`` and ``history.jsonl``, the truth about it; and records as one tidy frame.

What may enter: what reads, writes or keeps apart what is on disk. Nothing that trains, and no torch.

Public: what is named below; ``runs`` (records -> one tidy frame), ``lock`` (one process a run), ``files`` (files
written whole).
"""

from repro.records.history import broken, digest, last_row, read_history
from repro.records.record import (
    Record,
    already_finished,
    differences,
    is_record,
    mark_failed,
    move_aside,
    outdated,
    read_info,
    read_weights,
    record_id,
    variant,
    write_info,
)
from repro.records.types import ENDING, FINISHED, Info, Row

__all__ = [
    "ENDING",
    "FINISHED",
    "Info",
    "Record",
    "Row",
    "already_finished",
    "broken",
    "differences",
    "digest",
    "is_record",
    "last_row",
    "mark_failed",
    "move_aside",
    "outdated",
    "read_history",
    "read_info",
    "read_weights",
    "record_id",
    "variant",
    "write_info",
]
