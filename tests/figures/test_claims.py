"""Claims are judged by intervals over seeds, in the paper's words only at paper scale, by rules fixed here too."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scipy import stats

from repro.config.errors import ReproError
from repro.config.folders import CONF
from repro.figures import claims
from repro.figures.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Claim, Rule
from repro.figures.figure import Figure
from repro.records import runs


def frame(measure="test_accuracy", status="finished", **curves):
    """Runs of each curve's seeds: what ``measure`` is at every test, or a list of what it is test by test."""
    rows = []
    for curve, seeds in curves.items():
        for seed, tests in enumerate(seeds):
            for i, value in enumerate(tests if isinstance(tests, list) else [tests] * 4):
                row = {"curve": curve, "seed": seed, "status": status, "iteration": 100 * i, "lr": 0.1}
                rows.append({**row, "test_accuracy": 0.5, "test_loss": 1.0, measure: value})
    return pd.DataFrame(rows, columns=runs.KEYS + runs.VALUES)


def spread(mean, sd, seeds=4):
    """So many values of that mean and sample standard deviation."""
    return mean + sd * np.sqrt((seeds - 1) / seeds) * np.tile([-1.0, 1.0], seeds // 2)


def points(mean, sd, seeds=4):
    """Accuracies, given in points."""
    return spread(mean, sd, seeds) / 100


def judge_one(made, seeds=4, **rule):
    verdict, [finding] = claims.judge(Claim(rules=[Rule(**rule)]), made, range(seeds))
    assert verdict == finding.verdict
    return finding


# The 95 % interval of four seeds is ±1.59 sd for one curve, ±1.73 sd for two of the same sd; of sixteen, ±0.72 sd.
@pytest.mark.parametrize(
    ("rule", "a", "b", "verdict"),
    [
        ({"above": 80}, points(82, 1), None, REPRODUCED),
        ({"above": 80}, points(78, 1), None, NOT_REPRODUCED),
        ({"above": 80}, points(81, 1), None, UNDECIDED),
        ({"above": 80}, points(79, 1), None, UNDECIDED),
        ({"below": 50}, points(48, 1), None, REPRODUCED),
        ({"below": 50}, points(52, 1), None, NOT_REPRODUCED),
        ({"below": 50}, points(49, 1), None, UNDECIDED),
        ({"minus": "b", "above": 0}, points(92, 1), points(90, 1), REPRODUCED),
        ({"minus": "b", "above": 0}, points(90, 1), points(92, 1), NOT_REPRODUCED),
        ({"minus": "b", "above": 0}, points(91, 1), points(90, 1), UNDECIDED),
        ({"minus": "b", "above": -0.3}, points(90, 0.05), points(90.2, 0.05), REPRODUCED),
        ({"minus": "b", "above": -0.3}, points(90, 0.05), points(90.5, 0.05), NOT_REPRODUCED),
        ({"minus": "b", "above": -0.3}, points(90, 0.05), points(90.35, 0.05), UNDECIDED),
        ({"minus": "b", "below": 0}, points(88, 1), points(90, 1), REPRODUCED),
        ({"minus": "b", "below": 0}, points(92, 1), points(90, 1), NOT_REPRODUCED),
        ({"minus": "b", "below": 0}, points(89, 1), points(90, 1), UNDECIDED),
        ({"within": 0.5, "around": 92.0}, points(92.1, 0.1), None, REPRODUCED),
        ({"within": 0.5, "around": 92.0}, points(93, 0.1), None, NOT_REPRODUCED),
        ({"within": 0.5, "around": 92.0}, points(91, 0.1), None, NOT_REPRODUCED),
        ({"within": 0.5, "around": 92.0}, points(92.5, 0.1), None, UNDECIDED),
        ({"within": 0.5, "around": 92.0}, points(92, 1), None, UNDECIDED),
        ({"minus": "b", "within": 1.0}, points(90.5, 0.2), points(90, 0.2), REPRODUCED),
        ({"minus": "b", "within": 1.0}, points(88.5, 0.2), points(90, 0.2), NOT_REPRODUCED),
        ({"minus": "b", "within": 1.0}, points(91, 0.2), points(90, 0.2), UNDECIDED),
    ],
)
def test_the_whole_interval_decides(rule, a, b, verdict):
    made = frame(a=a) if b is None else frame(a=a, b=b)
    assert judge_one(made, curve="a", **rule).verdict == verdict


@pytest.mark.parametrize("of", ["final_loss", "minimum_loss"])
@pytest.mark.parametrize(("a", "verdict"), [(0.3, REPRODUCED), (0.5, NOT_REPRODUCED), (0.39, UNDECIDED)])
def test_losses_are_judged_as_they_are(of, a, verdict):
    made = frame("test_loss", a=spread(a, 0.01), b=spread(0.4, 0.01))
    assert judge_one(made, curve="a", minus="b", of=of, below=0).verdict == verdict


@pytest.mark.parametrize(
    ("difference", "sd", "seeds", "alone", "pooled"),
    [
        (0.5, 0.2, 4, REPRODUCED, REPRODUCED),
        (1.5, 0.2, 4, NOT_REPRODUCED, NOT_REPRODUCED),
        (1.0, 0.2, 4, UNDECIDED, UNDECIDED),
        (0, 4, 16, UNDECIDED, REPRODUCED),
        (6, 4, 16, NOT_REPRODUCED, UNDECIDED),
        (8, 4, 16, NOT_REPRODUCED, NOT_REPRODUCED),
        (-8, 4, 16, NOT_REPRODUCED, NOT_REPRODUCED),
    ],
)
def test_a_pooled_standard_deviation_decides_where_it_is_larger(difference, sd, seeds, alone, pooled):
    made = frame(a=points(70 + difference, sd, seeds), b=points(70, sd, seeds))
    rule = {"curve": "a", "minus": "b", "within": 1.0}
    assert judge_one(made, seeds, **rule).verdict == alone
    assert judge_one(made, seeds, **rule, or_pooled_sd=True).verdict == pooled


def test_the_pooled_standard_deviation_weighs_by_degrees_of_freedom():
    a, b = np.array([1.0, 2.0, 6.0]), np.array([4.0, 4.5, 5.0, 5.5, 9.0])
    expected = np.sqrt((2 * a.var(ddof=1) + 4 * b.var(ddof=1)) / 6)
    assert claims.pooled_sd([a, b]) == pytest.approx(expected)
    assert claims.pooled_sd([np.array([3.0]), np.array([4.0])]) == 0


def test_the_final_accuracy_is_the_mean_of_three_tests_in_points():
    finding = judge_one(frame(a=[[0.1, 0.6, 0.7, 0.8]] * 4), curve="a", above=50)
    assert finding.estimate == pytest.approx(70)


def test_the_final_loss_is_the_mean_of_three_tests():
    finding = judge_one(frame("test_loss", a=[[9.0, 3.0, 2.0, 1.0]] * 4), curve="a", of="final_loss", below=5)
    assert finding.estimate == pytest.approx(2)


def test_a_single_low_spike_is_no_minimum_loss():
    low = [[3.0, 1.2, 1.2, 1.2, 5.0, 9.0]] * 4
    spiky = [[3.0, 1.5, 1.5, 0.9, 1.5, 1.5, 9.0]] * 4
    made = frame("test_loss", low=low, spiky=spiky).sample(frac=1, random_state=0)
    values = claims.measured(made, "minimum_loss")
    assert values["low"].tolist() == pytest.approx([1.2] * 4)
    assert values["spiky"].tolist() == pytest.approx([1.3] * 4)
    assert judge_one(made, curve="low", minus="spiky", of="minimum_loss", below=0).verdict == REPRODUCED


LRS = [0.4, 0.5, 0.6, 0.85, 0.9]


def test_the_mean_log_loss_is_over_the_tests_between_two_lrs():
    made = frame("test_loss", a=[[9.0, 1.0, 2.0, 4.0, 9.0]] * 4, b=[[1.0, 2.0, 4.0, 8.0, 1.0]] * 4)
    made["lr"] = LRS * 8
    values = claims.measured(made.sample(frac=1, random_state=0), "mean_log_loss", [0.5, 0.85])
    assert values["a"].tolist() == pytest.approx([np.log(2)] * 4)  # of 1, 2 and 4: both ends included
    assert values["b"].tolist() == pytest.approx([np.log(4)] * 4)
    rule = {"of": "mean_log_loss", "lr": [0.5, 0.85], "curve": "a", "minus": "b"}
    finding = judge_one(made, **rule, above=0)
    assert finding.rule == "mean_log_loss(a, LR 0.5-0.85) - mean_log_loss(b, LR 0.5-0.85) > 0"
    assert finding.estimate == pytest.approx(-np.log(2))


@pytest.mark.parametrize(("spreads", "verdict"), [(0.01, REPRODUCED), (2, UNDECIDED)])
def test_the_mean_log_loss_is_judged_by_its_interval(spreads, verdict):
    logs = {"a": spread(0.5, spreads), "b": spread(0.7, spreads)}
    made = frame("test_loss", **{curve: np.exp(values) for curve, values in logs.items()})
    rule = {"of": "mean_log_loss", "lr": [0, 1], "curve": "a", "minus": "b"}
    assert judge_one(made, **rule, below=0).verdict == verdict


@pytest.mark.parametrize("lr", [None, [], [0.5]])
def test_a_mean_log_loss_needs_two_lrs(lr):
    with pytest.raises(ReproError, match=r"lr=.*: mean_log_loss needs a pair of LRs"):
        judge_one(frame(a=[0.9] * 4), curve="a", of="mean_log_loss", lr=lr, above=0)


def test_an_unknown_measure_is_named():
    with pytest.raises(ReproError, match="of=best_accuracy: choose from final_accuracy"):
        judge_one(frame(a=[0.9] * 4), curve="a", of="best_accuracy", above=0)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "the rule on a has no limit; give above, below or within"),
        ({"above": 1, "within": 2}, "the rule on a has above and within; give above, below or within"),
        ({"above": 1, "around": 2}, "only within reads around, spread and or_pooled_sd, not above"),
        ({"below": 1, "lr": [1, 2]}, r"lr=\[1, 2\]: only mean_log_loss reads it, not final_accuracy"),
        ({"below": 1, "of": "loss"}, "of=loss: choose from final_accuracy, "),
    ],
)
def test_a_rule_that_cannot_be_judged_as_it_is_written_is_named(rule, message):
    with pytest.raises(ReproError, match=rf"^figures.mine.claims.c.rules: {message}"):
        claims.require_rules({"c": claims.Claim("so", [claims.Rule(curve="a", **rule)])}, "figures.mine")


@pytest.mark.parametrize("count", [2, 4, 7])
def test_the_interval_of_a_mean_is_students(count):
    sample = np.random.default_rng(count).normal(90, 2, count)
    low, high = stats.t.interval(0.95, count - 1, loc=sample.mean(), scale=stats.sem(sample))
    finding = judge_one(frame(a=sample / 100), curve="a", above=0)
    assert (finding.low, finding.high) == pytest.approx((low, high))


@pytest.mark.parametrize(("counts", "sds"), [((4, 4), (1, 1)), ((4, 4), (0.1, 5)), ((2, 9), (3, 0.5))])
def test_the_interval_of_a_difference_is_welchs(counts, sds):
    rng = np.random.default_rng(1)
    a, b = (rng.normal(80, sd, count) for count, sd in zip(counts, sds, strict=True))
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    finding = judge_one(frame(a=a / 100, b=b / 100), curve="a", minus="b", above=0)
    assert (finding.low, finding.high) == pytest.approx((low, high))
    assert claims.half_width([a, b]) == pytest.approx((high - low) / 2)


def test_missing_seeds_leave_it_undecided_with_the_numbers_there():
    finding = judge_one(frame(a=points(92, 0.1), b=[0.7, 0.71, 0.72]), curve="a", minus="b", above=0)
    assert finding.verdict == UNDECIDED
    assert finding.estimate == pytest.approx(21)
    assert 0 < finding.low < 21 < finding.high
    assert finding.seeds == "4 and 3"


def test_a_seed_that_is_asked_for_is_not_replaced_by_others():
    made = frame(a=points(82, 0.1))  # seeds 0 to 3
    claim = Claim(rules=[Rule(curve="a", above=80)])
    assert claims.judge(claim, made, [0, 3])[0] == REPRODUCED
    verdict, [finding] = claims.judge(claim, made, [5])
    assert (verdict, finding.seeds) == (UNDECIDED, "4")


def test_a_single_seed_has_an_estimate_and_no_interval():
    finding = judge_one(frame(a=[0.9]), seeds=1, curve="a", above=80)
    assert finding.verdict == UNDECIDED
    assert finding.estimate == pytest.approx(90)
    assert np.isnan([finding.low, finding.high]).all()


@pytest.mark.parametrize("of", claims.MEASURES)
@pytest.mark.parametrize(
    ("made", "seeds"), [(frame(a=[0.9] * 4), "4 and 0"), (frame(b=[0.9] * 4), "0 and 4"), (frame(), "0 and 0")]
)
def test_a_missing_curve_leaves_it_undecided(of, made, seeds):
    lr = [0, 1] if of == "mean_log_loss" else None
    finding = judge_one(made, curve="a", minus="b", of=of, lr=lr, above=0)
    assert (finding.verdict, finding.seeds) == (UNDECIDED, seeds)
    assert np.isnan([finding.estimate, finding.low, finding.high]).all()


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_is_no_seed(status):
    made = pd.concat([frame(a=[0.9] * 3), frame(status=status, a=[0.1]).assign(seed=3)])
    finding = judge_one(made, curve="a", above=80)
    assert (finding.verdict, finding.seeds) == (UNDECIDED, "3")
    assert finding.estimate == pytest.approx(90)


def test_a_diverged_run_is_a_seed():
    made = pd.concat([frame(a=[0.9] * 3), frame(status="diverged", a=[0.1]).assign(seed=3)])
    finding = judge_one(made, curve="a", above=80)
    assert (finding.verdict, finding.seeds) == (UNDECIDED, "4")
    assert finding.estimate == pytest.approx(70)
    assert judge_one(frame(status="diverged", a=points(10, 0.1)), curve="a", below=50).verdict == REPRODUCED


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.9] * 4, [0.8] * 4, REPRODUCED),
        ([0.8] * 4, [0.9] * 4, NOT_REPRODUCED),
        ([0.9] * 4, [0.9] * 4, UNDECIDED),
        ([0.9] * 4, points(80, 1), REPRODUCED),
    ],
)
def test_seeds_may_be_equal(a, b, verdict):
    assert judge_one(frame(a=a, b=b), curve="a", minus="b", above=0).verdict == verdict


def test_seeds_that_are_equal_decide_about_one_curve():
    finding = judge_one(frame(a=[0.9] * 4), curve="a", above=80)
    assert finding.verdict == REPRODUCED
    assert (finding.low, finding.high) == pytest.approx((90, 90))


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ([80, 85], REPRODUCED),
        ([80, 95], NOT_REPRODUCED),
        ([80, 90], UNDECIDED),
        ([95, 90], NOT_REPRODUCED),
        ([], UNDECIDED),
    ],
)
def test_all_rules_of_a_claim_have_to_hold(limits, verdict):
    claim = Claim(rules=[Rule(curve="a", above=limit) for limit in limits])
    judged, findings = claims.judge(claim, frame(a=points(90, 1)), range(4))
    assert judged == verdict
    assert len(findings) == len(limits)


VERDICTS = [(70, REPRODUCED, "holds"), (99, NOT_REPRODUCED, "does not hold"), (90, UNDECIDED, "undecided")]


@pytest.mark.parametrize(("limit", "verdict", "words"), VERDICTS)
def test_only_paper_scale_speaks_of_the_paper(limit, verdict, words):
    held = {"x-1": Claim("so it is", [Rule(curve="a", above=limit), Rule(curve="a", above=limit)])}
    made = frame(a=points(90, 1))
    for scale in ("quick", "demo", "mine"):
        table = claims.table(held, made, range(4), scale)
        seen = {*table["verdict"], *table["finding"]}
        assert seen == {f"{words} at {scale} scale"}
        assert "reproduced" not in "".join(seen)
    table = claims.table(held, made, range(4), "paper")
    assert {*table["verdict"], *table["finding"]} == {verdict}


def test_the_table_has_a_row_a_rule():
    rules = [Rule(curve="a", above=80), Rule(curve="a", minus="b", within=1, or_pooled_sd=True)]
    table = claims.table({"x-1": Claim("so it is", rules)}, frame(a=[0.9] * 4, b=[0.5] * 4), range(4), "paper")
    assert table["claim"].tolist() == ["x-1", "x-1"]
    assert table["says"].tolist() == ["so it is"] * 2
    assert table["verdict"].tolist() == [NOT_REPRODUCED] * 2
    assert table["finding"].tolist() == [REPRODUCED, NOT_REPRODUCED]
    assert table["rule"].tolist() == [
        "final_accuracy(a) > 80",
        "final_accuracy(a) - final_accuracy(b) within 1 or a pooled standard deviation of 0",
    ]
    assert table["estimate"].tolist() == pytest.approx([90, 40])
    assert table["seeds"].tolist() == ["4", "4 and 4"]
    assert claims.table({}, frame(), range(4), "paper").columns.tolist() == table.columns.tolist()


FIGURES = {
    path.stem: OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Figure), OmegaConf.load(path)))
    for path in sorted((CONF / "figure").glob("*.yaml"))
    if path.stem != "all"
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_only_names_curves_that_exist(name):
    figure = FIGURES[name]
    exist = {path.stem for path in (CONF / "experiment" / figure.experiments).glob("*.yaml")}
    rules = [rule for claim in figure.claims.values() for rule in claim.rules]
    named = {*figure.curves, *figure.logs, *(value.curve for value in figure.published)}
    named |= {curve for rule in rules for curve in (rule.curve, rule.minus) if curve}
    assert exist
    assert named <= exist


@pytest.mark.parametrize("name", FIGURES)
def test_a_rule_has_one_measure_and_one_limit(name):
    for claim in FIGURES[name].claims.values():
        assert claim.says
        assert claim.rules
        for rule in claim.rules:
            assert rule.of in claims.MEASURES
            assert sum(limit is not None for limit in (rule.above, rule.below, rule.within)) == 1
            assert rule.within is not None or (rule.around == 0 and not rule.or_pooled_sd)
            assert rule.curve != rule.minus
            assert (rule.lr is not None) == (rule.of == "mean_log_loss")


ACCURACY, LOSS, *_, LOG_LOSS = claims.MEASURES
RULES = {  # claim: (curve, minus, of, above, below, within, around, or_pooled_sd), fixed before any run
    "5a-1": [("clr_3.0", "piecewise_0.1", ACCURACY, 0, None, None, 0, False)],
    "5a-2": [("clr_3.0", "piecewise_0.35", ACCURACY, 0, None, None, 0, False)],
    "5b-1": [
        ("wd_1e-4", None, ACCURACY, 80, None, None, 0, False),
        ("wd_1e-5", None, ACCURACY, 80, None, None, 0, False),
        ("wd_1e-6", None, ACCURACY, 80, None, None, 0, False),
    ],
    "5b-2": [("wd_1e-3", None, ACCURACY, None, 50, None, 0, False)],
    "5b-3": [
        ("wd_1e-4", "wd_1e-5", ACCURACY, 0, None, None, 0, False),
        ("wd_1e-4", "wd_1e-6", ACCURACY, 0, None, None, 0, False),
    ],
    "6a-1": [
        ("tbs1024", None, ACCURACY, None, None, 0.5, 91.8, False),
        ("tbs512", None, ACCURACY, None, None, 0.5, 91.9, False),
        ("tbs256", None, ACCURACY, None, None, 0.5, 91.7, False),
        ("tbs128", None, ACCURACY, None, None, 0.5, 91.3, False),
    ],
    "8a-1": [("decreasing_0.95-0.85", "constant_0.9", LOSS, None, 0, None, 0, False)],
    "8a-2": [("decreasing_0.95-0.85", "increasing_0.85-0.95", LOSS, None, 0, None, 0, False)],
    "8a-3": [
        ("decreasing_0.95-0.85", None, LOSS, None, None, 0.03, 0.339, False),
        ("constant_0.9", None, LOSS, None, None, 0.03, 0.366, False),
        ("increasing_0.85-0.95", None, LOSS, None, None, 0.03, 0.389, False),
    ],
    "8b-1": [
        ("tbs512", "tbs128", ACCURACY, -0.3, None, None, 0, False),
        ("tbs512", "tbs256", ACCURACY, -0.3, None, None, 0, False),
        ("tbs512", "tbs1024", ACCURACY, -0.3, None, None, 0, False),
    ],
    "8b-2": [("tbs512", "tbs128", ACCURACY, 0, None, None, 0, False)],
    "8b-3": [("tbs128", "tbs1024", LOSS, None, 0, None, 0, False)],
    "8b-4": [("tbs512", None, ACCURACY, None, None, 0.5, 92.0, False)],
    "8b-5": [
        ("tbs1024", None, ACCURACY, None, None, 0.5, 91.9, False),
        ("tbs512", None, ACCURACY, None, None, 0.5, 91.9, False),
        ("tbs256", None, ACCURACY, None, None, 0.5, 91.6, False),
        ("tbs128", None, ACCURACY, None, None, 0.5, 91.4, False),
    ],
    "15a-1": [("wd_1e-4", "wd_3e-4", LOG_LOSS, None, 0, None, 0, False)],
    "15a-2": [("wd_1e-4", "wd_1e-5", LOG_LOSS, None, 0, None, 0, False)],
    "15b-1": [
        ("tbs256", "tbs512", ACCURACY, None, None, 1.0, 0, True),
        ("tbs256", "tbs1024", ACCURACY, None, None, 1.0, 0, True),
        ("tbs512", "tbs1024", ACCURACY, None, None, 1.0, 0, True),
    ],
    "15b-2": [
        ("tbs256", None, ACCURACY, None, None, 1.0, 68.8, False),
        ("tbs512", None, ACCURACY, None, None, 1.0, 68.5, False),
        ("tbs1024", None, ACCURACY, None, None, 1.0, 68.5, False),
    ],
}
HELD = {
    "fig5a": ["5a-1", "5a-2"],
    "fig5b": ["5b-1", "5b-2", "5b-3"],
    "fig6a": ["6a-1"],
    "fig8a": ["8a-1", "8a-2", "8a-3"],
    "fig8b": ["8b-1", "8b-2", "8b-3", "8b-4", "8b-5"],
    "fig15a": ["15a-1", "15a-2"],
    "fig15b": ["15b-1", "15b-2"],
}


def test_the_measures_are_the_fixed_ones():
    fixed = ("final_accuracy", "final_loss", "minimum_loss", "final_above_minimum", "mean_log_loss")
    assert fixed == claims.MEASURES


@pytest.mark.parametrize("name", HELD)
def test_a_figure_holds_its_claims(name):
    assert list(FIGURES[name].claims)[: len(HELD[name])] == HELD[name]


@pytest.mark.parametrize(("name", "claim"), [(name, claim) for name, held in HELD.items() for claim in held])
def test_the_rules_are_those_fixed_before_any_run(name, claim):
    rules = FIGURES[name].claims[claim].rules
    assert [astuple(rule)[:3] + astuple(rule)[4:9] for rule in rules] == RULES[claim]
    assert {tuple(rule.lr) for rule in rules if rule.lr} <= {(0.5, 0.85)}


WORDS = pd.read_csv(Path(__file__).parent / "rules.csv")  # of the other figures, a row a rule


@pytest.mark.parametrize("name", sorted(set(FIGURES) - set(HELD)))
def test_the_rules_of_the_other_figures_are_those_fixed_before_any_run(name):
    rules = [
        (claim, finding.rule)
        for claim, what in FIGURES[name].claims.items()
        for finding in claims.judge(what, frame(), range(4))[1]
    ]
    assert rules == list(WORDS[WORDS["figure"] == name][["claim", "rule"]].itertuples(index=False, name=None))
    assert rules


def test_how_far_a_run_ends_above_its_minimum():
    made = frame("test_loss", rises=[[3.0, 2.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0]], falls=[[5.0, 4.0, 3.0, 2.0]])
    values = claims.measured(made, "final_above_minimum")
    assert (values["rises", 0], values["falls", 0]) == (3.0, 0.0)
