"""What may end a load while it runs sees the same, and ends it alike, in virtual time and over HTTP."""

import time
from collections.abc import Sequence

import pytest

from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.workload import Workload, offer
from autotune.request import (
    Endpoint,
    LoadResult,
    OfferedLoad,
    RequestFailureKind,
    RequestRecord,
    due_order,
)
from autotune.simulator.virtual import VirtualEndpoint
from tests.support.simulated import endpoint_of, equal_requests, profile_without_noise, scheduler_of
from tests.support.sse_server import Script, SseServer, serving

WORKLOAD = Workload.model_validate({"input_tokens": {"uniform": [5, 30]}, "output_tokens": 4})
CLOSED = LoadPoint(concurrency=4, requests=60)
OPEN = LoadPoint(rate=200, arrivals="constant", requests=60)


class Impatient:
    """Looks with `counts` requests, one after the other, and has seen enough at the last."""

    def __init__(self, *counts: int) -> None:
        self._counts = list(counts)
        self.looks: list[Sequence[RequestRecord]] = []

    @property
    def next_look(self) -> int | None:
        return self._counts[0] if self._counts else None

    def is_decided(self, records: Sequence[RequestRecord]) -> bool:
        assert len(records) == self._counts.pop(0)
        self.looks.append(records)
        return not self._counts


class Undecided(Impatient):
    def is_decided(self, records: Sequence[RequestRecord]) -> bool:
        super().is_decided(records)
        return False


def http(server: SseServer, processes: int) -> HttpEndpoint:
    return HttpEndpoint(server.url, WORKLOAD, model="m", vocabulary_size=99, processes=processes)


def virtual() -> VirtualEndpoint:
    profile = profile_without_noise()
    return endpoint_of(scheduler_of(profile, {"max-running-requests": 3}), profile)


def check(endpoint: Endpoint, point: LoadPoint) -> LoadResult:
    """Stop a load by its onlooker and check what both saw."""
    onlooker = Impatient(9, 20)
    result = endpoint.run(offer(WORKLOAD, point, salt=1), onlooker)

    first = sorted(result.records, key=due_order)[:20]
    assert [[each.index for each in look] for look in onlooker.looks] == [
        [each.index for each in first[:9]],
        [each.index for each in first],
    ]
    assert all(each.failure is None for look in onlooker.looks for each in look)
    assert [each.ended_s for each in onlooker.looks[-1]] == [each.ended_s for each in first]
    assert 20 <= len(result.records) < 60
    failures = [each.failure.kind for each in result.records if each.failure is not None]
    assert set(failures) <= {RequestFailureKind.STOPPED}
    return result


@pytest.mark.parametrize("point", [CLOSED, OPEN], ids=["closed", "open"])
def test_an_onlooker_ends_a_load_in_virtual_time_and_the_next_finds_the_engine_empty(
    point: LoadPoint,
) -> None:
    profile = profile_without_noise()
    scheduler = scheduler_of(profile, {"max-running-requests": 3})
    endpoint = endpoint_of(scheduler, profile)
    alone = endpoint.run(offer(WORKLOAD, point, salt=2))
    assert scheduler.flush_cache()

    stopped = check(endpoint, point)

    assert any(each.failure is not None for each in stopped.records)
    assert scheduler.flush_cache()
    again = endpoint.run(offer(WORKLOAD, point, salt=2))
    expected = [each.ended_s for each in alone.records]
    assert [each.ended_s for each in again.records] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("point", [CLOSED, OPEN], ids=["closed", "open"])
def test_an_onlooker_ends_a_load_over_http_and_its_requests_are_given_up(
    point: LoadPoint, processes: int
) -> None:
    with serving(Script(ttft_s=0.05, itl_s=0.02)) as server:
        slow = point if point.rate is None else OPEN.model_copy(update={"rate": 40.0})
        check(http(server, processes), slow)

        give_up_s = time.monotonic() + 20
        while server.in_flight and time.monotonic() < give_up_s:
            time.sleep(0.01)
        assert server.in_flight == 0
        assert len(server.seen) < 60


@pytest.mark.parametrize("processes", [1, 2])
def test_an_onlooker_that_is_never_sure_changes_nothing(processes: int) -> None:
    onlooker = Undecided(10, 30)
    with serving(Script(ttft_s=0.02)) as server:
        result = http(server, processes).run(offer(WORKLOAD, CLOSED, salt=1), onlooker)

    assert len(result.records) == len(server.seen) == 60
    assert all(each.failure is None for each in result.records)


def test_what_a_look_sees_in_virtual_time_is_what_the_whole_load_would_have_held() -> None:
    whole = virtual().run(offer(WORKLOAD, CLOSED, salt=1))
    onlooker = Impatient(25)
    virtual().run(offer(WORKLOAD, CLOSED, salt=1), onlooker)

    (look,) = onlooker.looks
    expected = sorted(whole.records, key=due_order)[:25]
    assert [each.index for each in look] == [each.index for each in expected]
    assert [each.ended_s for each in look] == [each.ended_s for each in expected]


def test_what_a_stop_finds_in_a_prefill_in_a_queue_and_on_its_way_is_given_up() -> None:
    profile = profile_without_noise()
    scheduler = scheduler_of(profile, {"chunked-prefill-size": 512, "max-running-requests": 2})
    endpoint = endpoint_of(scheduler, profile)
    sizes = [equal_requests(1, 100, 2)[0], *equal_requests(12, 8000, 50)[1:]]
    load = OfferedLoad(tuple(sizes), concurrency=6)
    result = endpoint.run(load, Impatient(1))

    assert result.records[0].failure is None
    assert {each.failure.kind for each in result.records[1:] if each.failure} == {RequestFailureKind.STOPPED}
    assert scheduler.is_idle
    assert scheduler.pool.available == scheduler.pool.capacity
    assert all(each.failure is None for each in endpoint.run(load).records)
