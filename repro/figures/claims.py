"""The paper's claims, as rules fixed before any run (``conf/figure``), judged on the frame.

Every rule compares a 95 % interval with a limit: of one curve's mean over seeds (Student's t), of the difference
of two curves' means, or of a curve's mean and a published one that has a spread (Welch). The claim holds where the
whole interval is on the stated side, fails where it is wholly on the other, and is undecided where it crosses or
seeds are missing. Accuracies are in points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from omegaconf import MISSING

from repro.records import FINISHED
from repro.records.runs import final

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
MEASURES = ("final_accuracy", "final_loss", "minimum_loss", "final_above_minimum", "mean_log_loss")


@dataclass
class Rule:
    """``of`` of ``curve``, less that of ``minus`` if there is one: above, below, or within so much of a value."""

    curve: str = MISSING
    minus: str | None = None
    of: str = "final_accuracy"  # or another of MEASURES, as ``measured`` defines them
    lr: list[float] | None = None  # for mean_log_loss: the tests from this LR to that one, both included
    above: float | None = None
    below: float | None = None
    within: float | None = None  # of ``around``
    around: float = 0.0
    or_pooled_sd: bool = False  # within that, or the two curves' pooled standard deviation where it is larger
    spread: float | None = None  # the sample standard deviation that ``around`` was published with
    runs: int = 4  # that it is over


@dataclass
class Summary:
    """What one number says of a curve; ``of`` and ``lr`` as a rule's."""

    of: str = MISSING
    lr: list[float] | None = None


@dataclass
class Claim:
    """What the text says, and the rules that all have to hold for it."""

    says: str = MISSING
    rules: list[Rule] = field(default_factory=list)


@dataclass
class Finding:
    """One rule judged: the estimate, its 95 % interval (NaN where there is none), runs a curve, the verdict."""

    rule: str
    estimate: float
    low: float
    high: float
    seeds: str
    verdict: str


def judge(claim: Claim, frame: pd.DataFrame, seeds: int) -> tuple[str, list[Finding]]:
    """The verdict on a claim and the findings behind it; ``seeds`` are those that every curve should have."""
    findings = [_judge(rule, frame, seeds) for rule in claim.rules]
    verdicts = {finding.verdict for finding in findings}
    if NOT_REPRODUCED in verdicts:
        return NOT_REPRODUCED, findings
    return (REPRODUCED if verdicts == {REPRODUCED} else UNDECIDED), findings


def table(claims: dict[str, Claim], frame: pd.DataFrame, seeds: int, scale: str) -> pd.DataFrame:
    """A row a rule: claim, what it says, its verdict in words, the rule and the numbers."""
    rows = []
    for name, claim in claims.items():
        verdict, findings = judge(claim, frame, seeds)
        for finding in findings:
            words = {"verdict": in_words(verdict, scale), "finding": in_words(finding.verdict, scale)}
            rows.append({"claim": name, "says": claim.says, "scale": scale, **vars(finding), **words})
    columns = ["claim", "says", "scale", "verdict", "rule", "finding", "estimate", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


ORDER = (NOT_REPRODUCED, UNDECIDED, REPRODUCED)  # what speaks against the paper, or against us, comes first


def overview(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a claim of several figures' ``table``: figure, claim, says, verdict, a line a rule with its interval.

    The claims that fail come first, then the undecided ones, each in the figures' order.
    """
    rows = []
    for figure, judged in tables.items():
        for claim, part in judged.groupby("claim", sort=False):
            head = part.iloc[0]
            words = [in_words(verdict, head["scale"]) for verdict in ORDER]
            rules = zip(part["rule"], part["estimate"], part["low"], part["high"], strict=True)
            numbers = ";\n".join(f"{rule}: {interval(*values)}" for rule, *values in rules)
            rows.append((words.index(head["verdict"]), figure, claim, head["says"], head["verdict"], numbers))
    rows.sort(key=lambda row: row[0])
    return pd.DataFrame([row[1:] for row in rows], columns=["figure", "claim", "says", "verdict", "ours"])


def interval(estimate: float, low: float, high: float) -> str:
    """An estimate with its 95 % interval, in words; "-" where there is no interval."""
    return "-" if np.isnan(low) else f"{estimate:.3g} [{low:.3g}, {high:.3g}]"


def in_words(verdict: str, scale: str) -> str:
    """A verdict as it may be read: only at paper scale does it speak of the paper."""
    if scale == "paper":
        return verdict
    holds = {REPRODUCED: "holds", NOT_REPRODUCED: "does not hold", UNDECIDED: "undecided"}[verdict]
    return f"{holds} at {scale} scale"


def measured(frame: pd.DataFrame, of: str, lr: Sequence[float] | None = None) -> pd.Series:
    """The measure of each finished run, indexed by (curve, seed).

    final_accuracy (in points) and final_loss are means over the last three tests, minimum_loss is the minimum of
    the test loss smoothed over three tests, final_above_minimum how far the final loss lies above it (0 where the
    loss falls to the end), mean_log_loss the mean of its natural logarithm over the tests between the two LRs
    ``lr``. Raises ValueError for another measure, and for mean_log_loss without its two LRs.
    """
    done = frame[frame["status"].isin(FINISHED)]
    if of == "mean_log_loss":
        if lr is None or len(lr) != 2:
            raise ValueError(f"mean_log_loss: lr={lr} are not the two LRs that it lies between")
        inside = done[done["lr"].between(lr[0], lr[1])]
        logs: pd.Series = np.log(inside["test_loss"]).groupby([inside["curve"], inside["seed"]]).mean()
        return logs
    if of == "final_accuracy":
        return 100 * final(done, "test_accuracy")
    if of == "final_loss":
        return final(done, "test_loss")
    if of not in MEASURES:
        raise ValueError(f"no measure {of!r}; choose from {', '.join(MEASURES)}")
    runs = done.sort_values("iteration").groupby(["curve", "seed"])["test_loss"]
    least: pd.Series = runs.agg(lambda loss: loss.rolling(3).mean().min())
    return least if of == "minimum_loss" else final(done, "test_loss") - least


def _judge(rule: Rule, frame: pd.DataFrame, seeds: int) -> Finding:
    values = measured(frame, rule.of, rule.lr)
    samples = [
        values.get(curve, pd.Series(dtype="float64")).to_numpy() for curve in (rule.curve, rule.minus) if curve
    ]
    span = f", LR {rule.lr[0]:g}-{rule.lr[1]:g}" if rule.lr else ""
    words = " - ".join(f"{rule.of}({curve}{span})" for curve in (rule.curve, rule.minus) if curve)
    counts = " and ".join(str(len(sample)) for sample in samples)
    sign = [1.0, -1.0][: len(samples)]
    if any(len(sample) == 0 for sample in samples):
        return Finding(f"{words} {_limit(rule)}", np.nan, np.nan, np.nan, counts, UNDECIDED)
    estimate = float(sum(s * sample.mean() for s, sample in zip(sign, samples, strict=True)))
    published = [] if rule.spread is None else [sample_of(rule.around, rule.spread, rule.runs)]
    width = half_width([*samples, *published])
    low, high = estimate - width, estimate + width
    margin = rule.within or 0.0
    if rule.or_pooled_sd:
        margin = max(margin, pooled_sd(samples))
    complete = all(len(sample) >= seeds for sample in samples) and np.isfinite(width)
    verdict = _side(rule, margin, low, high) if complete else UNDECIDED
    return Finding(f"{words} {_limit(rule)}", estimate, low, high, counts, verdict)


def _side(rule: Rule, margin: float, low: float, high: float) -> str:
    if rule.above is not None:
        holds, fails = low > rule.above, high < rule.above
    elif rule.below is not None:
        holds, fails = high < rule.below, low > rule.below
    else:
        least, most = rule.around - margin, rule.around + margin
        holds, fails = least < low and high < most, high < least or low > most
    return REPRODUCED if holds else NOT_REPRODUCED if fails else UNDECIDED


def _limit(rule: Rule) -> str:
    if rule.above is not None:
        return f"> {rule.above:g}"
    if rule.below is not None:
        return f"< {rule.below:g}"
    pooled = " or a pooled standard deviation" if rule.or_pooled_sd else ""
    spread = "" if rule.spread is None else f" ± {rule.spread:g}"
    return f"within {rule.within:g}{pooled} of {rule.around:g}{spread}"


def half_width(samples: list[np.ndarray]) -> float:
    """Half the 95 % interval of a mean (one sample) or a difference of means (two: Welch); NaN from one value."""
    from scipy.special import stdtrit

    if any(len(sample) < 2 for sample in samples):
        return float("nan")
    errors = [sample.var(ddof=1) / len(sample) for sample in samples]
    if sum(errors) == 0:
        return 0.0
    freedom = sum(errors) ** 2 / sum(e**2 / (len(s) - 1) for e, s in zip(errors, samples, strict=True))
    return float(stdtrit(freedom, 0.975) * np.sqrt(sum(errors)))


def sample_of(mean: float, sd: float, runs: int) -> np.ndarray:
    """Values with the mean and sample standard deviation that were published of so many runs."""
    values = np.arange(runs) - (runs - 1) / 2
    sample: np.ndarray = mean + values * (sd / values.std(ddof=1) if runs > 1 else 0)
    return sample


def pooled_sd(samples: list[np.ndarray]) -> float:
    """The standard deviation within samples, over all of them; 0 where none has two values."""
    freedom = sum(len(sample) - 1 for sample in samples)
    return float(np.sqrt(sum(((s - s.mean()) ** 2).sum() for s in samples) / freedom)) if freedom else 0.0
