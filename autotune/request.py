"""What is sent to an engine and what comes back: requests, offered loads and raw records.

Everything else about a measurement is derived from `RequestRecord`s. Pure; the lowest stage that both
the load generator (over HTTP) and the simulator (in virtual time) speak.
Times are seconds since the load point began, on one monotonic clock.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Request:
    """One request to be sent. `token_ids` and `text` stay None until a prompt is needed on a wire.

    `said`: questions and answers in turn that stand before `text` (messages of a chat).
    `after` is the index of the earlier turn of a conversation: this one is sent `pause_s` after that has
    ended, and follows it directly in the load.
    """

    index: int
    input_tokens: int
    output_tokens: int
    prefix_group: int | None = None
    prefix_tokens: int = 0
    due_s: float | None = None
    token_ids: tuple[int, ...] | None = None
    text: str | None = None
    said: tuple[str, ...] = ()
    after: int | None = None
    pause_s: float = 0.0


def conversations(requests: Iterable[Request]) -> Iterator[tuple[Request, ...]]:
    """Give the requests as conversations, lazily: a request, and those that wait for one before them."""
    turns: tuple[Request, ...] = ()
    for request in requests:
        if request.after is not None:
            turns = (*turns, request)
            continue
        if turns:
            yield turns
        turns = (request,)
    if turns:
        yield turns


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """Requests and when they are sent.

    Closed loop: `concurrency` requests are kept in flight, in order, a conversation by one slot; the slots
    begin at once or, with `ramp_s`, spread evenly over that time. Open loop (`concurrency` None):
    every request has a `due_s`, an absolute time since the start, and is sent then whatever happened
    before. `stop_after_s` ends dispatching; what is in flight is still awaited. `salt` tells loads of one
    workload apart: prompts of different salts have nothing in common.
    """

    requests: Sequence[Request]
    concurrency: int | None
    stop_after_s: float | None = None
    salt: int = 0
    ramp_s: float = 0.0


class RequestPhase(StrEnum):
    """How far a failed request came."""

    CONNECT = "connect"
    HEADERS = "headers"
    FIRST_TOKEN = "first_token"  # noqa: S105 - the token of a language model
    STREAM = "stream"


class RequestFailureKind(StrEnum):
    """Why a request has no latency."""

    CONNECTION = "connection"
    TIMEOUT = "timeout"
    HTTP_STATUS = "http_status"
    IN_STREAM_ERROR = "in_stream_error"
    ABORTED = "aborted"
    CUT_STREAM = "cut_stream"
    PROTOCOL = "protocol"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """A request that did not end well. Never retried; `metrics` says how it counts."""

    kind: RequestFailureKind
    phase: RequestPhase
    message: str


@dataclass(slots=True, eq=False)
class RequestRecord:
    """The raw facts of one request: final, though not frozen, which is most of the time of making one.

    `chunk_times_s[i]` is when the i-th chunk that carried tokens arrived and `chunk_tokens[i]` how many
    output tokens were new in it; both are empty for a request that failed before its first token.
    `output_tokens` is the server's own count (usage), not the number of chunks; `cached_tokens` is None where
    the server did not tell it.
    """

    index: Final[int]
    scheduled_s: Final[float]
    sent_s: Final[float | None]
    ended_s: Final[float]
    input_tokens: Final[int]
    output_tokens: Final[int]
    cached_tokens: Final[int | None]
    chunk_times_s: Final[NDArray[np.float64]]
    chunk_tokens: Final[NDArray[np.int64]]
    failure: Final[RequestFailure | None] = None

    @property
    def first_token_s(self) -> float | None:
        """Arrival of the first chunk with a token, None if there was none."""
        return float(self.chunk_times_s[0]) if len(self.chunk_times_s) else None


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """What the load generator knows about itself.

    `loop_lag_p99_s`: how late its event loop woke up; `cpu_ratio`: CPU seconds per second of wall time, of
    all its processes; `peak_in_flight`: the concurrency reached.
    `dispatch_delay_*`: from when a request was due to when the client turned to it, connecting not counted;
    `tokens_per_read`: events with tokens per read that had any (those of one read share one stamp);
    `clock_drift_s`: how far the kernel's clock moved against the monotonic one; `has_kernel_stamps`: arrivals
    are stamped by the kernel and not when they are read. Of several processes the worst counts.
    """

    loop_lag_p99_s: float
    cpu_ratio: float
    peak_in_flight: int
    dispatch_delay_p99_s: float = 0.0
    dispatch_delay_mean_s: float = 0.0
    tokens_per_read: float = 1.0
    cpu_s_per_1000_tokens: float = 0.0
    clock_drift_s: float = 0.0
    has_kernel_stamps: bool = True
    processes: int = 1


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One record per dispatched request, in index order; `client` is None in virtual time.

    `silent_s`: the run was given up because no byte of any answer came for this long with requests in
    flight; None for a run that was not. `began_ns`: the beginning that all times count from, on this
    machine's CLOCK_MONOTONIC, to set them beside other clocks; None in virtual time.
    """

    records: tuple[RequestRecord, ...]
    client: ClientHealth | None
    silent_s: float | None = None
    began_ns: int | None = None


class Onlooker(Protocol):
    """Looks at a load while it runs, and may end it. What it remembers of that is its own."""

    @property
    def next_look(self) -> int | None:
        """With how many requests it wants to look next; None: never again."""
        ...

    def is_decided(self, records: Sequence[RequestRecord]) -> bool:
        """Look at that many requests, the first that were due, once all of them have ended.

        True ends the load. What a look sees does not depend on when it is taken: a request that takes long
        is waited for, so that the slow ones are never missing.
        """
        ...


def due_order(record: RequestRecord) -> tuple[float, int]:
    """Return the key that sorts records by when they were due."""
    return record.scheduled_s, record.index


def first_ended(
    records: Iterable[RequestRecord], open_since_s: float, count: int
) -> tuple[RequestRecord, ...] | None:
    """Return the first `count` requests that were due, None while one of them is still under way.

    `records`: those that have ended; `open_since_s`: when the first of the others was due.
    """
    known = sorted((each for each in records if each.scheduled_s < open_since_s), key=due_order)
    return tuple(known[:count]) if len(known) >= count else None


class Endpoint(Protocol):
    """Something that serves an offered load: a server over HTTP, or the simulator in virtual time."""

    def run(self, offered: OfferedLoad, onlooker: Onlooker | None = None) -> LoadResult:
        """Serve the load to its end, or until its onlooker has seen enough.

        Then nothing more is sent, and what was in flight is given up, with STOPPED as its failure.

        Raises:
            LoadError: the generator itself failed to offer what was asked.
        """
        ...
