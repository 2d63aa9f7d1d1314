import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from autotune.load.transport.clock import ReceiveClock
from autotune.load.transport.framing import MalformedAnswer
from autotune.load.transport.recording import Recording
from autotune.load.transport.stamped import StampedTransport
from tests.support.raw_server import raw_server

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
T = TypeVar("T")


def sending(data: bytes, *, again: bool = True) -> Callable[[socket.socket], bool]:
    def answer(sock: socket.socket) -> bool:
        sock.sendall(data)
        return again

    return answer


def with_client(
    url: str, work: Callable[[httpx.AsyncClient], Awaitable[T]], tls: ssl.SSLContext | None = None
) -> T:
    async def main() -> T:
        transport = StampedTransport(url, ReceiveClock(), tls=tls)
        async with httpx.AsyncClient(transport=transport, base_url=url, timeout=5) as client:
            return await work(client)

    return asyncio.run(main())


async def get(client: httpx.AsyncClient) -> str:
    return (await client.get("/")).text


async def get_twice(client: httpx.AsyncClient) -> list[str]:
    return [await get(client), await get(client)]


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_it_is_an_httpx_transport_and_its_connection_is_used_again(answer: bytes) -> None:
    with raw_server(sending(answer)) as server:
        assert with_client(server.url, get_twice) == ["hello", "hello"]
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
    ],
)
def test_a_connection_that_ends_with_its_answer_is_not_used_again(answer: bytes) -> None:
    with raw_server(sending(answer, again=False)) as server:
        assert with_client(server.url, get_twice) == ["hello", "hello"]
    assert server.connections == 2


def test_a_kept_connection_that_the_server_closed_is_noticed_before_it_is_used() -> None:
    async def later(client: httpx.AsyncClient) -> list[str]:
        first = await get(client)
        await asyncio.sleep(0.05)
        return [first, await get(client)]

    with raw_server(sending(PLAIN, again=False)) as server:
        assert with_client(server.url, later) == ["hello", "hello"]
    assert server.connections == 2


def test_bytes_that_nobody_asked_for_end_a_kept_connection() -> None:
    def answer(sock: socket.socket) -> bool:
        sock.sendall(PLAIN)
        time.sleep(0.02)
        sock.sendall(PLAIN)
        return True

    async def later(client: httpx.AsyncClient) -> list[str]:
        first = await get(client)
        await asyncio.sleep(0.1)
        return [first, await get(client)]

    with raw_server(answer) as server:
        assert with_client(server.url, later) == ["hello", "hello"]
    assert server.connections == 2


def test_an_answer_without_a_body_ends_at_its_head() -> None:
    with raw_server(sending(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        assert with_client(server.url, get_twice) == ["", ""]
    assert server.connections == 1


def test_a_body_larger_than_the_sockets_buffers_is_sent_in_parts() -> None:
    body = bytes(range(256)) * 40_000

    async def post(client: httpx.AsyncClient) -> str:
        return (await client.post("/", content=body)).text

    with raw_server(sending(PLAIN)) as server:
        assert with_client(server.url, post) == "hello"
    assert server.requests == [body]


def test_a_server_that_answers_before_it_has_read_everything_is_heard_and_left() -> None:
    def refuse(sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        return False

    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def post(client: httpx.AsyncClient) -> int:
            asking = asyncio.create_task(client.post("/", content=b"x" * 30_000_000))
            sock, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(sock.recv, 1000)
            refuse(sock)
            response = await asking
            sock.close()
            return response.status_code

        assert with_client(f"http://127.0.0.1:{listener.getsockname()[1]}", post) == 413


def test_ipv6_is_spoken() -> None:
    with raw_server(sending(PLAIN), host="::1") as server:
        assert with_client(server.url, get) == "hello"


def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(sending(PLAIN)) as server:
        port = httpx.URL(server.url).port

        async def resolve(*_: object, **__: object) -> list[object]:
            stream = socket.SOCK_STREAM
            return [
                (socket.AF_INET6, stream, 6, "", ("::1", port, 0, 0)),
                (socket.AF_INET, stream, 6, "", ("127.0.0.1", port)),
            ]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
        assert with_client(server.url, get_twice) == ["hello", "hello"]
    assert server.connections == 1


def test_a_name_that_is_not_known_is_a_connect_error() -> None:
    with pytest.raises(httpx.ConnectError):
        with_client("http://no-such-host.invalid", get)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, "-nodes", *files, *name], check=True, capture_output=True
    )
    return cert, key


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_tls_is_spoken_and_stamped(certificate: tuple[Path, Path]) -> None:
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000
    trusting = ssl.create_default_context(cafile=str(certificate[0]))

    async def post(client: httpx.AsyncClient) -> tuple[int, Recording]:
        response = await client.post("/", content=b"y" * 200_000)
        return len(response.text), response.extensions["recording"]

    with raw_server(sending(large), tls=server_context(certificate)) as server:
        before_ns = time.monotonic_ns()
        length, recording = with_client(server.url, post, trusting)
    assert length == 300_000
    assert server.requests == [b"y" * 200_000]
    assert before_ns < (recording.sent_ns or 0) <= (recording.ended_ns or 0) <= time.monotonic_ns()


def test_tls_ends_with_its_connection(certificate: tuple[Path, Path]) -> None:
    def answer(sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        assert isinstance(sock, ssl.SSLSocket)
        sock.unwrap()
        return False

    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with raw_server(answer, tls=server_context(certificate)) as server:
        assert with_client(server.url, get, trusting) == "hello"


def test_a_certificate_that_is_not_trusted_is_a_connect_error(certificate: tuple[Path, Path]) -> None:
    with (
        raw_server(sending(PLAIN), tls=server_context(certificate)) as server,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        with_client(server.url, get)


def test_a_server_that_hangs_up_during_the_handshake_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def work(client: httpx.AsyncClient) -> str:
            asking = asyncio.create_task(get(client))
            sock, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(sock.recv, 10_000)
            sock.close()
            return await asking

        with pytest.raises(httpx.ConnectError, match=r"during the TLS handshake|reset"):
            with_client(f"https://127.0.0.1:{listener.getsockname()[1]}", work)


def test_the_time_to_the_first_byte_has_a_limit_of_its_own() -> None:
    def slowly(sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        sock.recv(1)
        return False

    async def impatient(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get("/", timeout=httpx.Timeout(5, read=0.05))

    with raw_server(slowly) as server, pytest.raises(httpx.ReadTimeout, match=r"no first byte .* 0.05 s"):
        with_client(server.url, impatient)


def test_a_body_in_time_is_not_cut_by_the_limit_of_its_first_byte() -> None:
    def slowly(sock: socket.socket) -> bool:
        for part in (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nh", b"ello"):
            sock.sendall(part)
            time.sleep(0.3)
        return True

    async def impatient(client: httpx.AsyncClient) -> str:
        return (await client.get("/", timeout=httpx.Timeout(5, read=0.2))).text

    with raw_server(slowly) as server:
        assert with_client(server.url, impatient) == "hello"


def test_a_stream_left_early_closes_its_connection() -> None:
    async def leave(client: httpx.AsyncClient) -> str:
        async with client.stream("GET", "/") as response:
            response.raise_for_status()
        return await get(client)

    with (
        raw_server(sending(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", again=False)) as server,
        pytest.raises(httpx.ReadError, match="before the answer was whole"),
    ):
        with_client(server.url, leave)
    assert server.connections == 2


def test_a_malformed_answer_is_a_protocol_error_of_httpx() -> None:
    with raw_server(sending(b"nonsense\r\n\r\n")) as server, pytest.raises(MalformedAnswer):
        with_client(server.url, get)


def test_a_read_is_stamped_when_it_arrived_and_not_when_it_was_read() -> None:
    arrived_ns: list[int] = []

    def answer(sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        time.sleep(0.05)
        sock.sendall(b"hello")
        arrived_ns.append(time.monotonic_ns())
        return True

    async def sleepy(client: httpx.AsyncClient) -> Recording:
        async with client.stream("GET", "/") as response:
            time.sleep(0.4)  # noqa: ASYNC251 - blocks the loop on purpose
            await response.aread()
            recording: Recording = response.extensions["recording"]
            return recording

    with raw_server(answer) as server:
        recording = with_client(server.url, sleepy)
    assert ReceiveClock().is_kernel
    assert (recording.ended_ns or 0) == pytest.approx(arrived_ns[0], abs=2e8)


def test_the_clocks_do_not_drift_while_nobody_sets_them() -> None:
    clock = ReceiveClock()
    assert clock.drift_ns() < 1_000_000
    assert clock.stamp_ns([]) <= time.monotonic_ns()
    assert clock.stamp_ns([(1, 35, bytes(16))]) <= time.monotonic_ns()


def test_a_server_whose_queue_of_connections_is_full_is_waited_for_and_given_up(
    with_full_queue: tuple[str, socket.socket],
) -> None:
    url, _ = with_full_queue

    async def work(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.ConnectTimeout, match=r"no connection within 0\.2 s"):
            await client.get("/", timeout=0.2)

    with_client(url, work)
    with pytest.raises(httpx.ConnectTimeout, match=r"no 2 connections within 0\.2 s"):
        asyncio.run(prepared(url, 2, 0.2))


def test_a_connection_that_is_not_there_at_once_is_used_when_it_is(
    with_full_queue: tuple[str, socket.socket],
) -> None:
    url, listener = with_full_queue

    async def main() -> None:
        connecting = asyncio.create_task(prepared(url, 1, 30))
        await asyncio.sleep(0.1)
        assert not connecting.done()
        for _ in range(2):  # then the queue has room for the next attempt, which the kernel makes in a second
            listener.accept()[0].close()
        await connecting

    asyncio.run(main())


async def prepared(url: str, count: int, timeout_s: float) -> None:
    transport = StampedTransport(url, ReceiveClock())
    try:
        await transport.pool.prepare(count, timeout_s)
    finally:
        await transport.aclose()


@pytest.fixture
def with_full_queue() -> Iterator[tuple[str, socket.socket]]:
    """An address at which no further connection is taken before one of those that wait is."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener, ExitStack() as waiting:
        address = listener.getsockname()
        for _ in range(2):
            waiting.enter_context(socket.create_connection(address))
        yield f"http://127.0.0.1:{address[1]}", listener
