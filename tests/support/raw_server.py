"""A server that reads a request and then does with the socket what the test says."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class RawServer:
    """`heads` and `requests` (bodies) are what came, `connections` how many connections were made."""

    url: str
    heads: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


def read_request(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """Return the head and the body of the next request, None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := sock.recv(65536)):
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line.split(b":") for line in head.lower().split(b"\r\n")]
    size = next((int(line[1]) for line in lines if line[0] == b"content-length"), 0)
    while len(body) < size:
        body += sock.recv(65536)
    return head, body


@contextmanager
def raw_server(
    answer: Callable[[socket.socket], bool],
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
) -> Iterator[RawServer]:
    """Serve until the context ends; `answer` says whether the connection may be used again."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    scheme, shown = ("https" if tls else "http"), (f"[{host}]" if ":" in host else host)
    server = RawServer(f"{scheme}://{shown}:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with suppress(OSError), sock, tls.wrap_socket(sock, server_side=True) if tls else sock as plain:
            while (request := read_request(plain)) is not None:
                server.heads.append(request[0])
                server.requests.append(request[1])
                if not answer(plain):
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                server.connections += 1
                threads.append(threading.Thread(target=serve, args=(sock,), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(10)
        listener.close()
        for thread in threads:
            thread.join(10)
