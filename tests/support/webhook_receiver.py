"""A web server that keeps the JSON it is sent and answers with the statuses it is told, in order."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.patient_server import PatientServer

SECRET = "T0KEN"  # noqa: S105 - the test's own


class Receiver:
    """What arrived. After the given statuses it answers 200."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.messages: list[dict[str, Any]] = []
        self.url = ""


@contextmanager
def webhook_receiver(*statuses: int) -> Iterator[Receiver]:
    """Receive while the context lasts."""
    receiver = Receiver(list(statuses))

    class Pages(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.messages.append(json.loads(body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = PatientServer(("127.0.0.1", 0), Pages)
    receiver.url = f"http://127.0.0.1:{server.server_port}/services/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
