"""The learning rate that a range test suggests: the paper's rule made exact, and the rules of others.

L. N. Smith, arXiv 1803.09820: the test loss is watched while the LR grows; the largest LR of a cycle lies just
before the loss's minimum, where it still improves. Where the network overfits, the error rate is watched in its
place, which is our addition. No torch here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MOVED = 0.1  # a fall of the logarithm of the loss that counts as learning: a tenth of the loss
RISE = 0.5  # of what it has fallen by: a rise of so much ends what is looked at, for good
NEAR = 0.05  # of the fall: so near to the minimum it has stopped improving


@dataclass(frozen=True)
class Suggestion:
    """What a curve suggests."""

    max_lr: float  # NaN where it suggests none
    minimum: float  # the LR at the smoothed minimum
    is_first: bool  # the loss was at its lowest at the first test: the range begins too high
    is_last: bool  # or at the last: the range ends before the loss rises
    diverged: float | None  # the LR from which on it rose for good


def smooth(values: np.ndarray) -> np.ndarray:
    """Running median of three, then running mean of three, or of a twentieth of the tests where that is more.

    A single spike vanishes, and the ends stay where they are.
    """
    window = max(3, len(values) // 20) // 2
    medians = np.array([np.median(values[max(0, i - 1) : i + 2]) for i in range(len(values))])
    if len(values):
        medians[[0, -1]] = values[[0, -1]]
    reach = [min(window, i, len(values) - 1 - i) for i in range(len(values))]
    return np.array([medians[i - r : i + r + 1].mean() for i, r in enumerate(reach)])


def suggest(lr: np.ndarray, loss: np.ndarray) -> Suggestion:
    """The largest LR for a cycle, from the LR and the loss at every test of a range test.

    1. The logarithm of the loss is smoothed (``smooth``), so that neither one bad test nor noise decides.
    2. It is followed up to where it has risen again, for good, by half of what it had fallen by (if that is a
       tenth of the loss at least): what comes after a divergence, a plateau at chance mostly, is no minimum.
    3. Of the minimum's left side, the first test that is near it: nearer than a twentieth of the fall, or than the
       noise of a smoothed test. Up to there the loss still improves; on the flat bottom behind it only chance
       would choose.

    Tests whose loss is not finite end the curve. ``lr`` rises. Raises ValueError for fewer than three tests.
    """
    lr, loss = np.asarray(lr, float), np.asarray(loss, float)
    if not np.isfinite(loss).all():
        end = int(np.argmin(np.isfinite(loss)))
        broke: float | None = float(lr[end])
        lr, loss = lr[:end], loss[:end]
    else:
        broke = None
    if len(loss) < 3:
        raise ValueError(f"{len(loss)} tests before the loss stops being finite; three are the least")
    raw = np.log(np.maximum(loss, 1e-12))
    level = smooth(raw)
    end = _end(level)
    lowest = int(np.argmin(level[:end]))
    fall = float(level[: lowest + 1].max() - level[lowest])
    noise = 1.4826 * float(np.median(np.abs(raw - level)[:end]))
    near = max(NEAR * fall, noise / np.sqrt(3))
    chosen = int(np.argmax(level[: lowest + 1] <= level[lowest] + near))
    learnt = fall >= MOVED
    diverged = float(lr[end]) if end < len(lr) else broke
    return Suggestion(
        max_lr=float(lr[chosen]) if learnt else float("nan"),
        minimum=float(lr[lowest]),
        is_first=lowest == 0 or not learnt,
        is_last=lowest >= len(lr) - 2 and diverged is None,
        diverged=diverged,
    )


def overfits(lr: np.ndarray, test_loss: np.ndarray, train_loss: np.ndarray) -> bool:
    """Whether a range test's test loss rises for good while the training loss still falls, by a tenth at least.

    Then the test loss shows how sure the network becomes of what it learns by heart, and the LR need not be too
    high; the error rate says whether it is. Raises ValueError as ``suggest`` does.
    """
    finite = np.isfinite(test_loss) & np.isfinite(train_loss)
    by_test = suggest(lr, np.where(finite, test_loss, np.nan))
    if by_test.diverged is None:
        return False
    level, behind = smooth(np.log(np.maximum(train_loss[finite], 1e-12))), lr[finite] > by_test.minimum
    return bool(behind.any() and level[behind].min() <= level[~behind].min() - MOVED)


def _end(level: np.ndarray) -> int:
    """The index from which on a smoothed curve has risen for good; its length where it has not."""
    for i in range(1, len(level)):
        lowest = level[:i].min()
        fall = level[:i].max() - lowest
        if fall >= MOVED and (level[i:] - lowest > RISE * fall).all():
            return i
    return len(level)


def steepest(lr: np.ndarray, loss: np.ndarray) -> float:
    """Where the smoothed loss falls fastest over the logarithm of the LR: fastai's ``steep``."""
    return float(lr[int(np.argmin(np.diff(smooth(loss)) / np.diff(np.log(np.maximum(lr, 1e-12)))))])


def steepest_test(lr: np.ndarray, loss: np.ndarray) -> float:
    """Where the loss falls fastest from test to test: what ``torch-lr-finder`` suggests."""
    return float(lr[int(np.argmin(np.gradient(loss)))])


def valley(lr: np.ndarray, loss: np.ndarray) -> float:
    """The middle of the longest falling subsequence: fastai's ``valley``, its default."""
    n = len(loss)
    length, before = np.ones(n, int), np.full(n, -1)
    for i in range(1, n):
        falls = np.flatnonzero((loss[:i] > loss[i]) & (length[:i] + 1 > length[i]))
        if len(falls):
            before[i] = falls[np.argmax(length[falls])]
            length[i] = length[before[i]] + 1
    end = int(np.argmax(length))
    start = end - int(length[end])
    third = (end - start) / 3
    return float(lr[max(0, start + int(third) + int(third / 2))])


def minimum_tenth(lr: np.ndarray, loss: np.ndarray) -> float:
    """A tenth of the LR at the lowest loss: fastai's ``minimum``."""
    return float(lr[int(np.argmin(loss))]) / 10


RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "steepest slope (fastai steep)": steepest,
    "steepest test (torch-lr-finder)": steepest_test,
    "valley (fastai valley)": valley,
    "minimum / 10 (fastai minimum)": minimum_tenth,
}
