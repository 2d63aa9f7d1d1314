"""The running limit set on a real SGLang beside a launch with it: most running at once, decode steps."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from autotune.engine.launch_watch import WatchedEngine
from autotune.engine.plan import plan_launch
from autotune.engine.process import ProcessLauncher
from autotune.failure import LiveRefusedError
from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.workload import Workload, offer
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.engine.launcher_contract import LIMIT, Phases
from tests.real_engine.cpu import SOCKET_VARIABLE
from tests.support.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

_WORKLOAD = Workload.model_validate({"input_tokens": 64, "output_tokens": 64, "seed": 5})
_BURST = LoadPoint(concurrency=24, requests=24)
_BURSTS = 3
_DECODE = re.compile(r"Decode batch.*#running-req: (\d+)")
_TUNE = {LIMIT: {"int": [1, 64]}}


@dataclass(frozen=True)
class Seen:
    """What the log tells of a burst: the most requests that ran at once, and how many passes it decoded."""

    peak: int
    steps: int


@dataclass
class Served:
    """A real engine with its log."""

    engine: WatchedEngine
    log: Path
    salt: int = 0

    def least_of_bursts(self) -> Seen:
        """Return what the tidiest burst needed: late arrivals only ever add decode steps."""
        return min((self._burst() for _ in range(_BURSTS)), key=lambda seen: seen.steps)

    def _burst(self) -> Seen:
        self.salt += 1
        self.engine.flush_cache()
        before = len(self._running())
        endpoint = HttpEndpoint(
            self.engine.address.base_url,
            _WORKLOAD,
            model="m",
            vocabulary_size=self.engine.address.vocabulary_size,
        )
        result = endpoint.run(offer(_WORKLOAD, _BURST, salt=self.salt))
        assert all(record.failure is None for record in result.records)
        self.engine.flush_cache()  # by then the last of its lines are written
        running = self._running()[before:]
        return Seen(peak=max(running), steps=len(running))

    def _running(self) -> list[int]:
        return [int(found) for found in _DECODE.findall(self.log.read_text())]


@pytest.fixture
def served_at(cpu_space: Callable[..., SearchSpace], preloaded: Path, tmp_path: Path) -> Callable[[int], Any]:
    @contextmanager
    def served(limit: int) -> Iterator[Served]:
        flags: dict[str, FlagValue] = {"decode-log-interval": 1}
        space = cpu_space(environment={SOCKET_VARIABLE: str(preloaded)}, flags=flags, tune=_TUNE)
        plan = plan_launch(
            space,
            Candidate.of({LIMIT: limit}),
            study=f"real-{os.getpid()}",
            trial="0001",
            port=free_port(),
            rendezvous_port=free_port(),
        )
        folder = tmp_path / str(limit)
        with ProcessLauncher().launch(plan, folder, Phases()) as engine:
            yield Served(engine, folder / "engine-rank0.log")

    return served


def test_a_limit_set_live_serves_as_a_launch_with_it_and_is_set_back(served_at: Callable[[int], Any]) -> None:
    with served_at(32) as served:
        wide = served.least_of_bursts()
        now = served.engine.set_live(LIMIT, 8)
        live = served.least_of_bursts()
        served.engine.set_live(LIMIT, 32)
        again = served.least_of_bursts()
    with served_at(8) as served:
        launched = served.least_of_bursts()

    print(f"at 32: {wide}; live 8: {live}; at 32 again: {again}; launched at 8: {launched}")
    assert (now.running_limit, now.flags[LIMIT]) == (8, 8)
    assert live == launched
    assert live.peak == 8
    assert wide.peak == again.peak == 24
    assert wide.steps < live.steps / 2


def test_what_it_was_not_launched_for_is_refused_although_the_status_is_200(
    served_at: Callable[[int], Any],
) -> None:
    with served_at(8) as served:
        body = {"server_args": {"pp_max_micro_batch_size": 9}}
        answer = httpx.post(f"{served.engine.address.base_url}/set_internal_state", json=body)
        assert (answer.status_code, answer.json()) == (200, [False])
        with pytest.raises(LiveRefusedError, match="max-running-requests 9 is not within 1 to 8"):
            served.engine.set_live(LIMIT, 9)
        assert served.engine.failure() is None
        assert served.least_of_bursts().peak == 8
