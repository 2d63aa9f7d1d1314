"""The scheduler in wall-clock time: sleeps through each turn, then hands its tokens to those who wait.

In: requests. Out: a `Ticket` per request, whose counts grow. Runs in one asyncio task; between turns the
scheduler's state is consistent, so requests may come and go at any await.
`time_scale` above 1 makes the model's seconds shorter; a late event loop catches up without sleeping.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from autotune.request import Request
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.sequence import Sequence
from autotune.simulator.turn import Refusal, Turn, TurnKind


class RefusedError(Exception):
    """The scheduler does not take a request."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in flight: how many output tokens have come, and whether that was all."""

    sequence: Sequence
    sent_s: float
    tokens: int = 0
    ended_s: float | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def advance(self, tokens: int) -> None:
        """Note the tokens there are."""
        if tokens > self.tokens:
            self.tokens = tokens
            self._changed.set()

    def end(self, now_s: float) -> None:
        """Note that nothing more comes."""
        self.ended_s = now_s
        self._changed.set()

    async def changes(self) -> AsyncIterator[None]:
        """Yield after each change, the end last; changes that come faster than they are taken are one."""
        is_over = False
        while not is_over:
            await self._changed.wait()
            self._changed.clear()
            is_over = self.ended_s is not None
            yield

    async def wait(self) -> None:
        """Return when it has ended."""
        async for _ in self.changes():
            pass


class Pacemaker:
    """Drives one scheduler. `on_turn` sees every turn when it is over."""

    def __init__(
        self, scheduler: Scheduler, *, request_s: float, time_scale: float, on_turn: Callable[[Turn], None]
    ) -> None:
        self.scheduler = scheduler
        self._request_s = request_s
        self._time_scale = time_scale
        self._on_turn = on_turn
        self._began_s = time.monotonic()
        self._wake = asyncio.Event()
        self._tickets: dict[Sequence, Ticket] = {}

    @property
    def now_s(self) -> float:
        """The model's time."""
        return (time.monotonic() - self._began_s) * self._time_scale

    @property
    def is_busy(self) -> bool:
        """Whether any request has not ended."""
        return bool(self._tickets)

    async def submit(self, request: Request, *, ignores_eos: bool) -> Ticket:
        """Bring a request to the scheduler, which takes a moment.

        Raises:
            RefusedError: the scheduler does not take it.
        """
        sent_s = self.now_s
        await asyncio.sleep(self._request_s / self._time_scale)
        refusal = self.scheduler.refusal(request)
        if refusal is not None:
            raise RefusedError(refusal)
        sequence = Sequence(request, self.now_s, ignores_eos=ignores_eos)
        ticket = self._tickets[sequence] = Ticket(sequence, sent_s)
        self.scheduler.submit(sequence)
        self._wake.set()
        return ticket

    def abort(self, ticket: Ticket, reason: str) -> None:
        """Drop a request; one that has ended stays as it is."""
        if self._tickets.pop(ticket.sequence, None) is not None:
            ticket.sequence.failure = reason
            self.scheduler.abort(ticket.sequence)
            ticket.end(self.now_s)

    async def run(self) -> Turn:
        """Work until the engine dies, and return the turn in which it did."""
        while True:
            if self.scheduler.is_idle:
                self._wake.clear()
                await self._wake.wait()
                self.scheduler.idle_until(self.now_s)
                continue
            turn = self.scheduler.turn(most_steps=1)
            await asyncio.sleep(max(0.0, (turn.ended_s - self.now_s) / self._time_scale))
            self._on_turn(turn)
            if turn.kind is TurnKind.DIED:
                return turn
            self._deliver(turn)

    def _deliver(self, turn: Turn) -> None:
        running = self.scheduler.running
        for sequence in running:
            if sequence in self._tickets:
                self._tickets[sequence].advance(running.generated(sequence))
        for sequence in (*turn.finished, *turn.aborted):
            ticket = self._tickets.pop(sequence, None)
            if ticket is not None:
                ticket.advance(sequence.generated)
                ticket.end(turn.ended_s)
