import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port

PROGRAM = """
import sys
from autotune.simulator.profile import read_profile
from autotune.simulator.server import serve
sys.exit(serve(read_profile("llama-8b-1xh100"), sys.argv[1:], time_scale=50.0, start_scale=0.001))
"""
PATIENCE_S = 30.0


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def text(self) -> str:
        return self.log.read_text()

    def await_health(self) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            assert self.process.poll() is None, self.text()
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(self.text())


@contextmanager
def started(folder: Path, *words: str, port: int | None = None) -> Iterator[Server]:
    port = port or free_port()
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--model-path", "m", "--port", str(port), *words],
            stderr=output,
        )
        try:
            yield Server(process, port, log)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("server"), "--enable-metrics") as one:
        one.await_health()
        yield one


def events(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.iter_lines() if line]


def test_generate_streams_events_and_ends_with_done(server: Server) -> None:
    body = {"input_ids": [1, 2, 3], "sampling_params": {"max_new_tokens": 5}, "stream": True}
    with httpx.stream("POST", f"{server.url}/generate", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *chunks, done = events(response)
    assert done == "[DONE]"
    assert json.loads(chunks[-1])["meta_info"]["completion_tokens"] == 5


def test_whole_answers_are_json(server: Server) -> None:
    body = {"prompt": "hello", "max_tokens": 3}
    assert httpx.post(f"{server.url}/v1/completions", json=body).json()["usage"]["completion_tokens"] == 3


def test_errors_have_their_status(server: Server) -> None:
    assert httpx.post(f"{server.url}/generate", content=b"not json").status_code == 400
    missing = httpx.get(f"{server.url}/nope")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize("path", ["/health", "/health_generate", "/ready", "/ping"])
def test_a_ready_engine_is_healthy_on_every_path(server: Server, path: str) -> None:
    assert httpx.get(f"{server.url}{path}").status_code == 200


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
def test_the_page_about_the_engine_has_resolved_flags_and_is_marked(server: Server, path: str) -> None:
    page = httpx.get(f"{server.url}{path}").json()
    assert (page["mem_fraction_static"], page["max_total_num_tokens"]) == (0.83, 410619)
    assert page["internal_states"][0]["effective_max_running_requests_per_dp"] == 2048
    assert page["internal_states"][0]["simulated"] is True
    assert page["launch_command"] == f"--model-path m --port {server.port} --enable-metrics"


def test_the_other_pages_have_sglangs_shape(server: Server) -> None:
    assert httpx.get(f"{server.url}/model_info").json()["model_path"] == "m"
    assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["max_model_len"] == 131072
    assert httpx.get(f"{server.url}/v1/loads").json()["loads"][0]["num_running_reqs"] == 0
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'sglang:max_total_num_tokens{engine_type="unified",model_name="m"' in metrics


def test_the_vocabulary_can_be_asked_for_by_a_request_that_is_refused(server: Server) -> None:
    body = {"input_ids": [1], "return_logprob": True, "token_ids_logprob": [-1]}
    assert "valid range is [0, 128256)" in httpx.post(f"{server.url}/generate", json=body).text


def test_the_cache_is_flushed_when_idle_and_refused_when_busy_and_abort_ends_it(server: Server) -> None:
    assert httpx.get(f"{server.url}/flush_cache").text.startswith("Cache flushed.")
    body = {"input_ids": [1], "sampling_params": {"max_new_tokens": 100_000}, "stream": True}
    with httpx.stream("POST", f"{server.url}/generate", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        refused = httpx.post(f"{server.url}/flush_cache")
        assert (refused.status_code, refused.text) == (400, "Flush cache failed.\n")
        assert httpx.post(f"{server.url}/abort_request", json={"rid": "zzz"}).status_code == 200
        assert httpx.post(f"{server.url}/abort_request", json={}).status_code == 200
        assert httpx.post(f"{server.url}/abort_request", json={"abort_all": True}).status_code == 200
        assert '"type":"abort"' in "".join(lines)
    assert httpx.post(f"{server.url}/flush_cache").status_code == 200


def test_a_client_that_hangs_up_leaves_an_idle_engine(server: Server) -> None:
    body = {"input_ids": [1], "sampling_params": {"max_new_tokens": 100_000}, "stream": True}
    with httpx.stream("POST", f"{server.url}/generate", json=body) as response:
        next(response.iter_lines())
    give_up = time.monotonic() + PATIENCE_S
    while httpx.post(f"{server.url}/flush_cache").status_code != 200:
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_the_running_limit_can_be_lowered_live(server: Server) -> None:
    url = f"{server.url}/set_internal_state"
    assert httpx.post(url, json={"server_args": {"pp_max_micro_batch_size": 8}}).json() == [True]
    state = httpx.get(f"{server.url}/server_info").json()["internal_states"][0]
    assert state["pp_max_micro_batch_size"] == 8
    assert httpx.post(url, json={"server_args": {"pp_max_micro_batch_size": 2048}}).json() == [True]
    assert httpx.post(url, json={"server_args": {"chunked_prefill_size": 8}}).json() == [False]
    assert httpx.post(url, json={"x": 1}).status_code == 400


def test_sigterm_answers_what_was_taken_and_exits_with_zero(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        server.await_health()
        assert httpx.get(f"{server.url}/metrics").status_code == 404
        body = {"input_ids": [1], "sampling_params": {"max_new_tokens": 400}, "stream": True}
        with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=PATIENCE_S) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            assert '"completion_tokens":400' in "".join(lines)
        assert server.process.wait(PATIENCE_S) == 0
        log = server.text()
    assert "Prefill batch, #new-seq: 1, #new-token: 1, #cached-token: 0" in log
    assert "Decode batch, #running-req: 1, #token: " in log


def test_an_engine_that_sglang_would_kill_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "--mem-fraction-static", "0.1") as server:
        assert server.process.wait(PATIENCE_S) == -signal.SIGKILL
        assert "Loaded weights leave no GPU memory for the KV cache" in server.text()


def test_two_ranks_are_one_engine_and_end_together(tmp_path: Path) -> None:
    words = ("--tp", "2", "--nnodes", "2", "--dist-init-addr", f"127.0.0.1:{free_port()}")
    with (
        started(tmp_path, *words, "--node-rank", "0") as leader,
        started(tmp_path, *words, "--node-rank", "1") as follower,
    ):
        leader.await_health()
        follower.await_health()
        assert httpx.get(f"{follower.url}/server_info").status_code == 404
        answer = httpx.post(f"{leader.url}/generate", json={"text": "hello"})
        assert answer.json()["meta_info"]["completion_tokens"] == 128
        follower.process.send_signal(signal.SIGTERM)
        leader.process.send_signal(signal.SIGTERM)
        assert leader.process.wait(PATIENCE_S) == 0
        assert follower.process.wait(PATIENCE_S) == 0
        assert "terminated with 0" in follower.text()
