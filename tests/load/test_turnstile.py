import asyncio
from itertools import pairwise

from autotune.load.turnstile import PER_TURN, Turnstile


def test_a_burst_goes_through_in_order_a_few_per_turn() -> None:
    through: list[int] = []

    async def one(turnstile: Turnstile, number: int) -> None:
        await turnstile.enter()
        through.append(number)

    async def main() -> list[int]:
        turnstile = Turnstile()
        tasks = [asyncio.create_task(one(turnstile, number)) for number in range(100)]
        counts = [0]
        while len(through) < 100:
            await asyncio.sleep(0)
            counts.append(len(through))
        await asyncio.gather(*tasks)
        return counts

    counts = asyncio.run(main())
    assert through == list(range(100))
    assert max(later - earlier for earlier, later in pairwise(counts)) <= PER_TURN


def test_one_alone_does_not_wait() -> None:
    async def main() -> None:
        turnstile = Turnstile()
        for _ in range(3):
            entering = turnstile.enter()
            try:
                entering.send(None)
            except StopIteration:
                pass
            else:
                raise AssertionError("it waited")
            for _ in range(3):
                await asyncio.sleep(0)

    asyncio.run(main())


def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    async def main() -> int:
        turnstile = Turnstile()
        tasks = [asyncio.create_task(turnstile.enter()) for _ in range(3 * PER_TURN)]
        await asyncio.sleep(0)
        for task in tasks[PER_TURN : 2 * PER_TURN]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(each is None for each in done)

    assert asyncio.run(main()) == 2 * PER_TURN
