"""One launch of an engine as local processes, from its first process to the proof that nothing is left.

In: a launch plan. Out: readiness, phases, failures; then nothing. `process.py` gives it its lifetime.
Talks to the operating system and to the engine's control pages; only marked processes are ever killed.
"""

import itertools
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from autotune.engine.dialect import Dialect, EffectiveFlags
from autotune.engine.dialects import dialect_of
from autotune.engine.http_api import EngineApi, NoAnswerError
from autotune.engine.launcher import Clock
from autotune.engine.log_watch import LogWatch, is_later
from autotune.engine.plan import LaunchPlan, RankPlan
from autotune.engine.process_tree import (
    KEEP_ENVIRONMENT,
    MARK_VARIABLE,
    Mark,
    descendants,
    kill_until_gone,
    living,
    marked,
    names_of,
    port_holder,
)
from autotune.errors import InfrastructureError
from autotune.failure import EngineError, EngineFailure, FailureKind, StartPhase

# No model that is served has fewer tokens, and random prompts need no more.
_SAFE_VOCABULARY = 1000


class MonotonicClock:
    """Seconds of real time."""

    def now_s(self) -> float:
        """Return seconds since an arbitrary start."""
        return time.monotonic()


@dataclass(frozen=True)
class Patience:
    """How long a launcher waits for what.

    `cause_s`: for an engine to end after it logged why it must. `stop_s`: after SIGTERM, which SGLang
    answers within 10 s when idle; `stop_loading_s`: the same while it is not serving. `release_s`: for
    processes and ports to be gone after SIGKILL (SGLang's network.py knows of more than 30 s).
    `settle_s`: for the last of a dying engine's lines and processes.
    """

    poll_s: float = 0.1
    cause_s: float = 5.0
    settle_s: float = 0.3
    flush_s: float = 10.0
    stop_s: float = 20.0
    stop_loading_s: float = 3.0
    release_s: float = 60.0


@dataclass
class _Rank:
    plan: RankPlan
    process: subprocess.Popen[bytes]
    watch: LogWatch

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    @property
    def is_alive(self) -> bool:
        return self.exit_code is None


class Launch:
    """An engine's processes, their logs and its control pages."""

    def __init__(
        self,
        plan: LaunchPlan,
        folder: Path,
        on_phase: Callable[[StartPhase], None],
        clock: Clock,
        patience: Patience,
    ) -> None:
        self.plan = plan
        self.patience = patience
        self._dialect: Dialect = dialect_of(plan.engine)
        self.api = EngineApi(plan.base_url, self._dialect)
        self._folder = folder
        self._on_phase = on_phase
        self._clock = clock
        labels = dict(plan.labels)
        self._mark = Mark.of(labels["autotune.study"], labels["autotune.trial"])
        self._ranks: list[_Rank] = []
        self._entered_s: dict[StartPhase, float] = {}
        self._failure: EngineFailure | None = None

    # ---- start

    def start(self) -> None:
        """Start every rank.

        Raises:
            InfrastructureError: the command cannot be started.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._enter(StartPhase.PROCESS)
        for rank in self.plan.ranks:
            self._ranks.append(self._start_rank(rank))

    def _start_rank(self, rank: RankPlan) -> _Rank:
        log = self._folder / f"engine-rank{rank.rank}.log"
        environment = {
            **os.environ,
            **KEEP_ENVIRONMENT,
            **dict(rank.environment),
            MARK_VARIABLE: str(self._mark),
        }
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(  # noqa: S603 - argv comes from the user's own search space
                    rank.argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise InfrastructureError(f"{rank.argv[0]!r} cannot be started: {error.strerror}") from error
        watch = LogWatch(log, self._dialect.start_lines, self._dialect.failure_lines)
        return _Rank(rank, process, watch)

    def await_ready(self) -> None:
        """Wait until rank 0 answers.

        Raises:
            EngineError: a rank ended, logged a cause to end, or the time is over.
        """
        while not self.api.is_healthy():
            failure = self.failure() or self._overdue()
            if failure is not None:
                raise EngineError(failure)
            time.sleep(self.patience.poll_s)
        self._observe()
        self._enter(StartPhase.SERVING)
        for rank in self._ranks:
            rank.watch.advance(StartPhase.SERVING)

    def effective(self) -> EffectiveFlags:
        """Read the flags back.

        Raises:
            EngineError: the engine does not tell.
        """
        try:
            return self._dialect.parse_effective(self.api.info())
        except NoAnswerError as error:
            raise EngineError(self.failure_behind(error)) from error

    def vocabulary_size(self) -> int:
        """Return how many tokens the model knows, or a number below that if the engine does not tell.

        Raises:
            EngineError: the engine has died.
        """
        try:
            return self.api.vocabulary_size() or _SAFE_VOCABULARY
        except NoAnswerError as error:
            failure = self._failure_soon()
            if failure is not None:
                raise EngineError(failure) from error
            return _SAFE_VOCABULARY

    def phases_s(self) -> dict[StartPhase, float]:
        """Return the seconds spent in each phase that has ended."""
        starts = itertools.pairwise(self._entered_s.items())
        return {phase: following_s - entered_s for (phase, entered_s), (_, following_s) in starts}

    # ---- watch

    @property
    def _phase(self) -> StartPhase:
        return next(reversed(self._entered_s))

    @property
    def _is_serving(self) -> bool:
        return StartPhase.SERVING in self._entered_s

    def _waited_s(self) -> float:
        return self._clock.now_s() - self._entered_s[StartPhase.PROCESS]

    def _enter(self, phase: StartPhase) -> None:
        self._entered_s[phase] = self._clock.now_s()
        self._on_phase(phase)

    def _observe(self) -> None:
        for rank in self._ranks:
            for phase in rank.watch.read(self._clock.now_s()):
                # Serving begins when the health page says so, not when a log does.
                if is_later(phase, self._phase) and phase is not StartPhase.SERVING:
                    self._enter(phase)

    def failure(self) -> EngineFailure | None:
        """Return why the engine failed; the first answer stays."""
        if self._failure is None:
            self._observe()
            if self._has_ended() or self._should_have_ended():
                time.sleep(self.patience.settle_s)  # the other ranks' and children's last lines
                self._observe()
                self._failure = self._decided()
        return self._failure

    def _has_ended(self) -> bool:
        return any(not rank.is_alive for rank in self._ranks)

    def _should_have_ended(self) -> bool:
        latest_s = self._clock.now_s() - self.patience.cause_s
        seen_s = [rank.watch.cause_seen_s for rank in self._ranks]
        return any(seen is not None and seen < latest_s for seen in seen_s)

    def _decided(self) -> EngineFailure:
        """Let the rank speak that first logged a cause, else the one that ended."""

        def priority(rank: _Rank) -> tuple[float, bool, int]:
            seen_s = rank.watch.cause_seen_s
            return (float("inf") if seen_s is None else seen_s, rank.is_alive, rank.plan.rank)

        rank = min(self._ranks, key=priority)
        return rank.watch.failure(exit_code=rank.exit_code, rank=rank.plan.rank, waited_s=self._waited_s())

    def _overdue(self) -> EngineFailure | None:
        if self._waited_s() < self.plan.ready_timeout_s:
            return None
        is_meeting = self._phase is StartPhase.RENDEZVOUS
        kind = FailureKind.RENDEZVOUS_TIMEOUT if is_meeting else FailureKind.NOT_READY
        line = f"not ready after {self.plan.ready_timeout_s:g} s, still in phase {self._phase}"
        return self._described(kind, line)

    def failure_behind(self, error: NoAnswerError) -> EngineFailure:
        """Return why the engine did not answer: it died, or it lives and does not do as told."""
        return self._failure_soon() or self._described(FailureKind.HANG, str(error))

    def _failure_soon(self) -> EngineFailure | None:
        """Look twice: a dying engine closes its connections before it has ended."""
        if self.failure() is None:
            time.sleep(self.patience.settle_s)
        return self.failure()

    def _described(self, kind: FailureKind, line: str) -> EngineFailure:
        tail = tuple(self._ranks[0].watch.tail)
        return EngineFailure(
            kind=kind, phase=self._phase, line=line, waited_s=self._waited_s(), log_tail=tail
        )

    # ---- stop

    def stop(self) -> None:
        """End everything, politely first.

        Raises:
            InfrastructureError: a process or a port survived.
        """
        family = [child for rank in self._ranks for child in descendants(rank.process.pid)]
        if self._is_serving and not self._has_ended():
            with suppress(NoAnswerError):  # it is about to be stopped anyway
                self.api.abort_all()
        self.api.close()
        self._ask_to_stop()

        def survivors() -> list[psutil.Process]:
            return living({*family, *marked(lambda mark: mark == self._mark)})

        left = kill_until_gone(survivors, self.patience.release_s)
        for rank in self._ranks:
            self._reap(rank)
        self._prove_gone(left)

    def _ask_to_stop(self) -> None:
        """Rank 0 goes first: the others ignore SIGTERM until it has told them (SGLang, engine.py:1262)."""
        is_well = self._is_serving and not self._has_ended()
        patience_s = self.patience.stop_s if is_well else self.patience.stop_loading_s
        for rank in self._ranks:
            if rank.is_alive:
                rank.process.terminate()
                with suppress(subprocess.TimeoutExpired):  # then it is killed
                    rank.process.wait(patience_s)

    def _reap(self, rank: _Rank) -> None:
        rank.process.kill()
        with suppress(subprocess.TimeoutExpired):  # unkillable: the proof will say so
            rank.process.wait(self.patience.stop_loading_s)

    def _prove_gone(self, left: list[psutil.Process]) -> None:
        left = living(left)
        if left:
            raise InfrastructureError(f"processes survived SIGKILL: {names_of(left)}")
        give_up_s = self._clock.now_s() + self.patience.release_s
        while held := held_ports(self.plan):
            if self._clock.now_s() >= give_up_s:
                raise InfrastructureError(f"after the engine ended, {'; '.join(held)}")
            time.sleep(self.patience.poll_s)


def held_ports(plan: LaunchPlan) -> list[str]:
    """Return who holds what the plan needs: a serving port for each rank, one port to meet at."""
    needed = [(rank.node.address, plan.port + rank.rank) for rank in plan.ranks]
    if len(plan.ranks) > 1:
        needed.append((plan.host, plan.rendezvous_port))
    holders = [(port, port_holder(address, port)) for address, port in needed]
    return [f"port {port} is held by {holder}" for port, holder in holders if holder is not None]
