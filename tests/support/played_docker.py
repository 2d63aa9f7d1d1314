"""A Docker engine that tells its version and begins pulls that stand still, in a thread of the test."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.support.patient_server import PatientServer


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_version = self.path.endswith("/version")
        body = {"ApiVersion": "1.43"} if is_version else {"message": "No such container: 0a"}
        content = json.dumps(body).encode()
        self.send_response(200 if is_version else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Tell one step of a pull, and then nothing for as long as the other side waits."""
        step = json.dumps({"status": "Pulling from tiny"}).encode() + b"\r\n"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{len(step):x}\r\n".encode() + step + b"\r\n")
        self.connection.settimeout(20)
        self.connection.recv(1)

    def address_string(self) -> str:
        return "somebody"

    def log_message(self, *_: object) -> None:
        pass


class _SocketServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def docker_behind(path: Path | None) -> Iterator[str]:
    """Serve at a socket, at a port without one; give the address."""
    if path is None:
        http = PatientServer(("127.0.0.1", 0), _Pages)
        server: socketserver.BaseServer = http
        address = f"tcp://127.0.0.1:{http.server_port}"
    else:
        server, address = _SocketServer(str(path), _Pages), f"unix://{path}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
