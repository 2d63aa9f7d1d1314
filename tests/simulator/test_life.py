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


@pytest.mark.parametrize("is_told", [True, False])
def test_rank_1_ignores_sigterm_and_ends_when_rank_0_does(
    is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    meeting = f"127.0.0.1:{free_port()}"
    words = ("--tp", "2", "--nnodes", "2", "--dist-init-addr", meeting)

    async def main() -> tuple[int, int]:
        leaders, followers = FakeFronts(), FakeFronts()
        leading = asyncio.create_task(
            engine_of(leaders).run(argv(free_port(), *words, "--node-rank", "0"))
        )
        leader = await _opened_after(leaders, engine_of(followers).run(argv(free_port(), *words, "--node-rank", "1")))
        following = leader[1]
        await followers.made.get()
        if is_told:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            assert not following.done()
            leader[0].stop()
            return await leading, await following
        leading.cancel()
        await asyncio.sleep(0)
        return -1, await _with_closed_peers(following)

    async def _opened_after(fronts: FakeFronts, other: object) -> tuple[FakeFront, asyncio.Task[int]]:
        following = asyncio.create_task(other)  # type: ignore[arg-type]
        front = await fronts.made.get()
        await front.is_open.wait()
        return front, following

    async def _with_closed_peers(following: asyncio.Task[int]) -> int:
        return await asyncio.wait_for(following, 5)

    codes = asyncio.run(main())
    assert codes == ((0, 0) if is_told else (-1, 1))
