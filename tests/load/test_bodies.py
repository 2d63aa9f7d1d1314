import json
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load import bodies
from autotune.load.bodies import FEWEST_READY, Bodies
from autotune.load.workload import Workload
from autotune.request import OfferedLoad, Request

WORKLOAD = Workload(input_tokens=2, output_tokens=3)


class Counted:
    """Gives prompts, and knows which it gave."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, request: Request) -> Request:
        self.given.append(request.index)
        return replace(request, token_ids=(request.index, 7))


def bodies_of(count: int, prompts: Counted, jobs: deque[Iterator[None]], slots: int | None = None) -> Bodies:
    offered = OfferedLoad(tuple(Request(index, 2, 3) for index in range(count)), slots)
    return Bodies(offered, WORKLOAD, "m", prompts, jobs.append)


def ids_in(body: bytes) -> list[int]:
    ids: list[int] = json.loads(body)["input_ids"]
    return ids


def step(jobs: deque[Iterator[None]]) -> None:
    """Do one slice of the oldest job."""
    if jobs and not any(True for _ in islice(jobs[0], 1)):
        jobs.popleft()


@given(
    order=st.integers(0, 300).flatmap(lambda count: st.permutations(range(count))),
    slots=st.none() | st.integers(1, 200),
    steps=st.lists(st.integers(0, 30), min_size=1),
)
def test_every_request_gets_its_body_once_in_whatever_order_they_are_taken(
    order: list[int], slots: int | None, steps: list[int]
) -> None:
    prompts, jobs = Counted(), deque[Iterator[None]]()
    ready = bodies_of(len(order), prompts, jobs, slots)
    for turn, index in enumerate(order):
        assert ids_in(ready.take(Request(index, 2, 3))) == [index, 7]
        for _ in range(steps[turn % len(steps)]):
            step(jobs)
    assert sorted(prompts.given) == sorted(order)


def test_the_first_are_there_before_the_start_and_the_next_are_made_when_there_is_time() -> None:
    prompts, jobs = Counted(), deque[Iterator[None]]()
    ready = bodies_of(1000, prompts, jobs, slots=100)
    assert prompts.given == list(range(100))
    for index in range(50):
        ready.take(Request(index, 2, 3))
    assert len(prompts.given) == 100
    assert len(jobs) == 1
    while jobs:
        list(jobs.popleft())
    assert prompts.given == list(range(100 + 50 - 50 % 16))


def test_long_prompts_wait_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, jobs = Counted(), deque[Iterator[None]]()
    monkeypatch.setattr(bodies, "MOST_READY_BYTES", 200)
    bodies_of(1000, prompts, jobs)
    assert 0 < len(prompts.given) < 10 < FEWEST_READY
