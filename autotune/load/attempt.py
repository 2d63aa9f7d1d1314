"""One request under way: its three clocks, its phase and its chunks. Knows no transport.

In: stamps and bytes, in the order they happen. Out: a `RequestRecord`.
Invariant: the tokens of the chunks add up to the server's own count.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from operator import sub

import numpy as np

from autotune.load.failure import StreamError
from autotune.load.stream import EventSplitter, objects_in_a_list
from autotune.load.wire import Progress, Tally, parsed_list, plain_totals, progress_of, read_event
from autotune.load.workload import Wire
from autotune.request import Request, RequestFailure, RequestFailureKind, RequestPhase, RequestRecord


class Attempt:
    """Collects what happens to a request; all times are seconds since the load began."""

    def __init__(self, request: Request, wire: Wire, scheduled_s: float, *, ignore_eos: bool) -> None:
        self._request = request
        self._wire = wire
        self.scheduled_s = scheduled_s
        self._ignore_eos = ignore_eos
        self._sent_s: float | None = None
        self._is_answered = False
        self._splitter = EventSplitter()
        self._tally = Tally()
        self._times_s = array("d")
        self._tokens = array("q")
        self._uncounted_s: list[float] = []
        self._token_events = 0
        self._token_reads = 0
        self._last_event_s = -math.inf

    @property
    def events_and_reads(self) -> tuple[int, int]:
        """How many events brought tokens, and in how many different reads they came."""
        return self._token_events, self._token_reads

    @property
    def is_done(self) -> bool:
        """Whether the server has said that nothing follows."""
        return self._tally.is_done

    @property
    def phase(self) -> RequestPhase:
        """How far the request has come."""
        if self._times_s or self._uncounted_s:
            return RequestPhase.STREAM
        if self._is_answered:
            return RequestPhase.FIRST_TOKEN
        return RequestPhase.CONNECT if self._sent_s is None else RequestPhase.HEADERS

    def sent(self, at_s: float) -> None:
        """Note when the last byte of the request was about to be handed to the network."""
        self._sent_s = at_s

    def answered(self) -> None:
        """Note that the response's headers are there."""
        self._is_answered = True

    def receive(self, data: bytes, at_s: float) -> None:
        """Take in bytes of the body that arrived at `at_s`.

        Raises:
            StreamError: what they say ends the request.
        """
        for event in self._splitter.feed(data):
            self._take(read_event(self._wire, event), at_s)

    def receive_all(self, reads: Sequence[bytes], times_s: Sequence[float]) -> None:
        """Take in several reads at once, which takes half the time where each is one event.

        Raises:
            StreamError: as `receive`, when the read is come to.
        """
        objects = objects_in_a_list(reads) if self._splitter.is_idle else None
        events = None if objects is None else parsed_list(objects, len(reads))
        if events is None:
            for data, at_s in zip(reads, times_s, strict=True):
                self.receive(data, at_s)
        elif not self._receive_plain(events, times_s):
            for event, at_s in zip(events, times_s, strict=True):
                self._take(progress_of(self._wire, event), at_s)

    def check_end(self) -> None:
        """Judge the body's end.

        Raises:
            StreamError: the answer is not whole.
        """
        self._tally.check_end(self._request.output_tokens, ignore_eos=self._ignore_eos)

    def record(self, ended_s: float, failure: RequestFailure | None) -> RequestRecord:
        """Return the raw facts."""
        reported = self._tally.input_tokens
        return RequestRecord(
            index=self._request.index,
            scheduled_s=self.scheduled_s,
            sent_s=self._sent_s,
            ended_s=ended_s,
            input_tokens=self._request.input_tokens if reported is None else reported,
            output_tokens=self._tally.output_tokens,
            cached_tokens=self._tally.cached_tokens,
            chunk_times_s=np.array(self._times_s, dtype=np.float64),
            chunk_tokens=np.array(self._tokens, dtype=np.int64),
            failure=failure,
        )

    def failed(self, error: StreamError) -> RequestFailure:
        """Return the failure that an error is in the present phase."""
        return RequestFailure(error.kind, self.phase, error.message)

    def _receive_plain(self, events: Sequence[Mapping[str, object]], times_s: Sequence[float]) -> bool:
        """Take in events that bring tokens and nothing else, each at a time of its own; else take none."""
        before = self._tally.output_tokens
        if self._tally.is_done or self._uncounted_s or self._last_event_s == times_s[0]:
            return False
        totals = plain_totals(self._wire, events, before)
        if totals is None or len(set(times_s)) < len(times_s):
            return False
        self._tokens.extend(map(sub, totals, [before, *totals]))
        self._times_s.extend(times_s)
        self._token_events += len(events)
        self._token_reads += len(events)
        self._last_event_s = times_s[-1]
        self._tally.add(progress_of(self._wire, events[-1]))
        return True

    def _take(self, progress: Progress, at_s: float) -> None:
        tally = self._tally
        if tally.is_done:
            raise StreamError(RequestFailureKind.PROTOCOL, "an event follows [DONE]")
        new = tally.add(progress)
        if not tally.is_counted or self._uncounted_s:
            self._take_uncounted(progress, new, at_s)
        elif new:
            self._count_event(at_s)
            self._note(new, at_s)

    def _take_uncounted(self, progress: Progress, new: int, at_s: float) -> None:
        """Take in an event of a stream that has text without counts of tokens."""
        if new or (progress.has_text and not self._tally.is_counted):
            self._count_event(at_s)
        if new:
            self._spread(new)
        elif progress.has_text and not self._tally.is_counted:
            self._uncounted_s.append(at_s)

    def _count_event(self, at_s: float) -> None:
        self._token_events += 1
        if at_s != self._last_event_s:
            self._token_reads += 1
            self._last_event_s = at_s

    def _note(self, new: int, at_s: float) -> None:
        """Events of one arrival are one chunk."""
        if self._times_s and self._times_s[-1] == at_s:
            self._tokens[-1] += new
        else:
            self._times_s.append(at_s)
            self._tokens.append(new)

    def _spread(self, total: int) -> None:
        """Give a total to the chunks before it, as evenly as whole tokens allow, the first never empty.

        A server that ignores `continuous_usage_stats` counts only at the end: TTFT, TPOT and E2E stay
        exact, single gaps become means.
        """
        chunks = len(self._uncounted_s)
        for position, at_s in enumerate(self._uncounted_s):
            share = math.ceil(total * (position + 1) / chunks) - math.ceil(total * position / chunks)
            if share:
                self._note(share, at_s)
        self._uncounted_s.clear()
