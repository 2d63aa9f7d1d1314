import asyncio

from autotune.request import Request
from autotune.simulator.pace import Ticket
from autotune.simulator.sequence import Sequence


def test_an_end_that_comes_while_a_change_is_taken_is_told_too() -> None:
    async def told() -> list[bool]:
        ticket = Ticket(Sequence(Request(0, 1, 9), 0.0), 0.0)
        ticket.advance(1)
        seen = []
        async for _ in ticket.changes():
            seen.append(ticket.ended_s is not None)
            if ticket.ended_s is None:
                ticket.end(1.0)
        return seen

    assert asyncio.run(told()) == [False, True]
