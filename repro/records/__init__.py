"""A run's folder: ``run.json`` and ``history.jsonl``, its authoritative record; and records as one tidy frame.

What belongs here: code that reads, writes, names and locks the files of runs. Nothing that trains, and no torch.

Public: the names below; ``runs`` (records -> one tidy frame), ``lock`` (one process per run), ``files`` (atomic
writes).
"""

from repro.records.existing import (
    already_finished,
    code_of,
    differences,
    edited,
    is_finished,
    move_aside,
    outdated,
    read_weights,
)
from repro.records.history import broken, digest, last_row, read_history
from repro.records.info import is_record, mark_failed, read_info, record_id, write_info
from repro.records.record import Record
from repro.records.types import ENDING, FINISHED, Info, Row

__all__ = [
    "ENDING",
    "FINISHED",
    "Info",
    "Record",
    "Row",
    "already_finished",
    "broken",
    "code_of",
    "differences",
    "digest",
    "edited",
    "is_finished",
    "is_record",
    "last_row",
    "mark_failed",
    "move_aside",
    "outdated",
    "read_history",
    "read_info",
    "read_weights",
    "record_id",
    "write_info",
]
