import asyncio
import importlib.machinery
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from autotune.load import bodies
from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.health import invalid_reason
from autotune.load.workload import Workload, offer, with_prompts
from autotune.request import (
    LoadResult,
    OfferedLoad,
    Request,
    RequestFailureKind,
    RequestPhase,
    RequestRecord,
)
from tests.support.played import HEAD, chunked, events
from tests.support.raw_server import raw_server
from tests.support.sse_server import Fault, Script, SseServer, serving

RANDOM = Workload(input_tokens=12, output_tokens=6)
FOUR = LoadPoint(concurrency=2, requests=4)


def endpoint(url: str, workload: Workload = RANDOM, **more: Any) -> HttpEndpoint:
    return HttpEndpoint(url, workload, model="tiny", vocabulary_size=1000, **more)


def run_on(
    server: SseServer, point: LoadPoint = FOUR, workload: Workload = RANDOM, **more: Any
) -> LoadResult:
    return endpoint(server.url, workload, **more).run(offer(workload, point, salt=1))


def until(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return condition()


def is_ordered(record: RequestRecord) -> bool:
    sent_s = -1.0 if record.sent_s is None else record.sent_s
    times_s = [record.scheduled_s, sent_s, *record.chunk_times_s.tolist(), record.ended_s]
    return times_s == sorted(times_s)


@pytest.mark.parametrize("path", ["generate", "completions"])
def test_random_prompts_arrive_with_exact_lengths_and_all_tokens_are_counted(path: str) -> None:
    workload = Workload.model_validate(
        {"input_tokens": {"uniform": [5, 9]}, "output_tokens": {"uniform": [1, 7]}, "endpoint": path}
    )
    asked = with_prompts(
        offer(workload, LoadPoint(concurrency=3, requests=9), salt=4), workload, vocabulary_size=1000
    )
    with serving() as server:
        result = endpoint(server.url + "/", workload).run(asked)
    key = "input_ids" if path == "generate" else "prompt"
    assert sorted(tuple(seen.body[key]) for seen in server.seen) == sorted(
        request.token_ids or () for request in asked.requests
    )
    for request, record in zip(asked.requests, result.records, strict=True):
        assert record.failure is None
        assert (record.index, record.input_tokens) == (request.index, request.input_tokens)
        assert record.output_tokens == request.output_tokens == record.chunk_tokens.sum()
        assert is_ordered(record)


@pytest.mark.parametrize("path", ["generate", "completions", "chat"])
def test_texts_of_a_dataset_go_to_every_endpoint(path: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "tell me"}\n{"prompt": "a story"}\n', encoding="utf-8")
    workload = Workload.model_validate(
        {"dataset": tmp_path / "a.jsonl", "output_tokens": 5, "endpoint": path}
    )
    with serving() as server:
        result = run_on(server, workload=workload)
    assert [record.output_tokens for record in result.records] == [5] * 4
    assert all(record.failure is None and record.cached_tokens in {2, 3} for record in result.records)
    texts = Counter(
        seen.body["messages"][0]["content"]
        if path == "chat"
        else seen.body.get("text", seen.body.get("prompt"))
        for seen in server.seen
    )
    assert texts == {"tell me": 2, "a story": 2}


def test_the_clients_times_are_those_of_the_server() -> None:
    with serving(Script(ttft_s=0.1, itl_s=0.02)) as server:
        result = run_on(server, LoadPoint(concurrency=4, requests=4))
    truths = sorted(seen.token_times_s[0] - seen.arrived_s for seen in server.seen)
    ttfts = sorted((record.first_token_s or 0) - (record.sent_s or 0) for record in result.records)
    assert ttfts == pytest.approx(truths, abs=0.25)
    for record in result.records:
        assert is_ordered(record)
        assert record.chunk_tokens.tolist() == [1] * 6
        assert np.diff(record.chunk_times_s).sum() == pytest.approx(5 * 0.02, abs=0.25)
    assert result.client is not None
    assert result.client.peak_in_flight == server.peak_in_flight == 4
    assert result.client.cpu_ratio > 0


def test_a_slot_keeps_its_connection() -> None:
    with serving() as server:
        result = run_on(server, LoadPoint(concurrency=2, requests=12))
    assert server.connections == 2
    assert len(result.records) == 12


def test_a_server_that_closes_after_each_answer_is_connected_to_again() -> None:
    with serving(Script(faults=[Fault.CLOSE])) as server:
        result = run_on(server)
    assert server.connections == 4
    assert all(record.failure is None for record in result.records)


def test_a_closed_loop_of_a_duration_ends_with_what_was_in_flight() -> None:
    point = LoadPoint(concurrency=2, duration_s=0.3)
    with serving(Script(itl_s=0.005)) as server:
        result = run_on(server, point)
    assert len(result.records) == len(server.seen) > 2
    assert [record.index for record in result.records] == list(range(len(result.records)))
    assert all(record.failure is None for record in result.records)
    assert max(record.scheduled_s for record in result.records) < 0.3
    assert invalid_reason(result, offer(RANDOM, point, salt=1)) is None


def test_an_open_loop_sends_on_schedule_however_slow_the_server() -> None:
    workload = Workload(input_tokens=3, output_tokens=2)
    load = offer(workload, LoadPoint(rate=100, requests=8), salt=1)
    with serving(Script(ttft_s=0.5)) as server:
        result = endpoint(server.url, workload).run(load)
    assert [record.scheduled_s for record in result.records] == [request.due_s for request in load.requests]
    assert all(record.failure is None and is_ordered(record) for record in result.records)
    assert server.peak_in_flight == 8


@pytest.mark.parametrize(
    ("fault", "kind", "phase", "message"),
    [
        (Fault.STATUS, RequestFailureKind.HTTP_STATUS, RequestPhase.HEADERS, "HTTP 500: {"),
        (Fault.REDIRECT, RequestFailureKind.HTTP_STATUS, RequestPhase.HEADERS, "HTTP 302: elsewhere"),
        (Fault.LONG_ERROR_PAGE, RequestFailureKind.HTTP_STATUS, RequestPhase.HEADERS, "HTTP 404: <p>"),
        (Fault.NOT_A_STREAM, RequestFailureKind.PROTOCOL, RequestPhase.HEADERS, "application/json"),
        (Fault.DROPPED, RequestFailureKind.CONNECTION, RequestPhase.HEADERS, "disconnected"),
        (Fault.SLOW_HEADERS, RequestFailureKind.TIMEOUT, RequestPhase.HEADERS, "within 0.3 s"),
        (Fault.HANG_AT_FIRST, RequestFailureKind.TIMEOUT, RequestPhase.FIRST_TOKEN, "within 0.3 s"),
        (Fault.HANG_IN_STREAM, RequestFailureKind.TIMEOUT, RequestPhase.STREAM, "within 0.3 s"),
        (Fault.CUT, RequestFailureKind.CUT_STREAM, RequestPhase.STREAM, "peer closed"),
        (Fault.CLEAN_CUT, RequestFailureKind.CUT_STREAM, RequestPhase.STREAM, "after 3 tokens"),
        (Fault.IN_STREAM_ERROR, RequestFailureKind.IN_STREAM_ERROR, RequestPhase.STREAM, "CUDA error"),
        (Fault.ABORT, RequestFailureKind.ABORTED, RequestPhase.STREAM, "was aborted"),
        (Fault.SHORT, RequestFailureKind.PROTOCOL, RequestPhase.STREAM, "6 output tokens were asked and 3"),
        (Fault.SHORT_CUT_AFTER_DONE, RequestFailureKind.PROTOCOL, RequestPhase.STREAM, "and 3 came"),
    ],
)
def test_a_failure_has_its_kind_its_phase_and_what_the_server_said(
    fault: Fault, kind: RequestFailureKind, phase: RequestPhase, message: str
) -> None:
    with serving(Script(faults=[fault])) as server:
        result = run_on(server, LoadPoint(concurrency=1, requests=1), request_timeout_s=0.3)
    (record,) = result.records
    assert record.failure is not None
    assert (record.failure.kind, record.failure.phase) == (kind, phase)
    assert message in record.failure.message
    assert len(record.failure.message) < 300
    assert (record.first_token_s is not None) == (phase is RequestPhase.STREAM)
    assert is_ordered(record)


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER_DONE, Fault.HANG_AFTER_DONE])
def test_an_answer_that_was_whole_before_its_connection_broke_is_good(fault: Fault) -> None:
    with serving(Script(faults=[fault])) as server:
        result = run_on(server, LoadPoint(concurrency=2, requests=2))
    assert [(record.failure, record.output_tokens) for record in result.records] == [(None, 6)] * 2


def test_failures_are_counted_beside_the_good_ones_and_nothing_is_sent_twice() -> None:
    with serving(Script(faults=[Fault.NONE, Fault.STATUS, Fault.CUT])) as server:
        result = run_on(server, LoadPoint(concurrency=3, requests=12))
    kinds = Counter(record.failure.kind if record.failure else None for record in result.records)
    assert kinds == {None: 4, RequestFailureKind.HTTP_STATUS: 4, RequestFailureKind.CUT_STREAM: 4}
    assert len(server.seen) == 12


def test_a_server_that_is_not_there_refuses_the_connection() -> None:
    with serving() as server:
        pass
    result = run_on(server)
    failures = [record.failure for record in result.records if record.failure]
    assert [(failure.kind, failure.phase) for failure in failures] == [
        (RequestFailureKind.CONNECTION, RequestPhase.CONNECT)
    ] * 4
    assert all(record.sent_s is None for record in result.records)


def test_an_https_url_of_a_server_that_speaks_no_tls_times_out_while_connecting() -> None:
    with serving() as server:
        url = server.url.replace("http:", "https:")
        load = offer(RANDOM, LoadPoint(concurrency=1, requests=1), salt=0)
        result = endpoint(url, request_timeout_s=0.3).run(load)
    assert result.records[0].failure is not None
    assert result.records[0].failure.kind is RequestFailureKind.TIMEOUT
    assert result.records[0].failure.phase is RequestPhase.CONNECT
    assert server.seen == []


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with serving() as server:
        result = run_on(server)
    assert all(record.failure is None for record in result.records)


def test_an_engine_that_dies_ends_the_run_and_its_requests_are_stopped() -> None:
    with serving(Script(faults=[Fault.HANG_IN_STREAM])) as server:
        result = run_on(server, LoadPoint(concurrency=3, requests=50), is_alive=lambda: len(server.seen) < 3)
        assert until(lambda: server.open_connections == 0)
    failures = [record.failure for record in result.records if record.failure]
    assert len(failures) == len(result.records) == 3
    assert {failure.kind for failure in failures} == {RequestFailureKind.STOPPED}
    assert {failure.phase for failure in failures} <= {RequestPhase.FIRST_TOKEN, RequestPhase.STREAM}


def test_a_server_that_goes_silent_ends_the_run_and_the_result_says_for_how_long() -> None:
    with serving(Script(faults=[Fault.HANG_IN_STREAM])) as server:
        result = run_on(server, LoadPoint(concurrency=2, requests=50), silence_limit_s=0.3)
    assert result.silent_s is not None
    assert 0.3 < result.silent_s < 30
    failures = [record.failure for record in result.records if record.failure]
    assert [failure.kind for failure in failures] == [RequestFailureKind.STOPPED] * 2


def test_a_server_that_never_answers_at_all_is_silent_too() -> None:
    with serving(Script(faults=[Fault.SLOW_HEADERS])) as server:
        result = run_on(server, LoadPoint(rate=20, requests=60), silence_limit_s=0.3)
    assert result.silent_s is not None
    assert len(result.records) < 60


def test_slow_answers_and_pauses_between_requests_are_no_silence() -> None:
    load = offer(RANDOM, LoadPoint(rate=2, arrivals="constant", requests=3), salt=1)
    with serving(Script(ttft_s=0.2, itl_s=0.02)) as server:
        result = endpoint(server.url, silence_limit_s=0.4).run(load)
    assert result.silent_s is None
    assert all(record.failure is None for record in result.records)


def test_nonsense_in_a_stream_that_stays_open_is_noticed_while_it_is_open() -> None:
    def answer(sock: socket.socket) -> bool:
        sock.sendall(HEAD + b"\r\ndata: nonsense\n\n")
        sock.recv(1)
        return False

    with raw_server(answer) as server:
        result = endpoint(server.url).run(offer(RANDOM, LoadPoint(concurrency=1, requests=1), salt=1))
    assert result.records[0].failure is not None
    assert "is not JSON" in result.records[0].failure.message


def test_the_key_of_an_api_is_sent_and_never_shown() -> None:
    def answer(sock: socket.socket) -> bool:
        sock.sendall(chunked(events(6)))
        return True

    with raw_server(answer) as server:
        secret = endpoint(server.url, headers={"Authorization": "Bearer s3cret"})
        result = secret.run(offer(RANDOM, FOUR, salt=1))
    assert all(record.failure is None for record in result.records)
    assert [b"authorization: bearer s3cret" in head.lower() for head in server.heads] == [True] * 4
    assert "s3cret" not in repr(vars(secret))


def test_a_client_that_is_starved_of_cpu_says_so() -> None:
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            pass

    interval_s = sys.getswitchinterval()
    burning = [threading.Thread(target=burn) for _ in range(4)]
    load = offer(RANDOM, LoadPoint(concurrency=2, requests=4), salt=1)
    with serving(Script(ttft_s=0.1, itl_s=0.02)) as server:
        sys.setswitchinterval(0.05)
        for thread in burning:
            thread.start()
        result = endpoint(server.url).run(load)
        stop.set()
        sys.setswitchinterval(interval_s)
        for thread in burning:
            thread.join()
    assert all(record.failure is None for record in result.records)
    assert "the load generator ran" in (invalid_reason(result, load) or "")


def test_an_error_of_the_watch_is_not_swallowed() -> None:
    def is_alive() -> bool:
        raise RuntimeError("the watch broke")

    with serving(Script(faults=[Fault.SLOW_HEADERS])) as server, pytest.raises(RuntimeError, match="watch"):
        run_on(server, is_alive=is_alive)


def test_ctrl_c_closes_every_connection_before_it_is_raised() -> None:
    with serving(Script(faults=[Fault.HANG_AT_FIRST])) as server:

        def interrupt() -> None:
            until(lambda: server.in_flight == 3)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run_on(server, LoadPoint(concurrency=3, requests=9))
        thread.join()
        assert until(lambda: server.open_connections == 0)


def test_running_out_of_files_is_the_generators_own_failure() -> None:
    script = """
        import resource, sys
        from autotune.errors import LoadError
        from autotune.load.arrivals import LoadPoint
        from autotune.load.client import HttpEndpoint
        from autotune.load.workload import Workload, offer
        workload = Workload(input_tokens=3, output_tokens=3)
        load = offer(workload, LoadPoint(concurrency=60, requests=60), salt=0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
        try:
            HttpEndpoint(sys.argv[1], workload, model="tiny", vocabulary_size=100).run(load)
        except LoadError as error:
            print(error)
    """
    with serving(Script(faults=[Fault.HANG_AT_FIRST])) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert "ran out of a resource of its own" in done.stdout
    assert "Too many open files" in done.stdout


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        endpoint("localhost:30000")


def test_nothing_to_send_is_a_result_without_records() -> None:
    with serving() as server:
        result = endpoint(server.url).run(OfferedLoad((), 3))
    assert result.records == ()
    assert server.connections == 0


def test_bodies_beyond_the_budget_are_made_when_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_READY_BYTES", 1_000_000)
    texts = [letter * 600_000 for letter in "abcd"]
    load = OfferedLoad([Request(number, 1, 6, text=text) for number, text in enumerate(texts)], 1)
    with serving() as server:
        result = endpoint(server.url).run(load)
    assert [seen.body["text"] for seen in server.seen] == texts
    assert all(record.failure is None and is_ordered(record) for record in result.records)


def test_uvloop_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def new_event_loop() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[-1]

    module = ModuleType("uvloop")
    module.__spec__ = importlib.machinery.ModuleSpec("uvloop", None)
    module.__dict__["new_event_loop"] = new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", module)
    with serving() as server:
        result = run_on(server)
    assert len(made) == 1
    assert all(record.failure is None for record in result.records)


@pytest.mark.parametrize("processes", [1, 2])
def test_progress_is_told_while_it_lasts(processes: int) -> None:
    told: list[int] = []
    with serving(Script(itl_s=0.1)) as server:
        run_on(server, LoadPoint(concurrency=2, requests=4), on_progress=told.append, processes=processes)
    assert told == sorted(told)
    assert 0 < max(told) <= 4
