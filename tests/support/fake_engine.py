"""A program that behaves like SGLang's server: its arguments, log lines, control pages and ways to fail.

Run as a process of its own; `--fake` lists what it shall do, separated by commas:
  crash bad-argument no-memory silent-exit   end at start, as SGLang does
  raises exits-with-words   end at start, as Python does
  never-ready no-rendezvous silent-hang cause-then-hang  stay without serving
  slow-weights  take half a second to load
  stubborn      ignore SIGTERM               grandchild  leave a detached process that ignores SIGTERM
  busy          refuse to flush              no-info no-model-info  lack a page
  not-live      refuse to change a limit     forgets-live  say that it did, and do not
  dies-early    end when it is first asked      eats-memory  take memory until the kernel ends it
A behaviour `name@1` is rank 1's alone.
POST /die?how ends a serving one: exit, kill or memory.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

NO_KV = (
    "ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.15. "
    "Raise --mem-fraction-static above 0.193 (minimum viable = 1 - available/pre = 0.1921). "
    "If using speculative decoding, draft weights are now counted."
)
SIGQUIT = "Received sigquit from a child process. It usually means the child failed."
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1004.00 MiB. GPU 0 has"
VOCABULARY = 2048


def say(line: str, *, is_raw: bool = False) -> None:
    prefix = "" if is_raw else "[2026-11-24 11:47:14] "
    sys.stderr.write(f"{prefix}{line}\n")
    sys.stderr.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sglang serve")
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument("--nnodes", type=int, default=1)
    parser.add_argument("--node-rank", type=int, default=0)
    parser.add_argument("--dist-init-addr", default="")
    parser.add_argument("--max-running-requests", type=int)
    parser.add_argument("--chunked-prefill-size", type=int, default=4096)
    parser.add_argument("--fake", default="")
    return parser.parse_args()


class Pages(BaseHTTPRequestHandler):
    given: argparse.Namespace
    behaviours: set[str]
    most: int
    limit: int

    def do_GET(self) -> None:
        given = self.given
        if self.path == "/health":
            return self.answer(200)
        if self.path == "/model_info" and "dies-early" in self.behaviours:
            os._exit(1)
        if self.path == "/model_info" and "no-model-info" not in self.behaviours:
            return self.answer(200, {"model_path": given.model_path})
        if self.path != "/server_info" or "no-info" in self.behaviours:
            return self.answer(404)
        state = {
            "effective_max_running_requests_per_dp": self.most,
            "pp_max_micro_batch_size": self.limit,
        }
        return self.answer(
            200,
            {
                "version": "0.5.23",
                "max_total_num_tokens": 40000,
                "max_running_requests": given.max_running_requests,
                "chunked_prefill_size": given.chunked_prefill_size,
                "internal_states": [state],
            },
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == "/set_internal_state":
            return self.answer(200, [self.change(json.loads(body)["server_args"])])
        if self.path == "/generate":
            return self.answer(400, {"error": {"message": f"-1; valid range is [0, {VOCABULARY})."}})
        if self.path.startswith("/die"):
            return self.die(self.path.partition("?")[2])
        return self.answer(400 if self.path == "/flush_cache" and "busy" in self.behaviours else 200)

    def change(self, asked: dict[str, int]) -> bool:
        limit = asked.get("pp_max_micro_batch_size", 0)
        is_taken = 1 <= limit <= self.most and "not-live" not in self.behaviours
        if is_taken and "forgets-live" not in self.behaviours:
            Pages.limit = limit
        return is_taken

    def die(self, how: str) -> None:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "memory":
            say(OUT_OF_MEMORY, is_raw=True)
        os._exit(1)

    def answer(self, status: int, body: dict[str, object] | list[bool] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def behaviours_of(given: argparse.Namespace) -> set[str]:
    asked = [word.partition("@") for word in given.fake.split(",")]
    return {name for name, _, rank in asked if rank in ("", str(given.node_rank))}


def fail_at_start(behaviours: set[str]) -> None:
    if "silent-hang" in behaviours:
        sleep_for_ever()
    if "silent-exit" in behaviours:
        os._exit(3)
    if "raises" in behaviours:
        raise LookupError("nobody catches this")
    if "exits-with-words" in behaviours:
        sys.exit("it ends with words")
    if "bad-argument" in behaviours:
        say("usage: sglang serve [-h] --model-path MODEL_PATH", is_raw=True)
        say("sglang serve: error: unrecognized arguments: --no-such-flag 1", is_raw=True)
        os._exit(2)


def load(behaviours: set[str]) -> None:
    if "no-rendezvous" in behaviours:
        sleep_for_ever()
    say("Init parallel ends. elapsed=0.30 s")
    say("Load weight begin. avail mem=17.61 GB")
    if "never-ready" in behaviours:
        sleep_for_ever()
    if "slow-weights" in behaviours:
        time.sleep(0.5)
    say("Load weight end. elapsed=0.08 s, type=Qwen3ForCausalLM, avail mem=17.54 GB, mem usage=0.07 GB.")
    if "crash" in behaviours:
        say("Traceback (most recent call last):", is_raw=True)
        say("RuntimeError: something that no table knows", is_raw=True)
        os._exit(1)
    if "cause-then-hang" in behaviours:
        say(OUT_OF_MEMORY, is_raw=True)
        sleep_for_ever()
    if "eats-memory" in behaviours:
        eaten = [bytearray(os.urandom(1 << 20)) for _ in range(4096)]
        say(f"ate {len(eaten)} MiB")
    if "no-memory" in behaviours:
        say(NO_KV, is_raw=True)
        say(SIGQUIT)
        os.kill(os.getpid(), signal.SIGKILL)
    say("max_total_num_tokens=40000, chunked_prefill_size=4096, max_running_requests=2500")


def sleep_for_ever() -> None:
    while True:
        time.sleep(60)


def leave_grandchild() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sleep_for_ever()
        os._exit(0)


def meet(given: argparse.Namespace) -> socket.socket:
    host, port = given.dist_init_addr.rsplit(":", 1)
    if given.node_rank == 0:
        listener = socket.create_server((host, int(port)))
        return listener.accept()[0]
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except OSError:
            time.sleep(0.02)


def follow(rank_0: socket.socket) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as SGLang's other ranks do
    rank_0.recv(1)
    os._exit(0)


def main() -> None:
    given = arguments()
    behaviours = behaviours_of(given)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in behaviours else lambda *_: os._exit(0))
    fail_at_start(behaviours)
    if "grandchild" in behaviours:
        leave_grandchild()
    say("Init parallel begin.")
    peer = meet(given) if given.nnodes > 1 else None
    load(behaviours)
    if peer is not None and given.node_rank > 0:
        follow(peer)
    Pages.given, Pages.behaviours = given, behaviours
    Pages.most = Pages.limit = given.max_running_requests or 2500
    server = HTTPServer((given.host, given.port), Pages)
    say(f"INFO:     Uvicorn running on http://{given.host}:{given.port} (Press CTRL+C to quit)")
    say("The server is fired up and ready to roll!")
    server.serve_forever(poll_interval=0.02)


if __name__ == "__main__":
    main()
