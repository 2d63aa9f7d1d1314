"""Watches one launch, whatever its ranks run in: readiness, phases, and the failure that decides.

In: ranks that can be asked whether they live, their logs, and the engine's control pages. Out: phases with
their seconds, an `EngineFailure`, and the `WatchedEngine` that a trial loads. Talks HTTP to rank 0 only,
since other ranks answer a health page too. Invariant: the first failure that is told stays.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autotune.engine.dialect import EffectiveFlags, LiveFlag, live_flag_for
from autotune.engine.dialects import dialect_of
from autotune.engine.http_api import EngineApi, NoAnswerError
from autotune.engine.launcher import Clock, HttpAddress
from autotune.engine.log_watch import LogWatch, Verdict, is_later
from autotune.engine.phase_budgets import BudgetRule, PhaseBudgets
from autotune.engine.plan import LaunchPlan, RankPlan
from autotune.failure import EngineError, EngineFailure, FailureKind, StartPhase

# No model that is served has fewer tokens, and random prompts need no more.
_SAFE_VOCABULARY = 1000


class MonotonicClock:
    """Seconds of real time."""

    def now_s(self) -> float:
        """Return seconds since an arbitrary start."""
        return time.monotonic()

    def idle_until(self, moment_s: float) -> None:
        """Do nothing: real time passes by itself."""


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
    phases: BudgetRule = field(default_factory=BudgetRule)


class WatchedRank(Protocol):
    """One rank, in whatever it runs."""

    @property
    def plan(self) -> RankPlan:
        """What was to be started."""
        ...

    @property
    def watch(self) -> LogWatch:
        """Its log."""
        ...

    @property
    def exit_code(self) -> int | None:
        """How it ended; negative for a signal; None while it lives or if nobody knows."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as is known."""
        ...

    @property
    def outer_cause(self) -> Verdict | None:
        """Why it ended or is lost, where what it runs in knows better than its log."""
        ...

    def settle(self) -> None:
        """Wait until what is known of it is not older than this call, and its log is complete if it ended."""
        ...


class LaunchWatch:
    """A launch as seen from outside. `began`: when the phases before the engine's own were entered."""

    def __init__(
        self,
        plan: LaunchPlan,
        on_phase: Callable[[StartPhase], None],
        clock: Clock,
        patience: Patience,
        budgets: PhaseBudgets | None = None,
        *,
        began: Mapping[StartPhase, float] = {},
    ) -> None:
        self.plan = plan
        self.api = EngineApi(plan.base_url, dialect_of(plan.engine))
        self._dialect = dialect_of(plan.engine)
        self._on_phase = on_phase
        self._clock = clock
        self._patience = patience
        self._budgets = budgets or PhaseBudgets(patience.phases)
        self._ranks: Sequence[WatchedRank] = ()
        self._entered_s = dict(began)
        self._failure: EngineFailure | None = None

    def begin(self) -> None:
        """Enter the first phase: from now on the launch's time counts."""
        self._enter(StartPhase.PROCESS)

    def use(self, ranks: Sequence[WatchedRank]) -> None:
        """Watch these ranks, in rank order."""
        self._ranks = ranks

    def log_watch(self, log: Path) -> LogWatch:
        """Return a watch on a rank's log, with the engine's tables."""
        return LogWatch(log, self._dialect.start_lines, self._dialect.failure_lines)

    # ---- readiness

    def await_ready(self) -> None:
        """Wait until rank 0 answers.

        Raises:
            EngineError: a rank ended, logged a cause to end, or the time is over.
        """
        pool = ThreadPoolExecutor(1)  # a health page may hang for seconds; the ranks are watched meanwhile
        try:
            self._watch_until_healthy(pool)
        finally:
            pool.shutdown(wait=False)
        self._observe()
        self._enter(StartPhase.SERVING)
        for rank in self._ranks:
            rank.watch.advance(StartPhase.SERVING)
        self._budgets.learn(self.phases_s())

    def _watch_until_healthy(self, pool: ThreadPoolExecutor) -> None:
        healthy = pool.submit(self.api.is_healthy)
        while not (healthy.done() and healthy.result()):
            failure = self.failure() or self._overdue()
            if failure is not None:
                raise EngineError(failure)
            if healthy.done():
                healthy = pool.submit(self.api.is_healthy)
            time.sleep(self._patience.poll_s)

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

    # ---- failure

    @property
    def is_well(self) -> bool:
        """Whether the engine serves and all its ranks live."""
        return StartPhase.SERVING in self._entered_s and not self._has_ended()

    @property
    def phase(self) -> StartPhase:
        """The latest phase that any rank has entered."""
        return next(reversed(self._entered_s))

    def failure(self) -> EngineFailure | None:
        """Return why the engine failed; the first answer stays."""
        if self._failure is None:
            self._observe()
            if self._has_ended() or self._should_have_ended():
                time.sleep(self._patience.settle_s)  # the other ranks' and children's last lines
                for rank in self._ranks:
                    rank.settle()
                self._observe()
                self._failure = self._decided()
        return self._failure

    def failure_behind(self, error: NoAnswerError) -> EngineFailure:
        """Return why the engine did not answer: it died, or it lives and does not do as told."""
        return self._failure_soon() or self._described(FailureKind.HANG, str(error))

    def _failure_soon(self) -> EngineFailure | None:
        """Look twice: a dying engine closes its connections before it has ended."""
        if self.failure() is None:
            time.sleep(self._patience.settle_s)
        return self.failure()

    def _waited_s(self) -> float:
        return self._clock.now_s() - self._entered_s[StartPhase.PROCESS]

    def _enter(self, phase: StartPhase) -> None:
        self._entered_s[phase] = self._clock.now_s()
        self._on_phase(phase)

    def _observe(self) -> None:
        for rank in self._ranks:
            for phase in rank.watch.read(self._clock.now_s()):
                # Serving begins when the health page says so, not when a log does.
                if is_later(phase, self.phase) and phase is not StartPhase.SERVING:
                    self._enter(phase)

    def _has_ended(self) -> bool:
        return any(not rank.is_alive or rank.outer_cause is not None for rank in self._ranks)

    def _should_have_ended(self) -> bool:
        latest_s = self._clock.now_s() - self._patience.cause_s
        seen_s = [rank.watch.cause_seen_s for rank in self._ranks]
        return any(seen is not None and seen < latest_s for seen in seen_s)

    def _decided(self) -> EngineFailure:
        """Let the rank speak that was lost from outside, else that first logged a cause, else that ended."""

        def priority(rank: WatchedRank) -> tuple[bool, float, bool, int]:
            seen_s = rank.watch.cause_seen_s
            logged_s = float("inf") if seen_s is None else seen_s
            return (rank.outer_cause is None, logged_s, rank.is_alive, rank.plan.rank)

        rank = min(self._ranks, key=priority)
        return rank.watch.failure(
            exit_code=rank.exit_code,
            rank=rank.plan.rank,
            waited_s=self._waited_s(),
            outer_cause=rank.outer_cause,
        )

    def _overdue(self) -> EngineFailure | None:
        line = self._overdue_line()
        if line is None:
            return None
        is_meeting = self.phase is StartPhase.RENDEZVOUS
        return self._described(FailureKind.RENDEZVOUS_TIMEOUT if is_meeting else FailureKind.NOT_READY, line)

    def _overdue_line(self) -> str | None:
        """Return why the launch takes too long: over all, or in its phase by what earlier launches took."""
        if self.plan.is_called_off():
            return "called off"
        if self._waited_s() >= self.plan.ready_timeout_s:
            return f"not ready after {self.plan.ready_timeout_s:g} s, still in phase {self.phase}"
        spent_s = self._clock.now_s() - self._entered_s[self.phase]
        budget = self._budgets.of(self.phase)
        return None if budget is None else budget.overrun(spent_s)

    def _described(self, kind: FailureKind, line: str) -> EngineFailure:
        tail = tuple(self._ranks[0].watch.tail)
        return EngineFailure(kind=kind, phase=self.phase, line=line, waited_s=self._waited_s(), log_tail=tail)


class WatchedEngine:
    """A running engine. Not to be used after its context has ended."""

    def __init__(
        self,
        watch: LaunchWatch,
        patience: Patience,
        *,
        image_digest: str | None = None,
        driver: str | None = None,
    ) -> None:
        self._watch = watch
        self._patience = patience
        found = {"image_digest": image_digest, "driver": driver}
        self._effective = watch.effective().model_copy(update=found)
        self._address = HttpAddress(watch.plan.base_url, watch.vocabulary_size())

    @property
    def effective(self) -> EffectiveFlags:
        """The flags read back from the engine."""
        return self._effective

    @property
    def phases_s(self) -> dict[StartPhase, float]:
        """Seconds spent in each start phase that was seen."""
        return self._watch.phases_s()

    @property
    def address(self) -> HttpAddress:
        """Where to send load."""
        return self._address

    def flush_cache(self) -> None:
        """Empty the prefix cache, waiting some seconds for requests that are still being ended.

        Raises:
            EngineError: the engine is busy or gone.
        """
        try:
            self._watch.api.flush_cache(self._patience.flush_s)
        except NoAnswerError as error:
            raise EngineError(self._watch.failure_behind(error)) from error

    def abort_requests(self) -> None:
        """Drop every request that a load has left queued or running.

        Raises:
            EngineError: the engine is gone.
        """
        try:
            self._watch.api.abort_all()
        except NoAnswerError as error:
            raise EngineError(self._watch.failure_behind(error)) from error

    @property
    def live_flags(self) -> Mapping[str, LiveFlag]:
        """The flags that can be set on it."""
        return dialect_of(self._watch.plan.engine).live_flags(self._effective)

    def set_live(self, name: str, value: int) -> EffectiveFlags:
        """Set one of `live_flags` while no request runs; return what it runs with from now on.

        Raises:
            LiveRefusedError: the engine did not set it.
            EngineError: the engine is gone.
        """
        flag = live_flag_for(self.live_flags, name, value)
        try:
            self._watch.api.set_live(flag, value)
        except NoAnswerError as error:
            raise EngineError(self._watch.failure_behind(error)) from error
        return flag.applied_to(self._effective, value)

    def failure(self) -> EngineFailure | None:
        """Return why the engine died, None while all its ranks live and none logged a cause to die."""
        return self._watch.failure()
