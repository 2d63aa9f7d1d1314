from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from autotune.search.plan import Offer, Plan, Prices, plan
from autotune.space import Candidate
from tests.support.trials import failed, measured

_NUMBERS = count()
PROMISES = st.floats(1e-9, 1e3)
COSTS_S = st.floats(1.0, 1e4)


def offer(promise: float, cost_s: float) -> Offer:
    return Offer(Candidate.of({"max-running-requests": next(_NUMBERS)}), promise, cost_s)


OFFERS = st.builds(offer, PROMISES, COSTS_S)
LAUNCHES = st.lists(st.tuples(OFFERS, st.lists(OFFERS, max_size=4)), min_size=1, max_size=4)


@given(launches=LAUNCHES)
def test_a_plan_never_promises_less_for_its_time_than_any_launch_with_any_of_its_values(
    launches: list[tuple[Offer, list[Offer]]],
) -> None:
    best = plan(launches)

    assert any(launch is best.launch and set(best.live) <= set(live) for launch, live in launches)
    for launch, live in launches:
        subsets = [(), *((each,) for each in live), tuple(live)]
        assert all(best.rate >= Plan(launch, each).rate * (1 - 1e-9) for each in subsets)


@given(launch=OFFERS)
def test_a_launch_without_live_values_is_taken_as_it_is(launch: Offer) -> None:
    assert plan([(launch, ())]) == Plan(launch)


@given(promises=st.lists(st.integers(1, 1000), min_size=2, max_size=5, unique=True), cost_s=COSTS_S)
def test_where_a_live_value_costs_as_much_as_a_launch_the_best_is_launched_alone(
    promises: list[int], cost_s: float
) -> None:
    offers = [offer(each, cost_s) for each in promises]

    best = plan((each, [other for other in offers if other is not each]) for each in offers)

    assert best == Plan(max(offers, key=lambda each: each.promise))


def test_what_is_cheap_beside_a_launch_is_measured_on_the_engine_that_can_be_set_to_it() -> None:
    low, high, between = offer(1.0, 1000.0), offer(0.1, 1000.0), offer(0.8, 50.0)
    low_live = Offer(low.candidate, low.promise, 50.0)

    assert plan([(low, ()), (high, (between, low_live))]) == Plan(high, (low_live, between))


def test_prices_are_the_medians_of_what_was_measured() -> None:
    records = (
        measured(1.0, durations_s={"launch": 900.0, "load": 60.0, "teardown": 5.0, "live": 40.0}),
        measured(2.0, durations_s={"launch": 950.0, "load": 40.0, "teardown": 5.0}),
        measured(3.0, durations_s={"load": 20.0}, measured_live_on=1),
        measured(4.0, durations_s={"launch": 1.0}, same_as=1),
        failed(),
    )

    assert Prices.of(records) == Prices(launch_s=980.0, live_s=40.0)
    assert Prices.of(records[3:]) is None
