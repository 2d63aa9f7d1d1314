import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np
import psutil
import pytest

from autotune.errors import LoadError
from autotune.load import crew
from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.workload import Workload, offer, with_prompts
from tests.support.played import chunked, events
from tests.support.raw_server import raw_server
from tests.support.sse_server import Fault, Script, SseServer, serving

WORKLOAD = Workload.model_validate({"input_tokens": {"uniform": [5, 30]}, "output_tokens": 4})


def endpoint(url: str, processes: int, **more: object) -> HttpEndpoint:
    return HttpEndpoint(url, WORKLOAD, model="m", vocabulary_size=999, processes=processes, **more)  # type: ignore[arg-type]  # passed on


def until(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return condition()


def workers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "autotune.load.worker" in each.cmdline()]


def prompts(server: SseServer) -> list[tuple[int, ...]]:
    return sorted(tuple(seen.body["input_ids"]) for seen in server.seen)


def test_several_processes_offer_what_one_does() -> None:
    point = LoadPoint(concurrency=5, requests=23)
    offered = with_prompts(offer(WORKLOAD, point, salt=2), WORKLOAD, vocabulary_size=999)
    with serving() as server:
        one = endpoint(server.url, 1).run(offered)
    with serving() as second:
        two = endpoint(second.url, 2).run(offered)
    assert prompts(server) == prompts(second)
    assert [record.index for record in two.records] == [record.index for record in one.records]
    assert all(record.failure is None and record.output_tokens == 4 for record in two.records)
    assert two.client is not None
    assert two.client.processes == 2
    assert not workers()


@pytest.mark.slow
def test_a_result_larger_than_a_sockets_buffer_comes_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def small_pipe() -> tuple[Connection, Connection]:
        ends = Pipe()
        for end in ends:
            with socket.socket(fileno=os.dup(end.fileno())) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return ends

    def answer(sock: socket.socket) -> bool:
        sock.sendall(chunked(events(4)))
        return True

    monkeypatch.setattr(crew, "Pipe", small_pipe)
    with raw_server(answer) as server:
        result = endpoint(server.url, 2).run(offer(WORKLOAD, LoadPoint(concurrency=4, requests=300), salt=1))
    assert len(pickle.dumps(result.records[::2])) > 4 * 4096
    assert [record.index for record in result.records if record.failure is None] == list(range(300))


def test_all_processes_count_from_one_beginning_on_one_clock() -> None:
    point = LoadPoint(rate=100, arrivals="constant", requests=30)
    before_s = time.monotonic()
    with serving() as server:
        result = endpoint(server.url, 2).run(offer(WORKLOAD, point, salt=2))
    began_s = (result.began_ns or 0) / 1e9
    assert before_s < began_s < time.monotonic()
    sent_s = sorted(began_s + (record.sent_s or 0) for record in result.records)
    arrived_s = sorted(seen.arrived_s for seen in server.seen)
    assert sent_s == pytest.approx(arrived_s, abs=0.5)
    assert [record.scheduled_s for record in result.records] == pytest.approx(np.arange(30) / 100)


def test_a_worker_that_dies_ends_the_load_and_the_others() -> None:
    with serving(Script(faults=[Fault.HANG_AT_FIRST])) as server:

        def kill() -> None:
            until(lambda: server.in_flight == 4)
            workers()[0].kill()

        killing = threading.Thread(target=kill)
        killing.start()
        with pytest.raises(LoadError, match=r"died \(exit status -9\)"):
            endpoint(server.url, 2).run(offer(WORKLOAD, LoadPoint(concurrency=4, requests=9), salt=0))
        killing.join()
        assert not workers()
        assert until(lambda: server.open_connections == 0)


def test_ctrl_c_ends_every_worker_before_it_is_raised() -> None:
    with serving(Script(faults=[Fault.HANG_AT_FIRST])) as server:

        def interrupt() -> None:
            until(lambda: server.in_flight == 4)
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            endpoint(server.url, 2).run(offer(WORKLOAD, LoadPoint(concurrency=4, requests=9), salt=0))
        interrupting.join()
        assert not workers()
        assert until(lambda: server.open_connections == 0)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them() -> None:
    script = """
        import sys
        from autotune.load.arrivals import LoadPoint
        from autotune.load.client import HttpEndpoint
        from autotune.load.workload import Workload, offer
        workload = Workload(input_tokens=3, output_tokens=3)
        load = offer(workload, LoadPoint(concurrency=4, requests=4), salt=0)
        HttpEndpoint(sys.argv[1], workload, model="m", vocabulary_size=100, processes=2).run(load)
    """
    with serving(Script(faults=[Fault.HANG_AT_FIRST])) as server:
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), server.url], stderr=subprocess.DEVNULL
        ) as starter:
            assert until(lambda: server.in_flight == 4)
            starter.kill()
        assert until(lambda: server.open_connections == 0)


@pytest.mark.slow
def test_a_silence_of_all_workers_ends_the_load() -> None:
    with serving(Script(faults=[Fault.HANG_IN_STREAM])) as server:
        result = endpoint(server.url, 2, silence_limit_s=0.5).run(
            offer(WORKLOAD, LoadPoint(concurrency=2, requests=9), salt=0)
        )
    assert (result.silent_s or 0) > 0.5
    assert len(result.records) == 2


@pytest.mark.slow
def test_a_limit_that_a_worker_meets_is_the_generators_own_failure() -> None:
    script = """
        import resource, sys
        from autotune.errors import LoadError
        from autotune.load.arrivals import LoadPoint
        from autotune.load.client import HttpEndpoint
        from autotune.load.workload import Workload, offer
        workload = Workload(input_tokens=3, output_tokens=3)
        load = offer(workload, LoadPoint(concurrency=120, requests=120), salt=0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        try:
            HttpEndpoint(sys.argv[1], workload, model="m", vocabulary_size=100, processes=2).run(load)
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
