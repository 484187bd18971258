"""The paper's claims, as rules fixed before any run (``conf/figure``), judged on the frame.

Every rule compares a 95 % interval with a limit: the interval of one curve's mean over seeds (Student's t), or of
the difference of two curves' means, or of a curve's mean and a published one with a spread (Welch). The claim
holds if the whole interval is on the stated side, fails if it is wholly on the other, and is undecided if it
crosses the limit or seeds are missing. Accuracies are in percentage points.
"""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from omegaconf import MISSING

from repro.config.errors import ReproError
from repro.figures.printed import Printed
from repro.records import FINISHED
from repro.records.averages import final

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
MEASURES = ("final_accuracy", "final_loss", "minimum_loss", "final_above_minimum", "mean_log_loss")


@dataclass
class Rule:
    """A limit on a measure of a curve, or on the difference of two curves: above, below, or within a range."""

    curve: str = MISSING
    minus: str | None = None  # the curve whose measure is subtracted
    of: str = "final_accuracy"  # one of MEASURES, as ``measured`` defines them
    lr: list[float] | None = None  # for mean_log_loss: the first and last LR of the tests, inclusive
    above: float | None = None
    below: float | None = None
    within: float | None = None  # of ``around``
    around: float = 0.0
    or_pooled_sd: bool = False  # ``within`` is at least the two curves' pooled standard deviation
    spread: float | None = None  # the sample standard deviation published with ``around``
    runs: int = 4  # the number of runs that ``spread`` is over


@dataclass
class Summary:
    """A measure that summarises a curve in one number; ``of`` and ``lr`` as in ``Rule``."""

    of: str = MISSING
    lr: list[float] | None = None


@dataclass
class Claim:
    """A claim of the paper's text, and the rules that must all hold."""

    says: str = MISSING
    rules: list[Rule] = field(default_factory=list)


@dataclass
class Finding:
    """One rule judged."""

    rule: str
    estimate: float
    low: float  # of the 95 % interval; NaN if there is none
    high: float
    seeds: str  # the number of runs of each curve
    verdict: str


def require_rules(claims: Mapping[str, Claim], prefix: str) -> None:
    """Raise ReproError, naming the claim's key after ``prefix``, for a claim that cannot be judged as written."""
    for name, claim in claims.items():
        key = f"{prefix}.claims.{name}"
        if not claim.rules:
            raise ReproError(f"{key}.rules=[]: a claim needs a rule")
        for rule in claim.rules:
            require_measure(rule.of, rule.lr, f"{key}.rules: ")
            limits = [limit for limit in ("above", "below", "within") if getattr(rule, limit) is not None]
            if len(limits) != 1:
                given = " and ".join(limits) or "no limit"
                raise ReproError(f"{key}.rules: the rule on {rule.curve} has {given}; give above, below or within")
            if limits != ["within"] and (rule.around or rule.or_pooled_sd or rule.spread is not None):
                raise ReproError(
                    f"{key}.rules: only within reads around, spread and or_pooled_sd, not {limits[0]}"
                )


def require_measure(of: str, lr: Sequence[float] | None, prefix: str = "") -> None:
    """Raise ReproError, its line begun by ``prefix``, for an unknown measure or LRs that do not go with it."""
    if of not in MEASURES:
        raise ReproError(f"{prefix}of={of}: choose from {', '.join(MEASURES)}")
    if of == "mean_log_loss" and (lr is None or len(lr) != 2):
        raise ReproError(f"{prefix}lr={lr}: mean_log_loss needs a pair of LRs; give the first and the last")
    if of != "mean_log_loss" and lr is not None:
        raise ReproError(f"{prefix}lr={lr}: only mean_log_loss reads it, not {of}")


def unknown_curves(claims: Mapping[str, Claim], known: Container[str]) -> list[str]:
    """One line for each curve that a claim names and that is not ``known``."""
    named = {
        (name, c): "" for name, claim in claims.items() for rule in claim.rules for c in (rule.curve, rule.minus)
    }
    return [f"claims.{name}: no curve {curve}" for name, curve in named if curve and curve not in known]


def judge(claim: Claim, frame: pd.DataFrame, seeds: Collection[int]) -> tuple[str, list[Finding]]:
    """The verdict on a claim and its findings; ``seeds`` are those that every curve should have."""
    findings = [_judge(rule, frame, seeds) for rule in claim.rules]
    verdicts = {finding.verdict for finding in findings}
    if NOT_REPRODUCED in verdicts:
        return NOT_REPRODUCED, findings
    return (REPRODUCED if verdicts == {REPRODUCED} else UNDECIDED), findings


def table(claims: dict[str, Claim], frame: pd.DataFrame, seeds: Collection[int], scale: str) -> pd.DataFrame:
    """One row per rule: the claim, its text, its verdict, the rule and the numbers."""
    rows = []
    for name, claim in claims.items():
        verdict, findings = judge(claim, frame, seeds)
        for finding in findings:
            words = {"verdict": in_words(verdict, scale), "finding": in_words(finding.verdict, scale)}
            rows.append({"claim": name, "says": claim.says, "scale": scale, **vars(finding), **words})
    columns = ["claim", "says", "scale", "verdict", "rule", "finding", "estimate", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


ORDER = (NOT_REPRODUCED, UNDECIDED, REPRODUCED)  # failures first


def overview(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per claim of several figures' ``table``: figure, claim, says, verdict, one line per rule.

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
    """An estimate with its 95 % interval, as text; "-" if there is no interval."""
    return "-" if np.isnan(low) else f"{estimate:.3g} [{low:.3g}, {high:.3g}]"


def in_words(verdict: str, scale: str) -> str:
    """A verdict as text; only at paper scale is it a verdict on the paper."""
    if scale == "paper":
        return verdict
    holds = {REPRODUCED: "holds", NOT_REPRODUCED: "does not hold", UNDECIDED: "undecided"}[verdict]
    return f"{holds} at {scale} scale"


def measured(frame: pd.DataFrame, of: str, lr: Sequence[float] | None = None, tests: int = 3) -> pd.Series:
    """The measure of each finished run, indexed by (curve, seed).

    final_accuracy (in points) and final_loss are means over the last three tests, minimum_loss is the minimum of
    the test loss smoothed over ``tests`` tests, final_above_minimum is the final loss minus minimum_loss (0 if the
    loss falls to the end), mean_log_loss is the mean natural logarithm of the test loss over the tests between the
    two LRs ``lr``. Raises ReproError as ``require_measure`` does.
    """
    require_measure(of, lr)
    finished = frame[frame["status"].isin(FINISHED)]
    if lr is not None:
        inside = finished[finished["lr"].between(lr[0], lr[1])]
        logs: pd.Series = np.log(inside["test_loss"]).groupby([inside["curve"], inside["seed"]]).mean()
        return logs
    if of == "final_accuracy":
        return 100 * final(finished, "test_accuracy")
    if of == "final_loss":
        return final(finished, "test_loss")
    losses = finished.sort_values("iteration").groupby(["curve", "seed"])["test_loss"]
    minimum: pd.Series = losses.agg(lambda loss: loss.rolling(tests).mean().min())
    return minimum if of == "minimum_loss" else final(finished, "test_loss") - minimum


def measured_in_print(
    curves: pd.DataFrame, printed: Printed, of: str, lr: Sequence[float] | None = None
) -> pd.Series:
    """``measured`` of printed curves, as seed 0; what is printed as means of tests is not smoothed again."""
    return measured(curves.assign(seed=0, status="finished"), of, lr, tests=1 if printed.smoothed > 1 else 3)


def _judge(rule: Rule, frame: pd.DataFrame, seeds: Collection[int]) -> Finding:
    values = measured(frame, rule.of, rule.lr)
    by_seed = [values.get(curve, pd.Series(dtype="float64")) for curve in (rule.curve, rule.minus) if curve]
    samples = [series.to_numpy() for series in by_seed]
    span = f", LR {rule.lr[0]:g}-{rule.lr[1]:g}" if rule.lr else ""
    measure = " - ".join(f"{rule.of}({curve}{span})" for curve in (rule.curve, rule.minus) if curve)
    counts = " and ".join(str(len(sample)) for sample in samples)
    sign = [1.0, -1.0][: len(samples)]
    if any(len(sample) == 0 for sample in samples):
        return Finding(f"{measure} {_limit(rule)}", np.nan, np.nan, np.nan, counts, UNDECIDED)
    estimate = float(sum(s * sample.mean() for s, sample in zip(sign, samples, strict=True)))
    published = [] if rule.spread is None else [sample_of(rule.around, rule.spread, rule.runs)]
    width = half_width([*samples, *published])
    low, high = estimate - width, estimate + width
    margin = rule.within or 0.0
    if rule.or_pooled_sd:
        margin = max(margin, pooled_sd(samples))
    is_complete = all({*seeds} <= {*series.index} for series in by_seed) and np.isfinite(width)
    verdict = _verdict(rule, margin, low, high) if is_complete else UNDECIDED
    return Finding(f"{measure} {_limit(rule)}", estimate, low, high, counts, verdict)


def _verdict(rule: Rule, margin: float, low: float, high: float) -> str:
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
    """Half the width of the 95 % interval of a mean (one sample) or of a difference of means (two samples: Welch).

    NaN if a sample has fewer than two values.
    """
    from scipy.special import stdtrit

    if any(len(sample) < 2 for sample in samples):
        return float("nan")
    errors = [sample.var(ddof=1) / len(sample) for sample in samples]
    if sum(errors) == 0:
        return 0.0
    dof = sum(errors) ** 2 / sum(e**2 / (len(s) - 1) for e, s in zip(errors, samples, strict=True))
    return float(stdtrit(dof, 0.975) * np.sqrt(sum(errors)))


def sample_of(mean: float, sd: float, runs: int) -> np.ndarray:
    """A sample of ``runs`` values with this mean and sample standard deviation, for published values."""
    values = np.arange(runs) - (runs - 1) / 2
    sample: np.ndarray = mean + values * (sd / values.std(ddof=1) if runs > 1 else 0)
    return sample


def pooled_sd(samples: list[np.ndarray]) -> float:
    """The pooled standard deviation within samples; 0 if no sample has two values."""
    dof = sum(len(sample) - 1 for sample in samples)
    return float(np.sqrt(sum(((s - s.mean()) ** 2).sum() for s in samples) / dof)) if dof else 0.0
