"""A server that answers whole, not in a stream: what a test's function makes of each request."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, TypeAlias

from tests.support.patient_server import PatientServer

Reply: TypeAlias = tuple[int, object]
"""A status and what is sent as JSON; a text is sent as it is, and status 0 hangs up."""


@contextmanager
def answering(reply: Callable[[str, dict[str, Any]], Reply]) -> Iterator[str]:
    """Serve while the context lasts; give the address. `reply` gets the path and the body."""

    class Pages(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = reply(self.path, body)
            if not status:
                self.close_connection = True
                return
            content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with PatientServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def generated(ids: list[int], logprobs: list[float] | None) -> dict[str, object]:
    """SGLang's answer of /generate, with or without log-probabilities."""
    told = None if logprobs is None else [[a, b, None] for a, b in zip(logprobs, ids, strict=True)]
    return {
        "text": "",
        "output_ids": ids,
        "meta_info": {} if told is None else {"output_token_logprobs": told},
    }
