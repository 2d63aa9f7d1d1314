import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load.dispatch import PAUSE_AFTER_FAILURE_S, dispatch
from autotune.request import OfferedLoad, Request
from tests.support.virtual_loop import run_virtually


@dataclass
class Service:
    """Serves every request in a time of its own and writes down what happened."""

    durations_s: Callable[[int], float]
    goes_well: Callable[[int], bool] = lambda _: True
    in_flight: int = 0
    peak: int = 0
    began: dict[int, tuple[float, float]] = field(default_factory=dict)

    async def serve(self, request: Request, scheduled_s: float) -> bool:
        self.began[request.index] = (scheduled_s, asyncio.get_running_loop().time())
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        await asyncio.sleep(self.durations_s(request.index))
        self.in_flight -= 1
        return self.goes_well(request.index)

    def run(self, offered: OfferedLoad) -> None:
        async def main() -> None:
            await dispatch(offered, self.serve, asyncio.get_running_loop().time)

        run_virtually(main())


def requests(count: int, *due_s: float) -> tuple[Request, ...]:
    return tuple(Request(number, 1, 1, due_s=due_s[number] if due_s else None) for number in range(count))


durations = st.lists(st.floats(0.001, 2), min_size=20, max_size=20)


@given(durations, st.integers(1, 6), st.integers(0, 20))
def test_a_closed_loop_serves_everything_in_order_and_keeps_its_concurrency(
    durations_s: list[float], concurrency: int, count: int
) -> None:
    service = Service(durations_s.__getitem__)
    service.run(OfferedLoad(requests(count), concurrency))
    assert list(service.began) == list(range(count))
    assert service.peak == min(concurrency, count)
    assert service.in_flight == 0


@given(durations, st.lists(st.floats(0, 0.5), min_size=20, max_size=20))
def test_an_open_loop_keeps_its_schedule_whatever_the_answers_take(
    durations_s: list[float], gaps_s: list[float]
) -> None:
    due_s = [sum(gaps_s[: number + 1]) for number in range(20)]
    service = Service(durations_s.__getitem__)
    service.run(OfferedLoad(requests(20, *due_s), None))
    assert [scheduled for scheduled, _ in service.began.values()] == due_s
    for due, (_, began) in zip(due_s, service.began.values(), strict=True):
        assert -1e-6 < began - due < 0.001 + 1e-6  # a timer counts milliseconds
    assert service.in_flight == 0


def test_a_closed_loop_stops_handing_out_when_the_time_is_over_and_waits_for_the_rest() -> None:
    service = Service(lambda _: 1.0)
    service.run(OfferedLoad(requests(100), 2, stop_after_s=2.5))
    assert sorted(service.began) == list(range(6))
    assert service.in_flight == 0


def test_an_open_loop_stops_at_its_end() -> None:
    service = Service(lambda _: 5.0)
    service.run(OfferedLoad(requests(4, 0.0, 1.0, 2.0, 3.0), None, stop_after_s=2.0))
    assert sorted(service.began) == [0, 1]


def test_a_slot_rests_after_a_failure() -> None:
    service = Service(lambda _: 1.0, goes_well=lambda index: index != 0)
    service.run(OfferedLoad(requests(3), 1))
    scheduled = [scheduled for scheduled, _ in service.began.values()]
    assert scheduled == pytest.approx([0.0, 1.0 + PAUSE_AFTER_FAILURE_S, 2.0 + PAUSE_AFTER_FAILURE_S])


def test_an_open_loop_request_without_a_due_time_is_refused() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="no due time")):
        Service(lambda _: 1.0).run(OfferedLoad(requests(1), None))


def turns(*lengths: int, pause_s: float = 0.0) -> tuple[Request, ...]:
    """Conversations of so many turns each, one after another."""
    made: list[Request] = []
    for length in lengths:
        for turn in range(length):
            index = len(made)
            after, pause = (index - 1, pause_s) if turn else (None, 0.0)
            made.append(Request(index, 1, 1, due_s=float(index), after=after, pause_s=pause))
    return tuple(made)


@given(durations, st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 4), st.floats(0, 1))
def test_a_turn_is_sent_after_the_one_before_has_ended_and_a_pause(
    durations_s: list[float], lengths: list[int], concurrency: int, pause_s: float
) -> None:
    said = turns(*lengths, pause_s=pause_s)
    for slots in (concurrency, None):
        service = Service(durations_s.__getitem__)
        service.run(OfferedLoad(said, slots))
        assert len(service.began) == len(said)
        for request in said:
            if request.after is not None:
                ended_s = service.began[request.after][1] + durations_s[request.after]
                assert service.began[request.index][0] == pytest.approx(ended_s + pause_s, abs=1e-6)


def test_turns_stop_when_the_time_is_over() -> None:
    for slots in (1, None):
        service = Service(lambda _: 1.0)
        service.run(OfferedLoad(turns(5, pause_s=0.1), slots, stop_after_s=2.0))
        assert sorted(service.began) == [0, 1]


def test_a_ramp_spreads_the_first_requests_over_its_time() -> None:
    service = Service(lambda _: 10.0)
    service.run(OfferedLoad(requests(8), 4, ramp_s=2.0))
    began = [began for _, began in service.began.values()]
    assert began == pytest.approx([0, 0.5, 1.0, 1.5, 10, 10.5, 11.0, 11.5])
