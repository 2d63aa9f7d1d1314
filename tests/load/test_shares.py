import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load.arrivals import LoadPoint
from autotune.load.shares import joined, processes_for, share_of
from autotune.load.workload import Workload, offer
from autotune.request import ClientHealth, LoadResult, OfferedLoad, Request, RequestRecord


def load(count: int, concurrency: int | None) -> OfferedLoad:
    return OfferedLoad(
        tuple(Request(number, 1, 100, due_s=number / 10) for number in range(count)), concurrency
    )


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 4), st.booleans())
def test_the_shares_are_the_load_each_request_once_and_every_slot_once(
    count: int, concurrency: int, processes: int, is_closed: bool
) -> None:
    offered = load(count, concurrency if is_closed else None)
    processes = min(processes, concurrency)
    shares = [share_of(offered, position, processes) for position in range(processes)]
    dealt = [request for share in shares for request in share.requests]
    assert sorted(dealt, key=lambda request: request.index) == list(offered.requests)
    for share in shares:
        indexes = [request.index for request in share.requests]
        assert indexes == sorted(indexes)
        assert list(share.requests[1:3]) == list(share.requests)[1:3]
    if is_closed:
        assert sum(share.concurrency or 0 for share in shares) == concurrency
        for share in shares:
            assert abs(len(share.requests) - count * (share.concurrency or 0) / concurrency) < concurrency


def test_a_lazy_load_stays_lazy_in_its_shares_and_can_be_sent() -> None:
    workload = Workload(input_tokens=8, output_tokens=8)
    offered = offer(workload, LoadPoint(concurrency=1000, duration_s=3600), salt=3)
    share = pickle.loads(pickle.dumps(share_of(offered, 1, 4)))  # noqa: S301 - what was just dumped
    assert (share.concurrency, len(share.requests)) == (250, len(offered.requests) // 4)
    assert share.requests[251] == offered.requests[1005]
    assert share.requests[-1] == offered.requests[-3]


@pytest.mark.parametrize(
    ("offered", "cpus", "processes"),
    [
        (load(1000, 512), 8, 1),
        (load(1000, 513), 8, 2),
        (load(1000, 513), 2, 1),
        (load(10, 5000), 8, 1),
        (load(9000, 9000), 64, 4),
        (load(1000, None), 8, 1),
        (replace(load(1, None), requests=()), 8, 1),
        (OfferedLoad([Request(number, 1, 900, due_s=number / 50) for number in range(500)], None), 8, 3),
    ],
)
def test_processes_follow_the_load_and_leave_half_the_cpus(
    offered: OfferedLoad, cpus: int, processes: int
) -> None:
    assert processes_for(offered, cpus) == processes


def test_joined_results_are_in_order_and_the_worst_of_their_healths() -> None:
    def result(indexes: list[int], health: ClientHealth) -> LoadResult:
        nothing = np.array([])
        records = [RequestRecord(index, 0, 0, 1, 1, 0, 0, nothing, nothing) for index in indexes]
        return LoadResult(tuple(records), health, began_ns=7)

    one = ClientHealth(0.1, 0.5, 3, tokens_per_read=1.0, clock_drift_s=0.2)
    two = ClientHealth(0.2, 0.7, 2, tokens_per_read=1.5, has_kernel_stamps=False)
    whole = joined([result([0, 2], one), result([1], two)])
    assert [record.index for record in whole.records] == [0, 1, 2]
    assert whole.began_ns == 7
    assert whole.client == ClientHealth(
        0.2, 1.2, 5, tokens_per_read=1.5, clock_drift_s=0.2, has_kernel_stamps=False, processes=2
    )
