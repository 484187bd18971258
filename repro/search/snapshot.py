"""``search.mode=snapshot``: values compared by restarts of one run from its plateau (Figure 12)."""

from collections.abc import Sequence

from repro.config.errors import ReproError
from repro.search.dry import Stage
from repro.search.found import Found
from repro.search.regularizer import Kind
from repro.search.runs import Base
from repro.search.settings import Regularizer


def search(base: Base, settings: Regularizer, kind: Kind, values: Sequence[float]) -> Found:
    """Not there yet."""
    raise ReproError("search.mode=snapshot: not there yet; search.mode=range_test is")


def stages(base: Base, settings: Regularizer, values: Sequence[float]) -> list[Stage]:
    """Not there yet."""
    raise ReproError("search.mode=snapshot: not there yet; search.mode=range_test is")
