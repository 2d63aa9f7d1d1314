import asyncio
import os
import signal
import socket
from collections.abc import Callable

import pytest

from autotune.request import Request
from autotune.simulator.life import Engine, HttpFront
from autotune.simulator.pace import Pacemaker
from autotune.simulator.profile import Profile
from autotune.simulator.rendezvous import meet
from autotune.simulator.server import serve
from autotune.simulator.startup import Ready
from tests.support.ports import free_port
from tests.support.simulated import DEEPSEEK, LLAMA, profile_without_noise


class FakeFront:
    def __init__(self, pacemaker: Pacemaker | None) -> None:
        self.pacemaker = pacemaker
        self.is_open = asyncio.Event()
        self.is_stopped = asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        with listener:
            await self.is_stopped.wait()

    def open(self) -> None:
        self.is_open.set()

    def stop(self) -> None:
        self.is_stopped.set()


class FakeFronts:
    def __init__(self) -> None:
        self.made: asyncio.Queue[FakeFront] = asyncio.Queue()

    def leader(
        self, profile: Profile, ready: Ready, pacemaker: Pacemaker, say: Callable[[str], None]
    ) -> HttpFront:
        assert ready.flags.node_rank == 0
        assert profile.name
        say("front made")
        return self._front(FakeFront(pacemaker))

    def follower(self) -> HttpFront:
        return self._front(FakeFront(None))

    def _front(self, front: FakeFront) -> FakeFront:
        self.made.put_nowait(front)
        return front


def engine_of(fronts: FakeFronts, name: str = LLAMA) -> Engine:
    return Engine(profile_without_noise(name), fronts, time_scale=1000.0, start_scale=0.0001)


def argv(port: int, *words: str) -> list[str]:
    return ["--model-path", "m", "--port", str(port), *words]


def test_rank_0_serves_until_sigterm_and_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> int:
        fronts = FakeFronts()
        living = asyncio.create_task(engine_of(fronts).run(argv(free_port())))
        front = await fronts.made.get()
        await front.is_open.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        return await living

    assert asyncio.run(main()) == 0
    log = capsys.readouterr().err
    begin, *_, end = log.splitlines()
    assert "SIMULATED ENGINE" in begin
    assert end.endswith("The server is fired up and ready to roll!")
    assert "Uvicorn running on http://127.0.0.1:" in log


def two_ranks(address: str, rank: int) -> list[str]:
    words = ("--tp", "2", "--nnodes", "2", "--node-rank", str(rank), "--dist-init-addr", address)
    return argv(free_port(), *words)


@pytest.mark.parametrize("is_told", [True, False])
def test_rank_1_ignores_sigterm_and_ends_when_rank_0_does(
    is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port()}"

    async def main() -> int:
        fronts = FakeFronts()
        living = asyncio.create_task(engine_of(fronts).run(two_ranks(address, 1)))
        rank_0 = await meet(address, rank=0, ranks=2, timeout_s=5)
        await fronts.made.get()
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert not living.done()
        await rank_0.close(say_shutdown=is_told)
        return await living

    assert asyncio.run(main()) == (0 if is_told else 1)
    log = capsys.readouterr().err
    assert " TP1] Dummy health check server started" in log
    assert "SIGTERM received on node_rank 1; waiting for the rank-0 ShutdownReq broadcast" in log


def test_rank_0_dies_when_it_loses_a_rank(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"

    async def main() -> int:
        fronts = FakeFronts()
        living = asyncio.create_task(engine_of(fronts).run(two_ranks(address, 0)))
        rank_1 = await meet(address, rank=1, ranks=2, timeout_s=5)
        front = await fronts.made.get()
        await front.is_open.wait()
        await rank_1.close()
        return await living

    assert asyncio.run(main()) == -9
    assert "NCCL error" in capsys.readouterr().err


def test_rank_0_says_shutdown_to_the_others() -> None:
    address = f"127.0.0.1:{free_port()}"

    async def main() -> tuple[int, bool]:
        fronts = FakeFronts()
        living = asyncio.create_task(engine_of(fronts).run(two_ranks(address, 0)))
        rank_1 = await meet(address, rank=1, ranks=2, timeout_s=5)
        front = await fronts.made.get()
        await front.is_open.wait()
        front.stop()
        was_told = await rank_1.first_loss()
        await rank_1.close()
        return await living, was_told

    assert asyncio.run(main()) == (0, True)


def test_a_rank_that_waits_in_vain_ends_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*two_ranks(f"127.0.0.1:{free_port()}", 1), "--dist-timeout", "1"]
    assert asyncio.run(engine_of(FakeFronts()).run(words)) == 1
    assert "DistNetworkError: The client socket has timed out after 1000ms" in capsys.readouterr().err


def test_a_port_in_use_is_found_when_it_is_to_be_bound(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert asyncio.run(engine_of(FakeFronts()).run(argv(port))) == 1
    assert (
        f"[Errno 98] error while attempting to bind on address ('127.0.0.1', {port}): address already in use"
        in capsys.readouterr().err
    )


def test_a_start_without_kv_memory_dies_by_sigkill(capsys: pytest.CaptureFixture[str]) -> None:
    words = argv(free_port(), "--mem-fraction-static", "0.15")
    assert asyncio.run(engine_of(FakeFronts()).run(words)) == -9
    log = capsys.readouterr().err
    assert "Scheduler hit an exception: Traceback" in log
    assert log.index("minimum viable = 1 - available/pre = 0.1921") < log.index(
        "Received sigquit from a child"
    )


def test_a_bad_argument_is_printed_plainly_and_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(profile_without_noise(), ["--model-path", "m", "--nope"], start_scale=0.0) == 2
    log = capsys.readouterr().err
    assert log.endswith("\nsglang serve: error: unrecognized arguments: --nope\n")


def test_an_engine_that_runs_out_of_memory_under_load_dies_by_sigkill(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def main() -> int:
        fronts = FakeFronts()
        words = argv(free_port(), "--tp", "16", "--mem-fraction-static", "0.84")
        living = asyncio.create_task(engine_of(fronts, DEEPSEEK).run(words))
        front = await fronts.made.get()
        await front.is_open.wait()
        assert front.pacemaker is not None
        await front.pacemaker.submit(Request(0, 8192, 1), ignores_eos=True)
        return await living

    assert asyncio.run(main()) == -9
    assert "torch.OutOfMemoryError: CUDA out of memory" in capsys.readouterr().err
