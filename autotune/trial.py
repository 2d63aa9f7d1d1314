"""One candidate through its phases: launch, load point by load point, judge, teardown; out comes a record.

In: a study, an asked candidate, a launcher. Out: `TrialRecord`, those of candidates measured live on the same
engine behind it, and raw files under `trials/<number>/`. Talks to the launcher and, through it or over HTTP,
to the engine; `measuring.py` loads it. Invariants: the engine is gone when this returns or raises; here and
in `live_values.py` engine and load errors become records.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.launcher import HttpAddress, Launcher, RunningEngine
from autotune.engine.plan import never, plan_launch
from autotune.errors import LoadError
from autotune.failure import EngineError, EngineFailure, FailureKind, StartPhase
from autotune.live_values import LiveValues, NextLive
from autotune.measuring import Measuring, OnPhase
from autotune.order import TimeIsUpError, TrialOrder, TrialTime
from autotune.record import AnswersRecord, Outcome, Role, TrialRecord
from autotune.study import Study, owner_of

NO_MODEL = "a simulated engine has no model that could answer"
TIME_IS_UP = "the study's time was up"
CALLED_OFF = "the study was stopped"
_ROUNDING_S = 1e-6
_NOT_YET_READY = (FailureKind.NOT_READY, FailureKind.RENDEZVOUS_TIMEOUT)

FindTwin: TypeAlias = Callable[[EffectiveFlags], tuple[int, TrialRecord] | None]


@dataclass(frozen=True)
class _Ending:
    """How a trial came to its end; `failure` for FAILED, `reason` for INVALID and INTERRUPTED."""

    outcome: Outcome
    failure: EngineFailure | None = None
    reason: str | None = None

    @classmethod
    def of(cls, failure: EngineFailure) -> "_Ending":
        """A node that was lost says nothing about the candidate, which is launched again."""
        if failure.kind.is_of_the_node:
            return cls(Outcome.INVALID, failure=failure, reason=f"{failure.kind}: {failure.line}")
        return cls(Outcome.FAILED, failure=failure)


def run_trial(
    study: Study,
    order: TrialOrder,
    launcher: Launcher,
    folder: Path,
    *,
    on_phase: OnPhase,
    find_twin: FindTwin,
    deadline_s: float | None = None,
    is_called_off: Callable[[], bool] = never,
    choose_live: NextLive = lambda _, orders: orders[0],
) -> tuple[TrialRecord, ...]:
    """Run one trial to its record; `folder` is the study's. Behind it come those of what was measured live.

    `find_twin` tells whether an earlier trial already ran with the same effective flags; its numbers are then
    taken over instead of measured again. `deadline_s`, on the launcher's clock, ends what is going on: a
    start by a shorter wait for readiness, a load by stopping it. The engine is torn down as ever, and the
    record is INTERRUPTED, with the load points measured so far. So it is as soon as `is_called_off`.
    `choose_live`: which of the candidates ordered beside it is measured live next, once it was measured; it
    is asked on this thread, also after each of them.

    Raises:
        InfrastructureError: no engine can be launched at all.
        OSError: the raw records cannot be written.
    """
    time = TrialTime(launcher.clock, math.inf if deadline_s is None else deadline_s, is_called_off)
    run = _TrialRun(study, order, launcher, folder, on_phase, find_twin, time, choose_live)
    ending = _Ending(Outcome.MEASURED)
    with run.timed("total"):
        try:
            run.launch_and_load()
        except EngineError as error:
            ending = _Ending.of(error.failure)
        except LoadError as error:
            ending = _Ending(Outcome.INVALID, reason=str(error))
        except TimeIsUpError:
            ending = _Ending(Outcome.INTERRUPTED, reason=CALLED_OFF if is_called_off() else TIME_IS_UP)
    return run.to_records(ending)


@dataclass
class _TrialRun:
    """A trial while it runs: what was ordered, and what is known so far.

    `measuring`: its load points, None before the engine serves, and if those of a twin are taken over.
    `live`: what was measured after them on the same engine.
    """

    study: Study
    order: TrialOrder
    launcher: Launcher
    folder: Path
    on_phase: OnPhase
    find_twin: FindTwin
    time: TrialTime
    choose_live: NextLive
    durations_s: dict[str, float] = field(default_factory=dict)
    start_phases_s: dict[str, float] = field(default_factory=dict)
    effective: EffectiveFlags | None = None
    measuring: Measuring | None = None
    live: LiveValues | None = None
    twin: tuple[int, TrialRecord] | None = None
    answers: AnswersRecord | None = None

    def __post_init__(self) -> None:
        self.began_s = self.launcher.clock.now_s()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to a phase's duration, also when it fails."""
        began_s = self.launcher.clock.now_s()
        try:
            yield
        finally:
            spent_s = self.launcher.clock.now_s() - began_s
            self.durations_s[phase] = self.durations_s.get(phase, 0.0) + spent_s

    def launch_and_load(self) -> None:
        """Launch, measure, tear down."""
        self.time.check()
        self.on_phase("launch")
        with ExitStack() as stack:
            with self.timed("launch"):
                engine = self._launch(stack)
            self.start_phases_s = {phase.value: spent for phase, spent in engine.phases_s.items()}
            self.effective = engine.effective
            if self.order.role is not Role.CONFIRMATION:
                self.twin = self.find_twin(engine.effective)
            if self.twin is None:
                self.measuring = Measuring(
                    self.study, self.order, engine, self.folder, self.time, self.on_phase
                )
                with self.timed("load"):
                    self.measuring.measure_points()
                if self.order.then:
                    self._measure_live(self.measuring)
            if self.order.role is Role.CONFIRMATION:
                with self.timed("answers"):
                    self._ask(engine)
            self.on_phase("teardown")

    def to_records(self, ending: _Ending) -> tuple[TrialRecord, ...]:
        """Return the record of what happened, and those of what was measured live.

        Each has its own time: on the study's clock the host's comes first, whole, then theirs.
        """
        lives = self.live.records if self.live else []
        theirs_s = sum(live.duration_s for live in lives)
        self.durations_s["total"] -= theirs_s
        if self.durations_s.get("live", 0.0) - theirs_s > _ROUNDING_S:
            self.durations_s["live"] -= theirs_s  # what the time did not suffice for
        else:
            self.durations_s.pop("live", None)
        host = self._to_record(ending)
        records, began_s = [host], host.began_s + host.duration_s
        for live in lives:
            records.append(live.model_copy(update={"began_s": began_s}))
            began_s += live.duration_s
        return tuple(records)

    def _to_record(self, ending: _Ending) -> TrialRecord:
        total_s = self.durations_s.pop("total")
        self.durations_s["teardown"] = max(total_s - sum(self.durations_s.values()), 0.0)
        record = self._record(ending)
        if ending.outcome is not Outcome.MEASURED:
            return record
        if self.twin is not None:
            return record.take_over(*self.twin)
        assert self.measuring is not None  # noqa: S101 - what is MEASURED and has no twin was
        return self.measuring.with_result(record)

    def _record(self, ending: _Ending) -> TrialRecord:
        """Return what is known by now, without a verdict."""
        return TrialRecord(
            outcome=ending.outcome,
            role=self.order.role,
            candidate=self.order.candidate.to_dict(),
            is_simulated=self.launcher.is_simulated,
            began_s=self.began_s,
            durations_s=self.durations_s,
            start_phases_s=self.start_phases_s,
            effective=self.effective,
            failure=ending.failure,
            reason=ending.reason,
            points=tuple(self.measuring.points.values()) if self.measuring else (),
            confirms=self.order.confirms,
            nodes=self.order.nodes,
            slots=self.order.slots,
            answers=self.answers,
        )

    def _measure_live(self, host: Measuring) -> None:
        """Measure further candidates on the engine of one that has its values."""
        record = host.with_result(self._record(_Ending(Outcome.MEASURED)))
        if record.outcome is not Outcome.MEASURED:
            return
        self.live = LiveValues(host, record, self.choose_live)
        with self.timed("live"):
            self.live.measure()

    def _launch(self, stack: ExitStack) -> RunningEngine:
        """Start the engine and wait for it, at most until the deadline."""
        name = self.order.name
        owner = owner_of(self.study.name, self.folder)
        plan = plan_launch(self.study.space, self.order.candidate, study=owner, trial=name)
        is_hurried = self.time.left_s < plan.ready_timeout_s
        timeout_s = min(plan.ready_timeout_s, self.time.left_s)
        plan = replace(plan, ready_timeout_s=timeout_s, is_called_off=self.time.is_called_off)
        folder = self.folder / "trials" / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return stack.enter_context(self.launcher.launch(plan, folder, self._report_start))
        except EngineError as error:
            if error.failure.kind in _NOT_YET_READY and (is_hurried or self.time.is_called_off()):
                self.time.check()
            raise

    def _report_start(self, phase: StartPhase) -> None:
        self.on_phase(f"launch: {phase.value.replace('_', ' ')}")

    def _ask(self, engine: RunningEngine) -> None:
        """Have the fixed prompts answered; that they are not says nothing about what was measured."""
        if not isinstance(engine.address, HttpAddress):
            self.answers = AnswersRecord(reason=NO_MODEL)
            return
        from autotune.load.answers import UnansweredError, ask_into  # noqa: PLC0415 - httpx takes 0.3 s

        self.time.check()
        self.on_phase("answers")
        path = self.folder / "trials" / self.order.name / "answers.json"
        try:
            digest = ask_into(
                path, engine.address.base_url, self.study.slo.workload, model=self.study.space.model,
                vocabulary_size=engine.address.vocabulary_size, flush=engine.flush_cache,
                limit_s=self.time.left_s,
            )  # fmt: skip
        except UnansweredError as error:
            if (failure := engine.failure()) is not None:
                raise EngineError(failure) from error
            self.time.check()
            self.answers = AnswersRecord(reason=str(error))
        else:
            self.answers = AnswersRecord(file=str(path.relative_to(self.folder)), sha256=digest)
