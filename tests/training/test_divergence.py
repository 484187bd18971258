"""When a run is over before its end: ``Config.divergence``."""

import math
from types import SimpleNamespace

import pytest
from torch import nn

from repro.training.state import State


@pytest.mark.parametrize(
    ("losses", "divergence", "ends"),
    [
        ([2.0, 0.5, 2.1, 2.2, 0.4], 4.0, 4),  # two in a row
        ([2.0, 0.5, 2.1, 0.5, 2.1, 0.5], 4.0, None),  # one bad test is none
        ([2.0, 0.5, 2.1, 2.2], None, None),
        ([2.0, 1e-5, 1e-4, 1e-3, 1e-2], 4.0, None),  # far below the first test: noise
        ([2.0, 1.0, math.nan], 4.0, 3),  # the training loss is not finite
    ],
)
def test_a_run_diverges_by_two_tests_in_a_row(losses, divergence, ends):
    state = SimpleNamespace(first_loss=None, lowest_loss=math.inf, high_tests=0, diverged=False)
    ended = None
    for number, loss in enumerate(losses, start=1):
        State.judge(state, loss, 9.0 if math.isnan(loss) else loss, divergence)
        ended = ended or (number if state.diverged else None)
    assert ended == ends


def test_what_divergence_is_judged_by_is_part_of_a_checkpoint(resolved):
    """Killed between the two high tests, a run ends where it would have ended."""
    run = resolved("experiment=fig5a/clr_3.0", "scale=smoke")
    before, after = (State(run, nn.Linear(2, 2), "cpu") for _ in range(2))
    for loss in (2.0, 0.5, 2.1):
        before.judge(loss, loss, 4.0)
    after.load_state_dict(before.state_dict())
    assert (after.first_loss, after.lowest_loss, after.high_tests) == (2.0, 0.5, 1)
    after.judge(2.2, 2.2, 4.0)
    assert after.diverged
