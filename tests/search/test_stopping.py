import pytest

from autotune.record import Role
from autotune.search.budget import Budget
from autotune.search.confirmation import NumberedTrial
from autotune.search.stopping import FEWEST_MEASURED, too_little
from tests.support.trials import failed, measured, numbered

ENOUGH = numbered(measured(1.0, role=Role.BASELINE), *[measured(2.0)] * (FEWEST_MEASURED - 1))
ONE_PERCENT = Budget(least_gain=0.01)


def test_a_launch_that_promises_less_than_was_asked_for_is_too_little() -> None:
    assert too_little(0.009, ONE_PERCENT, ENOUGH) == 0.009
    assert too_little(0.01, ONE_PERCENT, ENOUGH) is None


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
