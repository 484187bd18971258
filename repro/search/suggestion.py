"""The learning rate that a range test suggests: the paper's rule made precise, and rules of other tools.

L. N. Smith, arXiv 1803.09820: the test loss is watched while the LR grows; the max LR of a cycle lies just before
the loss's minimum, where it still improves. If the network overfits, the error rate is watched instead, which is
our addition. Does not import torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MOVED = 0.1  # smallest fall of the logarithm of the loss that counts as learning: about a tenth of the loss
RISE = 0.5  # a lasting rise by this share of the fall ends the curve
NEAR = 0.05  # within this share of the fall above the minimum, the loss has stopped improving
CLEAR = 10.0  # multiple of the noise by which a loss must fall to the end of a range that is too low to learn in


@dataclass(frozen=True)
class Suggestion:
    """The suggestion of a curve."""

    max_lr: float  # NaN if it suggests none
    minimum: float  # the LR at the smoothed minimum
    is_first: bool  # the loss is lowest at the first test, or has not learnt: the range starts too high
    is_last: bool  # the loss is lowest at the last test: the range ends before the loss rises
    diverged: float | None  # the LR from which the loss rises for good; None if it does not


def smooth(values: np.ndarray) -> np.ndarray:
    """Running median of three, then running mean of three, or of a twentieth of the tests if that is more.

    A single spike vanishes, and the first and last values are kept. ``values`` (n,) to (n,).
    """
    window = max(3, len(values) // 20) // 2
    medians = np.array([np.median(values[max(0, i - 1) : i + 2]) for i in range(len(values))])
    if len(values):
        medians[[0, -1]] = values[[0, -1]]
    reach = [min(window, i, len(values) - 1 - i) for i in range(len(values))]
    return np.array([medians[i - r : i + r + 1].mean() for i, r in enumerate(reach)])


def suggest(lr: np.ndarray, loss: np.ndarray) -> Suggestion:
    """The largest LR for a cycle, from the LR and the loss at every test of a range test.

    1. The logarithm of the loss is smoothed (``smooth``), so that neither a single bad test nor noise decides.
    2. The curve ends where it has risen again, for good, by half of its fall (if the fall is at least a tenth of
       the loss): after a divergence, mostly a plateau at chance level, there is no minimum of interest.
    3. The choice is the first test before the minimum that is near it: within a twentieth of the fall, or within
       the noise of a smoothed test. Up to there the loss still improves; on the flat bottom after it the choice
       would be random.

    Tests whose loss is not finite end the curve. ``lr`` and ``loss`` have shape (tests,); ``lr`` is ascending.
    Raises ValueError for fewer than three tests.
    """
    lr, loss = np.asarray(lr, float), np.asarray(loss, float)
    if not np.isfinite(loss).all():
        end = int(np.argmin(np.isfinite(loss)))
        first_not_finite: float | None = float(lr[end])
        lr, loss = lr[:end], loss[:end]
    else:
        first_not_finite = None
    if len(loss) < 3:
        raise ValueError(f"only {len(loss)} tests before the loss is not finite; at least three are needed")
    raw = np.log(np.maximum(loss, 1e-12))
    level = smooth(raw)
    end = _end(level)
    lowest = int(np.argmin(level[:end]))
    fall = float(level[: lowest + 1].max() - level[lowest])
    noise = 1.4826 * float(np.median(np.abs(raw - level)[:end]))
    near = max(NEAR * fall, noise / np.sqrt(3))
    chosen = int(np.argmax(level[: lowest + 1] <= level[lowest] + near))
    has_learnt = fall >= MOVED
    diverged = float(lr[end]) if end < len(lr) else first_not_finite
    is_last = lowest >= len(lr) - 2 and diverged is None
    still_falls = is_last and level[0] - level[lowest] > CLEAR * noise
    return Suggestion(
        max_lr=float(lr[chosen]) if has_learnt else float("nan"),
        minimum=float(lr[lowest]),
        is_first=lowest == 0 or not (has_learnt or still_falls),
        is_last=is_last,
        diverged=diverged,
    )


def overfits(lr: np.ndarray, test_loss: np.ndarray, train_loss: np.ndarray) -> bool:
    """Whether a range test's test loss rises for good while its training loss still falls by at least a tenth.

    Then the test loss reflects overconfidence on memorised images rather than too high an LR; the error rate tells
    the two apart. All arrays have shape (tests,). Raises ValueError as ``suggest`` does.
    """
    finite = np.isfinite(test_loss) & np.isfinite(train_loss)
    by_test = suggest(lr, np.where(finite, test_loss, np.nan))
    if by_test.diverged is None:
        return False
    level, is_after = smooth(np.log(np.maximum(train_loss[finite], 1e-12))), lr[finite] > by_test.minimum
    return bool(is_after.any() and level[is_after].min() <= level[~is_after].min() - MOVED)


def _end(level: np.ndarray) -> int:
    """The index from which a smoothed curve rises for good; its length if it does not."""
    for i in range(1, len(level)):
        lowest = level[:i].min()
        fall = level[:i].max() - lowest
        if fall >= MOVED and (level[i:] - lowest > RISE * fall).all():
            return i
    return len(level)


def steepest(lr: np.ndarray, loss: np.ndarray) -> float:
    """The LR at which the smoothed loss falls fastest over the logarithm of the LR: fastai's ``steep``."""
    return float(lr[int(np.argmin(np.diff(smooth(loss)) / np.diff(np.log(np.maximum(lr, 1e-12)))))])


def steepest_test(lr: np.ndarray, loss: np.ndarray) -> float:
    """The LR at which the loss falls fastest from test to test: the suggestion of ``torch-lr-finder``."""
    return float(lr[int(np.argmin(np.gradient(loss)))])


def valley(lr: np.ndarray, loss: np.ndarray) -> float:
    """The middle of the longest falling subsequence: fastai's ``valley``, its default."""
    n = len(loss)
    length, previous = np.ones(n, int), np.full(n, -1)
    for i in range(1, n):
        falls = np.flatnonzero((loss[:i] > loss[i]) & (length[:i] + 1 > length[i]))
        if len(falls):
            previous[i] = falls[np.argmax(length[falls])]
            length[i] = length[previous[i]] + 1
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
