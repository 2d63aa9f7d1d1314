import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from autotune.load import backlog as backlog_module
from autotune.load.backlog import Backlog


def job(name: str, slices: int, done: list[str]) -> Iterator[None]:
    for number in range(slices):
        done.append(f"{name}{number}")
        yield


def test_a_turn_of_the_loop_does_no_more_than_its_time_allows_and_jobs_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog_module, "_TURN_NS", 0)
    done: list[str] = []

    async def main() -> None:
        backlog = Backlog()
        working = asyncio.create_task(backlog.work())
        await asyncio.sleep(0)
        backlog.add(job("a", 2, done))
        backlog.add(job("b", 1, done))
        seen = []
        for _ in range(8):
            await asyncio.sleep(0)
            seen.append(len(done))
        assert max(later - earlier for earlier, later in pairwise(seen)) == 1
        working.cancel()

    asyncio.run(main())
    assert done == ["a0", "a1", "b0"]


def test_work_that_comes_later_is_done_too() -> None:
    async def main() -> list[str]:
        done: list[str] = []
        backlog = Backlog()
        working = asyncio.create_task(backlog.work())
        for name in "abc":
            backlog.add(job(name, 1, done))
            while len(done) < 1 + "abc".index(name):  # noqa: ASYNC110 - what is waited for is a plain list
                await asyncio.sleep(0.001)
        working.cancel()
        return done

    assert asyncio.run(main()) == ["a0", "b0", "c0"]


def test_work_that_has_piled_up_is_done_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "_TURN_NS", 0)

    async def turns_for(jobs: int) -> int:
        done: list[str] = []
        backlog = Backlog()
        for number in range(jobs):
            backlog.add(job(str(number), 1, done))
        working = asyncio.create_task(backlog.work())
        turns = 0
        while len(done) < jobs:
            await asyncio.sleep(0)
            turns += 1
        working.cancel()
        return turns

    assert asyncio.run(turns_for(320)) < 320 * 2 / 4


def test_what_is_left_can_be_done_at_once() -> None:
    done: list[str] = []
    backlog = Backlog()
    backlog.add(job("a", 2, done))
    backlog.add(job("b", 2, done))
    backlog.finish()
    assert done == ["a0", "a1", "b0", "b1"]


def test_work_that_has_piled_up_is_done_no_faster_while_something_urgent_is_under_way() -> None:
    async def most_per_turn(*, is_urgent: bool) -> int:
        done: list[str] = []
        backlog = Backlog(lambda: is_urgent)
        for number in range(64):
            backlog.add(job(str(number), 1, done))
        working = asyncio.create_task(backlog.work())
        counts = [0]
        while len(done) < 64:
            await asyncio.sleep(0)
            counts.append(len(done))
        working.cancel()
        return max(later - earlier for earlier, later in pairwise(counts))

    assert asyncio.run(most_per_turn(is_urgent=True)) == 1
    assert asyncio.run(most_per_turn(is_urgent=False)) > 1
