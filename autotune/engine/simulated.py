"""Launches simulated engines: a trial's launches, loads and stops cost virtual time and no GPU.

In: a launch plan, of which rank 0's argv counts. Out: a running engine whose address is an Endpoint in
virtual time, and logs in SGLang's words, marked as simulated. Talks to the trial's folder only.
Invariant: everything that a real launch would spend time on moves the virtual clock, failures included; the
noise of a launch depends on the launcher's seed and the plan's trial alone.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from autotune.engine.dialect import EffectiveFlags, LiveFlag, live_flag_for
from autotune.engine.dialects import dialect_of
from autotune.engine.launcher import Clock
from autotune.engine.plan import LaunchPlan
from autotune.failure import EngineError, EngineFailure, FailureKind, LiveRefusedError, StartPhase
from autotune.request import Endpoint, LoadResult, OfferedLoad, Onlooker
from autotune.simulator import log_text
from autotune.simulator.assembly import BatchLog, open_scheduler
from autotune.simulator.live import set_internal_state
from autotune.simulator.profile import Profile
from autotune.simulator.server_info import server_info
from autotune.simulator.startup import Ready, StageRun, StartFailure, plan_start, serving_failure
from autotune.simulator.turn import Turn, TurnKind
from autotune.simulator.virtual import VirtualEndpoint

_TAIL_LINES = 60


class VirtualClock:
    """Seconds that pass only when the simulation says so."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        """Return the virtual seconds since the launcher was made."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds

    def idle_until(self, moment_s: float) -> None:
        """Let time pass until a moment, if that is still to come."""
        self._now_s = max(self._now_s, moment_s)


class SimulatedLauncher:
    """Starts engines of one profile in virtual time."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._seed = seed
        self._clock = VirtualClock()

    @property
    def clock(self) -> Clock:
        """Virtual time; it goes on from launch to launch."""
        return self._clock

    @property
    def is_simulated(self) -> bool:
        """Its numbers come from a model."""
        return True

    def remove_leftovers(self, study: str) -> tuple[str, ...]:  # noqa: ARG002 - the protocol's signature
        """Find nothing: a simulated engine ends with its controller."""
        return ()

    @contextmanager
    def launch(
        self, plan: LaunchPlan, folder: Path, on_phase: Callable[[StartPhase], None]
    ) -> Iterator["SimulatedEngine"]:
        """Start the planned engine in virtual time, and charge its stop when the context ends.

        Raises:
            EngineError: the engine would not have become ready.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            logs = _Logs(plan, folder, self._clock, stack)
            launch = _Launch(self._profile, plan, self._clock, logs, seed=_seed_of(self._seed, plan))
            engine = launch.start(on_phase)
            try:
                yield engine
            finally:
                engine.stop()


class SimulatedEngine:
    """A started engine; its context is `SimulatedLauncher.launch`."""

    def __init__(self, launch: "_Launch", ready: Ready, phases_s: dict[StartPhase, float]) -> None:
        self._launch = launch
        self._dialect = dialect_of(launch.plan.engine)
        self._ready = ready
        self._phases_s = phases_s
        self._failure: EngineFailure | None = None
        self._scheduler = open_scheduler(launch.profile, ready, seed=launch.seed)
        self._log = BatchLog(self._scheduler, launch.logs.write)
        self._started_s = launch.clock.now_s()
        self._endpoint = VirtualEndpoint(
            self._scheduler, request_s=launch.profile.step.request_s, on_turn=self._observe
        )

    @property
    def effective(self) -> EffectiveFlags:
        """The resolved flags, read out of the page a real engine would have shown."""
        launch = self._launch
        startup_s = {phase.value: seconds for phase, seconds in self._phases_s.items()}
        page = server_info(launch.profile, self._ready, startup_s=startup_s)
        return self._dialect.parse_effective({**page, "version": launch.plan.version})

    @property
    def phases_s(self) -> dict[StartPhase, float]:
        """Virtual seconds of each start phase."""
        return self._phases_s

    @property
    def address(self) -> Endpoint:
        """The engine itself: it serves loads in virtual time."""
        return self

    def run(self, offered: OfferedLoad, onlooker: Onlooker | None = None) -> LoadResult:
        """Serve the load to its end, in virtual time."""
        return self._endpoint.run(offered, onlooker)

    def abort_requests(self) -> None:
        """Do nothing: what a load leaves behind ends with it."""

    def flush_cache(self) -> None:
        """Empty the prefix cache.

        Raises:
            EngineError: the engine is gone.
        """
        if self._failure is not None:
            raise EngineError(self._failure)
        self._scheduler.flush_cache()

    @property
    def live_flags(self) -> Mapping[str, LiveFlag]:
        """The flags that can be set on it."""
        return self._dialect.live_flags(self.effective)

    def set_live(self, name: str, value: int) -> EffectiveFlags:
        """Set one of `live_flags`, which costs no time; return what it runs with from now on.

        Raises:
            LiveRefusedError: it cannot be set so.
            EngineError: the engine is gone.
        """
        flag = live_flag_for(self.live_flags, name, value)
        if self._failure is not None:
            raise EngineError(self._failure)
        done = set_internal_state(self._scheduler, self._ready, flag.body(value))
        if not all(done):
            raise LiveRefusedError(f"{flag.known.path} answered {done} to {flag.body(value)}")
        return flag.applied_to(self.effective, value)

    def failure(self) -> EngineFailure | None:
        """Return why the engine died under load, None while it is healthy."""
        return self._failure

    def stop(self) -> None:
        """Charge the time of an orderly stop; a dead engine has had its own."""
        if self._failure is None:
            self._launch.clock.advance(self._launch.profile.start_up.stop_s)

    def _observe(self, turn: Turn) -> None:
        self._launch.clock.advance(self._started_s + turn.ended_s - self._launch.clock.now_s())
        self._log(turn)
        if turn.kind is TurnKind.DIED:
            new_tokens = sum(piece.new for piece in turn.pieces)
            failure = serving_failure(self._launch.profile, self._ready.capacity, new_tokens)
            self._failure = self._launch.die(failure)


class _Launch:
    """One launch on its way: it spends the time of each stage, and writes what the engine would."""

    def __init__(
        self, profile: Profile, plan: LaunchPlan, clock: VirtualClock, logs: "_Logs", *, seed: int
    ) -> None:
        self.profile = profile
        self.plan = plan
        self.clock = clock
        self.logs = logs
        self.seed = seed
        self._began_s = clock.now_s()

    def start(self, on_phase: Callable[[StartPhase], None]) -> SimulatedEngine:
        start = plan_start(self.profile, self.plan.ranks[0].argv, seed=self.seed)
        phases_s: dict[StartPhase, float] = {}
        for run in start.stages:
            on_phase(run.phase)
            self._pass_stage(run)
            phases_s[run.phase] = run.seconds
        if isinstance(start.outcome, StartFailure):
            raise EngineError(self.die(start.outcome))
        self.logs.write(log_text.FIRED_UP)
        on_phase(StartPhase.SERVING)
        return SimulatedEngine(self, start.outcome, phases_s)

    def die(self, failure: StartFailure) -> EngineFailure:
        """Write the end of the engine, charge its time, and return it as the launcher's kind of failure."""
        self.logs.write(failure.text)
        if failure.exit_code < 0:
            self.logs.write(log_text.CHILD_FAILED)
            self.clock.advance(self.profile.start_up.death_s)
        return self._failure(
            failure.kind,
            failure.phase,
            failure.line,
            exit_code=failure.exit_code,
            minimum=failure.minimum_mem_fraction,
        )

    def _pass_stage(self, run: StageRun) -> None:
        for line in run.lines:
            self.logs.write(line)
        left_s = self._began_s + self.plan.ready_timeout_s - self.clock.now_s()
        self.clock.advance(min(run.seconds, left_s))
        if run.seconds > left_s:
            line = f"not ready after {self.plan.ready_timeout_s:g} s"
            raise EngineError(self._failure(FailureKind.NOT_READY, run.phase, line))

    def _failure(
        self,
        kind: FailureKind,
        phase: StartPhase,
        line: str,
        *,
        exit_code: int | None = None,
        minimum: float | None = None,
    ) -> EngineFailure:
        return EngineFailure(
            kind=kind,
            phase=phase,
            line=line,
            exit_code=exit_code,
            waited_s=self.clock.now_s() - self._began_s,
            log_tail=tuple(self.logs.tail),
            minimum_mem_fraction=minimum,
        )


class _Logs:
    """The log of every rank; ranks above 0 only say that they are there."""

    def __init__(self, plan: LaunchPlan, folder: Path, clock: VirtualClock, stack: ExitStack) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._clock = clock
        files = [
            stack.enter_context((folder / f"engine-rank{rank.rank}.log").open("w", encoding="utf-8"))
            for rank in plan.ranks
        ]
        self._main: TextIO = files[0]
        for file in files[1:]:
            file.write(f"{self._stamp()}{log_text.NOTICE}\n")

    def write(self, text: str) -> None:
        line = f"{self._stamp()}{text}"
        self._main.write(f"{line}\n")
        self.tail.extend(line.splitlines())

    def _stamp(self) -> str:
        minutes, seconds = divmod(int(self._clock.now_s()), 60)
        hours, minutes = divmod(minutes, 60)
        return f"[simulated {hours:02d}:{minutes:02d}:{seconds:02d}] "


def _seed_of(seed: int, plan: LaunchPlan) -> int:
    trial = dict(plan.labels).get("autotune.trial", "")
    return int.from_bytes(hashlib.sha256(f"{seed} {trial}".encode()).digest()[:8], "big")
