"""The scheduler in virtual time: an `Endpoint` that serves a load as fast as the CPU can think.

In: an `OfferedLoad`. Out: one RequestRecord per dispatched request, with the time of every token. Jumps
from event to event; decode passes in between are run at once. Invariant: the result is the same whatever
the length of those runs (`most_steps`), and the same for the same seed.
A request is sent at its time, reaches the scheduler `request_s` later, and its tokens are seen at once.
"""

import heapq
from collections.abc import Callable, Iterator
from math import inf
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from autotune.request import (
    LoadResult,
    OfferedLoad,
    Onlooker,
    Request,
    RequestFailure,
    RequestFailureKind,
    RequestPhase,
    RequestRecord,
    conversations,
    first_ended,
)
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.sequence import Sequence, Stay
from autotune.simulator.turn import Turn

_NO_TIMES = np.empty(0)
_ONES = np.ones(4096, dtype=np.int64)
_ONES.flags.writeable = False
_GONE = RequestFailure(RequestFailureKind.CONNECTION, RequestPhase.CONNECT, "the engine is gone")
_UNASKED = RequestFailure(RequestFailureKind.STOPPED, RequestPhase.HEADERS, "the load was stopped")


class _Sent:
    """A request on its way, and when it was due and sent; `later` turns wait for it to end."""

    def __init__(self, request: Request, sent_s: float, later: tuple[Request, ...]) -> None:
        self.request = request
        self.sent_s = sent_s
        self.later = later


class _Ended:
    """A request that has left the engine, well or (its sequence has a failure) not."""

    def __init__(
        self, sent: _Sent, sequence: Sequence, ended_s: float, failure_kind: RequestFailureKind
    ) -> None:
        self.sent = sent
        self.sequence = sequence
        self.ended_s = ended_s
        self.failure_kind = failure_kind


class VirtualEndpoint:
    """Serves loads one after another on one scheduler, whose clock goes on between them.

    `on_turn` sees every turn, for logs and clocks. `most_steps` limits how many decode passes are run at
    once; it exists for tests. `joins_chunks`: passes that only go on with a long prompt are one turn.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        request_s: float,
        on_turn: Callable[[Turn], None] | None = None,
        most_steps: int | None = None,
        joins_chunks: bool = False,
    ) -> None:
        self._scheduler = scheduler
        self._request_s = request_s
        self._on_turn = on_turn
        self._most_steps = most_steps
        self._joins_chunks = joins_chunks

    def run(self, offered: OfferedLoad, onlooker: Onlooker | None = None) -> LoadResult:
        """Serve the load to its end. Requests that are left when the engine dies have a failure."""
        load = _Load(self._scheduler, offered, self._request_s)
        scheduler = self._scheduler
        while load.is_open:
            if onlooker is not None and load.is_decided(onlooker):
                load.stop()
                break
            next_arrival_s = load.deliver_arrivals()
            if scheduler.is_idle:
                scheduler.idle_until(next_arrival_s)
                continue
            turn = scheduler.turn(
                until_s=next_arrival_s, most_steps=self._most_steps, joins_chunks=self._joins_chunks
            )
            if self._on_turn is not None:
                self._on_turn(turn)
            load.account(turn)
        return LoadResult(records=load.records(), client=None)


class _Load:
    """One load in flight: what has been sent, what is on its way, what has ended."""

    def __init__(self, scheduler: Scheduler, offered: OfferedLoad, request_s: float) -> None:
        self._scheduler = scheduler
        self._request_s = request_s
        self._begin_s = scheduler.now_s
        self._first_step = scheduler.running.step
        self._stop_s = inf if offered.stop_after_s is None else offered.stop_after_s
        self._to_send = conversations(offered.requests)
        self._on_the_way: list[tuple[float, int, _Sent]] = []
        self._in_flight: dict[Sequence, _Sent] = {}
        self._token_times_s: list[float] = []
        self._ended: list[_Ended] = []
        self._records: list[RequestRecord] = []
        if offered.concurrency is None:
            for turns in self._to_send:
                self._send(turns, turns[0].due_s or 0.0)
        slots = min(offered.concurrency or 0, len(offered.requests))
        for position in range(slots):
            self._send_next(position * offered.ramp_s / slots)

    @property
    def is_open(self) -> bool:
        """Whether anything is still on its way or in flight."""
        return bool(self._on_the_way or self._in_flight)

    def is_decided(self, onlooker: Onlooker) -> bool:
        """Let somebody look at the first requests, if as many as wanted have ended."""
        count = onlooker.next_look
        if count is None or len(self._ended) + len(self._records) < count:
            return False
        open_since_s = min((sent.sent_s for sent in self._under_way), default=inf)
        if sum(each.sent.sent_s < open_since_s for each in self._ended) + len(self._records) < count:
            return False
        first = first_ended(self.records(), open_since_s, count)
        return first is not None and onlooker.is_decided(first)

    def stop(self) -> None:
        """Give up what is in flight, as a client does that hangs up, and send nothing more."""
        now_s = self._scheduler.now_s
        self._to_send = iter(())
        sent = [sent for _, _, sent in self._on_the_way if self._begin_s + sent.sent_s <= now_s]
        self._records += [_record(each, now_s - self._begin_s, failure=_UNASKED) for each in sent]
        self._on_the_way.clear()
        for sequence in self._in_flight:
            self._scheduler.abort(sequence)
        self._give_up("the load was stopped before the answer was whole", RequestFailureKind.STOPPED)

    def deliver_arrivals(self) -> float:
        """Hand over every request that has arrived by now, and return when the next one will (or never)."""
        on_the_way, now_s = self._on_the_way, self._scheduler.now_s
        while on_the_way and on_the_way[0][0] <= now_s:
            arrived_s, _, sent = heapq.heappop(on_the_way)
            self._deliver(sent, arrived_s)
        return on_the_way[0][0] if on_the_way else inf

    def account(self, turn: Turn) -> None:
        """Keep the turn's token times, and send a next request for each that ended."""
        self._token_times_s += turn.token_times_s
        if self._scheduler.is_dead:
            self._bury(turn.ended_s)
        for sequence in turn.finished + turn.aborted:
            sent = self._in_flight.pop(sequence, None)
            if sent is not None:
                self._ended.append(_Ended(sent, sequence, turn.ended_s, RequestFailureKind.ABORTED))
                self._send_next(turn.ended_s - self._begin_s, sent.later)

    def records(self) -> tuple[RequestRecord, ...]:
        """Return the records of everything that was sent, in index order."""
        times = np.array(self._token_times_s) - self._begin_s
        served = [self._served(ended, times) for ended in self._ended]
        return tuple(sorted((*self._records, *served), key=attrgetter("index")))

    def _served(self, ended: _Ended, times: NDArray[np.float64]) -> RequestRecord:
        sequence = ended.sequence
        token_times = self._token_times_of(sequence, times)
        failure = None
        if sequence.failure is not None:
            phase = RequestPhase.STREAM if len(token_times) else RequestPhase.FIRST_TOKEN
            failure = RequestFailure(ended.failure_kind, phase, sequence.failure)
        return _record(ended.sent, ended.ended_s - self._begin_s, sequence, token_times, failure)

    def _token_times_of(self, sequence: Sequence, times: NDArray[np.float64]) -> NDArray[np.float64]:
        stays = sequence.stays
        if len(stays) == 1:
            return self._times_of(stays[0], times)
        return np.concatenate((_NO_TIMES, *(self._times_of(stay, times) for stay in stays)))

    def _times_of(self, stay: Stay, times: NDArray[np.float64]) -> NDArray[np.float64]:
        end_step = self._scheduler.running.step if stay.end_step is None else stay.end_step
        all_s = np.empty(end_step - stay.first_step + 1)
        all_s[0] = stay.first_token_s - self._begin_s
        all_s[1:] = times[stay.first_step - self._first_step : end_step - self._first_step]
        return all_s

    def _bury(self, now_s: float) -> None:
        """Fail everything that was sent; nothing more is sent to a dead engine."""
        self._to_send = iter(())
        self._records += [
            _record(sent, now_s - self._begin_s, failure=_GONE) for _, _, sent in self._on_the_way
        ]
        self._on_the_way.clear()
        self._give_up("the engine died while it answered", RequestFailureKind.CUT_STREAM)

    @property
    def _under_way(self) -> Iterator[_Sent]:
        """What has not ended; of what is on its way the first is enough, since it comes in order."""
        yield from self._in_flight.values()
        yield from (sent for _, _, sent in self._on_the_way[:1])

    def _give_up(self, failure: str, kind: RequestFailureKind) -> None:
        for sequence, sent in self._in_flight.items():
            sequence.failure = failure
            self._ended.append(_Ended(sent, sequence, self._scheduler.now_s, kind))
        self._in_flight.clear()

    def _send_next(self, now_s: float, later: tuple[Request, ...] = ()) -> None:
        """Send the next turn of a conversation or, in a closed loop, begin the next one."""
        turns = later or next(self._to_send, ())
        if turns:
            self._send(turns, now_s + turns[0].pause_s)

    def _send(self, turns: tuple[Request, ...], at_s: float) -> None:
        if at_s >= self._stop_s:
            return
        sent = _Sent(turns[0], at_s, turns[1:])
        if self._scheduler.is_dead:
            self._records.append(_record(sent, at_s, failure=_GONE))
            return
        arrival_s = self._begin_s + at_s + self._request_s
        heapq.heappush(self._on_the_way, (arrival_s, sent.request.index, sent))

    def _deliver(self, sent: _Sent, arrived_s: float) -> None:
        refusal = self._scheduler.refusal(sent.request)
        if refusal is not None:
            now_s = arrived_s - self._begin_s
            failure = RequestFailure(RequestFailureKind.ABORTED, RequestPhase.FIRST_TOKEN, refusal.message)
            self._records.append(_record(sent, now_s, failure=failure))
            self._send_next(now_s, sent.later)
            return
        sequence = Sequence(sent.request, arrived_s)
        self._in_flight[sequence] = sent
        self._scheduler.submit(sequence)


def _record(
    sent: _Sent,
    ended_s: float,
    sequence: Sequence | None = None,
    token_times: NDArray[np.float64] = _NO_TIMES,
    failure: RequestFailure | None = None,
) -> RequestRecord:
    return RequestRecord(
        index=sent.request.index,
        scheduled_s=sent.sent_s,
        sent_s=sent.sent_s,
        ended_s=ended_s,
        input_tokens=sent.request.input_tokens,
        output_tokens=len(token_times),
        cached_tokens=0 if sequence is None else sequence.cached_tokens or 0,
        chunk_times_s=token_times,
        chunk_tokens=_ones(len(token_times)),
        failure=failure,
    )


def _ones(count: int) -> NDArray[np.int64]:
    """Return one token for each time; short answers share theirs, which nobody can write to."""
    return _ONES[:count] if count <= len(_ONES) else np.ones(count, dtype=np.int64)
