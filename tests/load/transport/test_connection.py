import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from autotune.load.transport.clock import ReceiveClock
from autotune.load.transport.connection import Connection
from autotune.load.transport.framing import Limits, MalformedAnswer
from autotune.load.transport.recording import Recording
from autotune.load.transport.tls import TlsSession

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"


@dataclass
class FailingSocket:
    """A connected socket whose calls of the named kinds raise what is left in their lists."""

    real: socket.socket
    errors: dict[str, list[OSError]] = field(default_factory=dict)

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()

    def recv(self, size: int, flags: int = 0) -> bytes:
        self._raise("recv")
        return self.real.recv(size, flags)

    def recvmsg_into(
        self, buffers: list[bytearray], ancillary: int
    ) -> tuple[int, list[tuple[int, int, bytes]], int, object]:
        self._raise("recvmsg_into")
        return self.real.recvmsg_into(buffers, ancillary)

    def send(self, data: memoryview) -> int:
        self._raise("send")
        return self.real.send(data)

    def _raise(self, call: str) -> None:
        if self.errors.get(call):
            raise self.errors[call].pop(0)


@dataclass
class Pair:
    """A connection, both ends of it, and how often it was given back."""

    ours: FailingSocket
    theirs: socket.socket
    connection: Connection = field(init=False)
    released: list[Connection] = field(default_factory=list)
    was_released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self, connection: Connection) -> None:
        self.released.append(connection)
        self.was_released.set()


@pytest.fixture
def ends() -> Iterator[tuple[FailingSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield FailingSocket(ours), theirs


Ends = tuple[FailingSocket, socket.socket]


def converse(
    ends: Ends,
    work: Callable[[Pair], Awaitable[None]],
    *,
    tls: TlsSession | None = None,
    most_bytes: int = 1000,
) -> None:
    async def main() -> None:
        pair = Pair(*ends)
        sock: socket.socket = pair.ours  # type: ignore[assignment]  # it does what the connection calls
        limits = Limits(answer_bytes=most_bytes)
        pair.connection = Connection(sock, tls, ReceiveClock(), limits, pair.release)
        try:
            await asyncio.wait_for(work(pair), 20)
        finally:
            pair.connection.close()

    asyncio.run(main())


def test_an_idle_connection_is_usable_until_it_is_old_broken_or_closed(ends: Ends) -> None:
    async def work(pair: Pair) -> None:
        assert pair.connection.is_usable(60)
        pair.ours.errors["recv"] = [InterruptedError()]
        assert pair.connection.is_usable(60)
        assert not pair.connection.is_usable(0)
        pair.theirs.send(b"x")
        assert not pair.connection.is_usable(60)
        pair.ours.errors["recv"] = [ConnectionResetError()]
        assert not pair.connection.is_usable(60)
        pair.connection.close()
        assert not pair.connection.is_usable(60)
        pair.connection.close()
        assert pair.released == [pair.connection]

    converse(ends, work)


def test_a_send_that_is_interrupted_is_done_again_and_stamped_once(ends: Ends) -> None:
    async def work(pair: Pair) -> None:
        pair.ours.errors["send"] = [BlockingIOError(), InterruptedError()]
        recording = Recording()
        pair.connection.begin(b"request", recording)
        assert recording.sent_ns is None
        assert await asyncio.get_running_loop().sock_recv(pair.theirs, 100) == b"request"
        pair.theirs.send(HEAD + b"hello")
        await recording.end
        stamps_ns = [recording.begun_ns, recording.sent_ns, recording.ended_ns]
        assert stamps_ns == sorted(filter(None, stamps_ns))
        assert pair.released == [pair.connection]
        assert not pair.connection.is_closed

    converse(ends, work)


@pytest.mark.parametrize("errors", [[BrokenPipeError()], [BlockingIOError(), BrokenPipeError()]], ids=len)
def test_what_the_server_said_before_the_send_broke_is_still_read_and_the_connection_is_not_kept(
    ends: Ends, errors: list[OSError]
) -> None:
    async def work(pair: Pair) -> None:
        pair.ours.errors["send"] = list(errors)
        recording = Recording()
        pair.connection.begin(b"request", recording)
        for _ in range(5):
            await asyncio.sleep(0)  # the connection tries again
        pair.theirs.send(HEAD + b"hello")
        await recording.end
        assert not pair.ours.errors["send"]
        assert (recording.body_bytes, recording.sent_ns) == (5, None)
        assert pair.connection.is_closed

    converse(ends, work)


def test_a_read_that_is_interrupted_is_done_again_and_one_that_fails_ends_the_answer(ends: Ends) -> None:
    async def work(pair: Pair) -> None:
        cause = ConnectionResetError("reset by peer")
        pair.ours.errors["recvmsg_into"] = [InterruptedError(), cause]
        recording = Recording()
        pair.connection.begin(b"request", recording)
        pair.theirs.send(HEAD)
        with pytest.raises(httpx.ReadError, match="reset by peer") as caught:
            await recording.end
        assert caught.value.__cause__ is cause
        assert pair.connection.is_closed

    converse(ends, work)


def test_a_server_that_ends_an_idle_connection_closes_it_quietly(ends: Ends) -> None:
    async def work(pair: Pair) -> None:
        pair.theirs.close()
        await pair.was_released.wait()
        assert pair.connection.is_closed

    converse(ends, work)


def test_a_connection_closed_by_this_side_fails_its_answer(ends: Ends) -> None:
    async def work(pair: Pair) -> None:
        recording = Recording()
        pair.connection.begin(b"request", recording, first_byte_timeout_s=60)
        pair.connection.close()
        with pytest.raises(httpx.ReadError, match="closed by this side"):
            await recording.end

    converse(ends, work)


def test_an_answer_beyond_its_limit_is_cut_off(ends: Ends) -> None:
    async def work(pair: Pair) -> None:
        recording = Recording()
        pair.connection.begin(b"request", recording)
        pair.theirs.send(HEAD.replace(b"5", b"9") + b"x" * 9)
        with pytest.raises(MalformedAnswer, match="longer than 8 bytes"):
            await recording.end

    converse(ends, work, most_bytes=8)


class _Replying:
    """A TLS session that answers each read with something of its own, as one does to a key update."""

    is_ended = False

    def encrypt(self, data: bytes) -> bytes:
        return data

    def decrypt(self, data: bytes) -> bytes:
        if data == b"garbage":
            raise ssl.SSLError(1, "decryption failed or bad record mac")
        return data

    def replies(self) -> bytes:
        return b"<updated>"


def test_what_tls_itself_wants_to_say_is_sent_after_what_still_waits(ends: Ends) -> None:
    async def work(pair: Pair) -> None:
        pair.ours.errors["send"] = [BlockingIOError()]
        recording, begun = Recording(), asyncio.Event()
        recording.on_head = lambda _: begun.set()
        pair.connection.begin(b"request", recording)
        pair.ours.errors["send"] = [BlockingIOError()] * 3
        pair.theirs.send(HEAD)
        await begun.wait()
        loop = asyncio.get_running_loop()
        heard = b""
        while len(heard) < len(b"request<updated>"):
            heard += await loop.sock_recv(pair.theirs, 100)
        assert heard == b"request<updated>"
        pair.theirs.send(b"hello")
        await recording.end
        assert recording.sent_ns is not None

    converse(ends, work, tls=_Replying())  # type: ignore[arg-type]  # it does what the connection calls


@pytest.mark.parametrize(("said", "message"), [(b"garbage", "bad record mac"), (b"", "without an answer")])
def test_tls_that_breaks_or_stops_without_its_farewell_fails_the_answer(
    ends: Ends, said: bytes, message: str
) -> None:
    async def work(pair: Pair) -> None:
        recording = Recording()
        pair.connection.begin(b"request", recording)
        pair.theirs.send(said)
        pair.theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(httpx.ReadError, match=message):
            await recording.end

    converse(ends, work, tls=_Replying())  # type: ignore[arg-type]  # it does what the connection calls
