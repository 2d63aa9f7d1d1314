"""A launcher whose engines do what a script says, in virtual time, for the logic of trials and the loop."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autotune.engine.dialect import EffectiveFlags, live_flag_for
from autotune.engine.launcher import RunningEngine
from autotune.engine.plan import LaunchPlan
from autotune.engine.sglang import SGLANG
from autotune.failure import EngineError, EngineFailure, FailureKind, LiveRefusedError, StartPhase
from autotune.request import ClientHealth, LoadResult, OfferedLoad, Onlooker, RequestRecord, first_ended
from autotune.space import FlagValue
from tests.support.records import record

CRASH = EngineFailure(kind=FailureKind.CRASHED, phase=StartPhase.SERVING, line="Segmentation fault")
NO_KV = EngineFailure(kind=FailureKind.NO_KV_MEMORY, phase=StartPhase.KV_POOL, line="Not enough memory.")
NOT_READY = EngineFailure(kind=FailureKind.NOT_READY, phase=StartPhase.WEIGHTS, line="not ready")


@dataclass(frozen=True)
class Script:
    """What one launch does.

    It is ready after `start_s`, or given up after the plan's time-out. `raises` is raised under load; `dies`
    makes the engine dead after its load; `silent_s` makes it fall silent under load; `client` is the
    generator's own view of the first `overloaded_runs` loads; from load `failing_from` on all requests fail.
    With a `running_limit` it can be changed live, after which all takes `slower_live` times as long. It dies
    after more than `dies_after` loads.
    """

    start_s: float = 60.0
    silent_s: float | None = None
    failing_from: int | None = None
    ttft_s: float = 0.5
    gap_s: float = 0.1
    start_failure: EngineFailure | None = None
    dies: EngineFailure | None = None
    raises: BaseException | None = None
    client: ClientHealth | None = None
    overloaded_runs: int = 1000
    resolves: dict[str, FlagValue] = field(default_factory=dict)
    running_limit: int | None = None
    refuses_live: bool = False
    slower_live: float = 1.0
    dies_after: int = 0


class VirtualClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now_s(self) -> float:
        return self.seconds

    def idle_until(self, moment_s: float) -> None:
        self.seconds = max(self.seconds, moment_s)


class ScriptedEngine:
    """Serves every request of a closed loop with the same times; keeps a log of what was done to it."""

    def __init__(
        self, script: Script, flags: dict[str, FlagValue], clock: VirtualClock, log: list[str]
    ) -> None:
        self._script = script
        self._clock = clock
        self._log = log
        self._runs = 0
        self._slower = 1.0
        self.effective = EffectiveFlags(
            flags={**flags, **script.resolves}, kv_tokens=1000, running_limit=script.running_limit
        )
        self.live_flags = SGLANG.live_flags(self.effective)
        self.phases_s = {StartPhase.WEIGHTS: 50.0, StartPhase.WARM_UP: 10.0}

    @property
    def address(self) -> "ScriptedEngine":
        return self

    def flush_cache(self) -> None:
        self._log.append("flush")

    def abort_requests(self) -> None:
        self._log.append("abort")

    def set_live(self, name: str, value: int) -> EffectiveFlags:
        self._log.append(f"live {value}")
        if self._script.refuses_live:
            raise LiveRefusedError("[false]")
        self._slower = self._script.slower_live
        return live_flag_for(self.live_flags, name, value).applied_to(self.effective, value)

    def failure(self) -> EngineFailure | None:
        return self._script.dies if self._runs > self._script.dies_after else None

    def run(self, offered: OfferedLoad, onlooker: Onlooker | None = None) -> LoadResult:
        self._log.append(f"load {len(offered.requests)}")
        if self._script.raises is not None:
            raise self._script.raises
        self._runs += 1
        records = self._serve(offered)
        records = _seen_enough_of(records, onlooker) or records
        self._clock.seconds += max(each.ended_s for each in records)
        overloaded = self._runs <= self._script.overloaded_runs
        client = self._script.client if overloaded else None
        return LoadResult(tuple(records), client, silent_s=self._script.silent_s)

    def _serve(self, offered: OfferedLoad) -> list[RequestRecord]:
        failing_from = self._script.failing_from
        is_failing = failing_from is not None and self._runs > failing_from
        free = [0.0] * (offered.concurrency or len(offered.requests))
        records = []
        for request in offered.requests:
            slot = free.index(min(free))
            first = self._slower * self._script.ttft_s
            last = first + self._slower * self._script.gap_s
            chunks = [(first, 1), (last, request.output_tokens - 1)][: request.output_tokens]
            records.append(record(request.index, sent_s=free[slot], chunks=chunks, failed=is_failing))
            free[slot] += last
        return records


def _seen_enough_of(records: list[RequestRecord], onlooker: Onlooker | None) -> list[RequestRecord]:
    """Return what had ended when the onlooker had seen enough; nothing if it never had."""
    while onlooker is not None and onlooker.next_look is not None:
        first = first_ended(records, math.inf, onlooker.next_look)
        if first is None:
            break
        if onlooker.is_decided(first):
            return list(first)
    return []


class ScriptedLauncher:
    """Launches what `script` returns for the flags of rank 0 and the number of the launch, from 0."""

    is_simulated = True

    def __init__(self, script: Callable[[dict[str, str], int], Script]) -> None:
        self._script = script
        self.clock = VirtualClock()
        self.log: list[str] = []
        self.launches: list[dict[str, str]] = []

    def remove_leftovers(self, study: str) -> tuple[str, ...]:
        self.log.append(f"leftovers {study}")
        return ()

    @contextmanager
    def launch(
        self, plan: LaunchPlan, folder: Path, on_phase: Callable[[StartPhase], None]
    ) -> Iterator[RunningEngine]:
        assert folder.is_dir()
        flags = flags_of(plan.ranks[0].argv)
        script = self._script(flags, len(self.launches))
        self.launches.append(flags)
        self.log.append("launch")
        on_phase(StartPhase.WEIGHTS)
        self.clock.seconds += min(script.start_s, plan.ready_timeout_s)
        try:
            if script.start_s > plan.ready_timeout_s:
                raise EngineError(NOT_READY)
            if script.start_failure is not None:
                raise EngineError(script.start_failure)
            yield ScriptedEngine(script, dict(flags), self.clock, self.log)
        finally:
            self.clock.seconds += 5.0
            self.log.append("teardown")


def flags_of(argv: tuple[str, ...]) -> dict[str, str]:
    """Return flag to value of an argv of `--flag value` pairs; a flag without a value is 'true'."""
    flags: dict[str, str] = {}
    words = iter([*argv, "--"])
    name = None
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            flags[name] = "true"
        elif name is not None:
            flags[name] = word
    flags.pop("", None)
    return flags
