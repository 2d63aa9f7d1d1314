"""An exchange's recording, read into its attempt: at once, or in slices when there is time.

In: a `Recording` that fills while it is read. Out: an `Attempt` that has seen all of it, and its failure.
Invariant: reads are taken once, in order; after the first error nothing more is believed.
"""

from collections.abc import Callable, Iterator

from autotune.load.attempt import Attempt
from autotune.load.backlog import Later
from autotune.load.clock import LoadClock
from autotune.load.failure import StreamError
from autotune.load.transport.recording import Recording
from autotune.request import RequestFailure, RequestPhase, RequestRecord

READS_PER_SLICE = 32

_MUCH_BYTES = 4 * 2**10
_MOST_BYTES = 2**20
_END_MARKS = (b"[DONE]\n\n", b"[DONE]\r\n\r\n")


class Transcript:
    """One request on its way from bytes to a record.

    What arrives waits until the answer has ended, unless it is much or speaks of an error. `on_end_mark` is
    called when a read looks like the last one of a stream.
    """

    def __init__(
        self, attempt: Attempt, recording: Recording, clock: LoadClock, later: Later | None = None
    ) -> None:
        self.attempt = attempt
        self.recording = recording
        self.on_end_mark: Callable[[], None] | None = None
        self._later = later
        self._is_queued = False
        self._is_stream = False
        self._clock = clock
        self._error: StreamError | None = None

    def begin(self) -> None:
        """Take what comes for a stream of events: its head has been accepted."""
        self._is_stream = True
        self.attempt.answered()
        self.recording.on_part = self._arrived
        self.recording.on_many = self._many_wait
        self.recording.may_put_off = True

    def slices(self) -> Iterator[None]:
        """Read what is there, and yield after every few reads. An error of the stream ends the exchange."""
        self.recording.settle()
        parts = self.recording.parts
        while parts:
            self._read(READS_PER_SLICE)
            yield
        self._is_queued = False

    def read_all(self) -> None:
        """Read everything that is there now."""
        if self._is_stream:
            self.recording.settle()
            while self.recording.parts:
                self._read(READS_PER_SLICE)

    def dispatch_delay_s(self) -> float | None:
        """Return how long after it was due the client turned to this request, None if it never did."""
        asked_ns = self.recording.asked_ns
        return None if asked_ns is None else max(self._clock.seconds(asked_ns) - self.attempt.scheduled_s, 0)

    def phase(self) -> RequestPhase:
        """Return how far the request has come, everything read."""
        self.stamp()
        self.read_all()
        return self.attempt.phase

    def stamp(self) -> None:
        """Tell the attempt when the request was sent, if it was."""
        if self.recording.sent_ns is not None:
            self.attempt.sent(self._clock.seconds(self.recording.sent_ns))

    def record(self, error: StreamError | None) -> RequestRecord:
        """Return the request's record; `error` is how its transport failed.

        What the stream said comes before how its connection ended; a transport that broke or stayed open
        after the answer was whole does no harm.
        """
        self.phase()
        failure = self._failure(error)
        ended_ns = self.recording.ended_ns
        ended_s = self._clock.now_s() if ended_ns is None else self._clock.seconds(ended_ns)
        return self.attempt.record(ended_s, failure)

    def read_soon(self) -> None:
        """Have what is there read when there is time."""
        if self._later is None or self._is_queued:
            return
        if self._is_stream and self.recording.waiting:
            self._is_queued = True
            self._later(self.slices())

    def _arrived(self, payload: bytes) -> None:
        if payload.endswith(_END_MARKS):
            if self.on_end_mark is not None:
                self.on_end_mark()
        elif b'"error"' in payload:
            self.read_all()
        elif self.recording.waiting > _MUCH_BYTES:
            self._many_wait()

    def _many_wait(self) -> None:
        if self.recording.waiting > _MOST_BYTES:
            self.read_all()
        else:
            self.read_soon()

    def _failure(self, error: StreamError | None) -> RequestFailure | None:
        if self._error is None and (error is None or (error.is_of_transport and self.attempt.is_done)):
            error = None
            try:
                self.attempt.check_end()
            except StreamError as short:
                error = short
        error = self._error or error
        return None if error is None else self.attempt.failed(error)

    def _read(self, count: int) -> None:
        stamps_ns, payloads = self.recording.take_many(count)
        if self._error is not None:
            return
        try:
            self.attempt.receive_all(payloads, self._clock.seconds_of(stamps_ns))
        except StreamError as error:
            self._error = error
            self.recording.fail(error)
