from dataclasses import replace

import pytest

from autotune.record import Role
from autotune.search.budget import Budget
from autotune.search.confirmation import NumberedTrial
from autotune.search.stopping import FEWEST_MEASURED, PATIENCE, too_little
from tests.support.trials import failed, measured, numbered


def _promising(*trials: NumberedTrial, gain: float | None) -> tuple[NumberedTrial, ...]:
    """These trials, each of which promised the gain when it was asked for."""
    return tuple(replace(trial, promised=gain) for trial in trials)


FEW = numbered(measured(1.0, role=Role.BASELINE), *[measured(2.0)] * (FEWEST_MEASURED - 1))
ENOUGH = _promising(*FEW, gain=0.002)
ONE_PERCENT = Budget(least_gain=0.01)


def test_a_launch_that_promises_less_than_was_asked_for_as_those_before_it_did_is_too_little() -> None:
    assert too_little(0.009, ONE_PERCENT, ENOUGH) == 0.009
    assert too_little(0.01, ONE_PERCENT, ENOUGH) is None


@pytest.mark.parametrize("gain", [0.01, None])
def test_one_launch_of_the_last_that_promised_more_lets_the_search_go_on(gain: float | None) -> None:
    *earlier, last = ENOUGH
    older = (*_promising(*earlier, gain=gain), *_promising(*[last] * (PATIENCE - 1), gain=0.002))
    newer = (*earlier, *_promising(last, gain=gain))
    confirmed = replace(last, record=last.record.model_copy(update={"role": Role.CONFIRMATION}))

    assert too_little(0.001, ONE_PERCENT, older) == 0.001
    assert too_little(0.001, ONE_PERCENT, newer) is None
    assert too_little(0.001, ONE_PERCENT, (*older, *_promising(confirmed, gain=None))) == 0.001


@pytest.mark.parametrize(
    ("gain", "budget", "launches"),
    [
        (None, ONE_PERCENT, ENOUGH),
        (0.0, Budget(), ENOUGH),
        (0.0, ONE_PERCENT, ENOUGH[1:]),
        (0.0, ONE_PERCENT, (*ENOUGH[1:], *numbered(*[failed()] * 5))),
        (0.0, ONE_PERCENT, (*ENOUGH[1:], *numbered(*[measured(2.0, measured_live_on=0)] * 5))),
    ],
    ids=["nothing known to gain on", "switched off", "too few", "but for crashes", "but for live ones"],
)
def test_a_search_goes_on(gain: float | None, budget: Budget, launches: tuple[NumberedTrial, ...]) -> None:
    assert too_little(gain, budget, launches) is None
