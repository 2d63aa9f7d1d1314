"""A small OpenAI-compatible gateway with an API key: no SGLang pages, and a chat template of seven tokens."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.patient_server import PatientServer

KEY = "sk-secret-1234"
TEMPLATE_TOKENS = 7


@dataclass
class Gateway:
    url: str = ""
    key: str | None = KEY
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "m", "max_model_len": 4096}])
    pages: dict[str, bytes] = field(default_factory=dict)
    token_s: float = 0.001
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def page(self, path: str) -> tuple[int, bytes]:
        """What a GET answers, the key aside."""
        if path in self.pages:
            return 200, self.pages[path]
        if path == "/v1/models":
            return 200, json.dumps({"object": "list", "data": self.models}).encode()
        return 404, b"no such page"


def _chunks(body: dict[str, Any], path: str) -> Iterator[dict[str, Any]]:
    is_chat = path.endswith("/chat/completions")
    prompt = " ".join(each["content"] for each in body["messages"]) if is_chat else body["prompt"]
    tokens = (
        len(prompt) if isinstance(prompt, list) else len(prompt.split()) + (TEMPLATE_TOKENS if is_chat else 0)
    )
    for number in range(1, body["max_tokens"] + 1):
        usage = {"prompt_tokens": tokens, "completion_tokens": number, "total_tokens": tokens + number}
        choice: dict[str, Any] = {"delta": {"content": "a "}} if is_chat else {"text": "a "}
        last = number == body["max_tokens"]
        yield {"choices": [{**choice, "finish_reason": "length" if last else None}], "usage": usage}


def _answering(gateway: Gateway) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._send(*((401, b"no key") if self._is_stranger() else gateway.page(self.path)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self._is_stranger():
                self._send(401, b"no key")
                return
            gateway.bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in _chunks(body, self.path):
                self._event(json.dumps(chunk))
                time.sleep(gateway.token_s)
            self._event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

        def _is_stranger(self) -> bool:
            return gateway.key is not None and self.headers["Authorization"] != f"Bearer {gateway.key}"

        def _event(self, data: str) -> None:
            event = f"data: {data}\n\n".encode()
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Answer


@contextmanager
def running(gateway: Gateway) -> Iterator[Gateway]:
    """Serve until the block ends."""
    server = PatientServer(("127.0.0.1", 0), _answering(gateway))
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
