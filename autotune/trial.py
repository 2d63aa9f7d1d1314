"""One candidate through its phases: launch, load point by load point, judge, teardown; out comes a record.

In: a study, an asked candidate, a launcher. Out: `TrialRecord`, and raw files under `trials/<number>/`.
Talks to the launcher and, through it or over HTTP, to the engine. Invariants: raw records are on disk before
anything is derived from them; the engine is gone when this returns or raises; only here do engine and load
errors become records.
"""

import hashlib
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
from autotune.load.arrivals import LoadPoint
from autotune.load.collapse import hang, serves_nothing
from autotune.load.health import invalid_reason
from autotune.load.records_file import write_records
from autotune.load.workload import offer, warm_up
from autotune.metrics import Measurement, join, measure
from autotune.record import AnswersRecord, ClientRecord, Outcome, PointRecord, Role, TrialRecord
from autotune.request import Endpoint, LoadResult, OfferedLoad, due_order
from autotune.slo import ERROR_RATE, LOOKS, Decision, EarlyJudge, Stop, Verdict, judge_stopped
from autotune.space import Candidate
from autotune.study import Study, owner_of

VALID_ATTEMPTS = 3
"""How often a measurement that the load generator spoilt is tried on one engine."""

SILENCE_LIMIT_S = 120.0
"""For how long no byte of any answer may come while requests are in flight: far above any time a prefill of
every waiting prompt takes, far below a request's own time-out."""

NO_MODEL = "a simulated engine has no model that could answer"
TIME_IS_UP = "the study's time was up"
CALLED_OFF = "the study was stopped"
_ROUNDING_S = 1e-6
_NOT_YET_READY = (FailureKind.NOT_READY, FailureKind.RENDEZVOUS_TIMEOUT)

OnPhase: TypeAlias = Callable[[str], None]
FindTwin: TypeAlias = Callable[[EffectiveFlags], tuple[int, TrialRecord] | None]


@dataclass(frozen=True)
class TrialOrder:
    """What is to be run; `nodes` and `slots`: as in the record.

    `measure_all`: do not skip load points once a ceiling is missed; `stops_early`: end one that is decided.
    """

    number: int
    role: Role
    candidate: Candidate
    confirms: int | None
    measure_all: bool
    stops_early: bool = False
    nodes: tuple[str, ...] = ()
    slots: int = 1

    @property
    def name(self) -> str:
        """The trial's folder and label."""
        return f"{self.number:04d}"


class _TimeIsUpError(Exception):
    """The trial's deadline has passed, or it was called off."""


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
) -> TrialRecord:
    """Run one trial to its record; `folder` is the study's.

    `find_twin` tells whether an earlier trial already ran with the same effective flags; its numbers are then
    taken over instead of measured again. `deadline_s`, on the launcher's clock, ends what is going on: a
    start by a shorter wait for readiness, a load by stopping it. The engine is torn down as ever, and the
    record is INTERRUPTED, with the load points measured so far. So it is as soon as `is_called_off`.

    Raises:
        InfrastructureError: no engine can be launched at all.
        OSError: the raw records cannot be written.
    """
    end_s = math.inf if deadline_s is None else deadline_s
    run = _TrialRun(study, order, launcher, folder, on_phase, find_twin, end_s, is_called_off)
    ending = _Ending(Outcome.MEASURED)
    with run.timed("total"):
        try:
            run.launch_and_load()
        except EngineError as error:
            ending = _Ending.of(error.failure)
        except LoadError as error:
            ending = _Ending(Outcome.INVALID, reason=str(error))
        except _TimeIsUpError:
            ending = _Ending(Outcome.INTERRUPTED, reason=CALLED_OFF if is_called_off() else TIME_IS_UP)
    return run.to_record(ending)


@dataclass
class _TrialRun:
    """A trial while it runs: what was ordered, and what is known so far."""

    study: Study
    order: TrialOrder
    launcher: Launcher
    folder: Path
    on_phase: OnPhase
    find_twin: FindTwin
    deadline_s: float
    is_called_off: Callable[[], bool]
    durations_s: dict[str, float] = field(default_factory=dict)
    start_phases_s: dict[str, float] = field(default_factory=dict)
    effective: EffectiveFlags | None = None
    measurements: dict[str, Measurement] = field(default_factory=dict)
    points: dict[str, PointRecord] = field(default_factory=dict)
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
        self._check_time()
        self.on_phase("launch")
        with ExitStack() as stack:
            with self.timed("launch"):
                engine = self._launch(stack)
            self.start_phases_s = {phase.value: spent for phase, spent in engine.phases_s.items()}
            self.effective = engine.effective
            if self.order.role is not Role.CONFIRMATION:
                self.twin = self.find_twin(engine.effective)
            if self.twin is None:
                with self.timed("load"):
                    self._measure_points(engine)
            if self.order.role is Role.CONFIRMATION:
                with self.timed("answers"):
                    self._ask(engine)
            self.on_phase("teardown")

    def to_record(self, ending: _Ending) -> TrialRecord:
        """Return the record of what happened."""
        total_s = self.durations_s.pop("total")
        self.durations_s["teardown"] = max(total_s - sum(self.durations_s.values()), 0.0)
        record = TrialRecord(
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
            points=tuple(self.points.values()),
            confirms=self.order.confirms,
            nodes=self.order.nodes,
            slots=self.order.slots,
            answers=self.answers,
        )
        if ending.outcome is not Outcome.MEASURED:
            return record
        return self._with_result(record) if self.twin is None else record.take_over(*self.twin)

    def _with_result(self, record: TrialRecord) -> TrialRecord:
        objectives = []
        for goal in self.study.slo.goals:
            load = goal.quantity.load
            value = goal.quantity.of(self.measurements[load], self.study.slo.request_limits_s(load))
            if value is None:
                reason = f"nothing was measured for {goal.text!r}"
                return record.model_copy(update={"outcome": Outcome.INVALID, "reason": reason})
            objectives.append(value)
        return record.model_copy(update={"verdict": self._verdict(), "objectives": tuple(objectives)})

    def _launch(self, stack: ExitStack) -> RunningEngine:
        """Start the engine and wait for it, at most until the deadline."""
        name = self.order.name
        owner = owner_of(self.study.name, self.folder)
        plan = plan_launch(self.study.space, self.order.candidate, study=owner, trial=name)
        is_hurried = self._left_s() < plan.ready_timeout_s
        timeout_s = min(plan.ready_timeout_s, self._left_s())
        plan = replace(plan, ready_timeout_s=timeout_s, is_called_off=self.is_called_off)
        folder = self.folder / "trials" / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return stack.enter_context(self.launcher.launch(plan, folder, self._report_start))
        except EngineError as error:
            if error.failure.kind in _NOT_YET_READY and (is_hurried or self.is_called_off()):
                self._check_time()
            raise

    def _left_s(self) -> float:
        return 0.0 if self.is_called_off() else self.deadline_s - self.launcher.clock.now_s()

    def _check_time(self) -> None:
        if self._left_s() <= _ROUNDING_S:
            raise _TimeIsUpError

    def _report_start(self, phase: StartPhase) -> None:
        self.on_phase(f"launch: {phase.value.replace('_', ' ')}")

    def _measure_points(self, engine: RunningEngine) -> None:
        goals = {goal.quantity.load for goal in self.study.slo.goals}
        endpoint = self._endpoint_of(engine)
        for point in self.study.slo.load:
            missed = self._verdict().decision is Decision.MISSED
            if missed and not self.order.measure_all and point.label not in goals:
                continue
            self.on_phase(f"load: {point.label}")
            self._warm_up(point, endpoint, engine)
            for look in range(LOOKS):
                self._measure(point, endpoint, engine, look)
                if not self._is_undecided(point):
                    break

    def _ask(self, engine: RunningEngine) -> None:
        """Have the fixed prompts answered; that they are not says nothing about what was measured."""
        if not isinstance(engine.address, HttpAddress):
            self.answers = AnswersRecord(reason=NO_MODEL)
            return
        from autotune.load.answers import UnansweredError, ask_into  # noqa: PLC0415 - httpx, as below

        self._check_time()
        self.on_phase("answers")
        path = self.folder / "trials" / self.order.name / "answers.json"
        try:
            digest = ask_into(
                path, engine.address.base_url, self.study.slo.workload, model=self.study.space.model,
                vocabulary_size=engine.address.vocabulary_size, flush=engine.flush_cache,
                limit_s=self._left_s(),
            )  # fmt: skip
        except UnansweredError as error:
            self._refuse_failure(engine.failure())
            self.answers = AnswersRecord(reason=str(error))
        else:
            self.answers = AnswersRecord(file=str(path.relative_to(self.folder)), sha256=digest)

    def _endpoint_of(self, engine: RunningEngine) -> Endpoint:
        match engine.address:
            case HttpAddress(base_url=base_url, vocabulary_size=vocabulary_size):
                from autotune.load.client import HttpEndpoint  # noqa: PLC0415 - httpx takes 0.3 s

                return HttpEndpoint(
                    base_url,
                    self.study.slo.workload,
                    model=self.study.space.model,
                    vocabulary_size=vocabulary_size,
                    silence_limit_s=SILENCE_LIMIT_S,
                    is_alive=lambda: engine.failure() is None and self._left_s() > 0,
                )
            case endpoint:
                return endpoint

    def _warm_up(self, point: LoadPoint, endpoint: Endpoint, engine: RunningEngine) -> None:
        if point.warm_up_requests:
            offered = warm_up(self.study.slo.workload, point, salt=self._salt(point, LOOKS))
            result = self._serve(offered, endpoint, engine)
            if invalid_reason(result, offered) is None:
                self._refuse_failure(serves_nothing(result))

    def _serve(
        self,
        offered: OfferedLoad,
        endpoint: Endpoint,
        engine: RunningEngine,
        file: Path | None = None,
        onlooker: EarlyJudge | None = None,
    ) -> LoadResult:
        """Load the engine, keep the raw records, and refuse what neither ended by itself nor was decided."""
        self._check_time()
        result = endpoint.run(offered, onlooker)
        if file is not None:
            write_records(file, result)
        self._refuse_failure(engine.failure() or hang(result))
        return result

    def _refuse_failure(self, failure: EngineFailure | None) -> None:
        if failure is not None:
            raise EngineError(failure)
        self._check_time()

    def _measure(self, point: LoadPoint, endpoint: Endpoint, engine: RunningEngine, look: int) -> None:
        """Measure once more and add it to what is known of the load point.

        A measurement that is not valid is repeated on the same engine: a launch costs far more.
        """
        reason = None
        for _ in range(VALID_ATTEMPTS):
            result, stop, reason = self._offer(point, endpoint, engine, look)
            if reason is None:
                self._add(point, result, look, stop)
                self._refuse_failure(serves_nothing(result))
                return
            self.on_phase(f"load: {point.label}, again: {reason}")
        raise LoadError(f"{point.label}: {reason}")

    def _offer(
        self, point: LoadPoint, endpoint: Endpoint, engine: RunningEngine, look: int
    ) -> tuple[LoadResult, Stop | None, str | None]:
        """Load an engine with an empty cache; return what came of it, why not more, why it is not valid."""
        engine.flush_cache()
        offered = offer(self.study.slo.workload, point, salt=self._salt(point, look))
        early = self._early_judge(point, len(offered.requests)) if look == 0 else None
        result = self._serve(offered, endpoint, engine, self._raw_file(point, f"-{look}"), early)
        stop = early.stop if early else None
        if stop is not None:
            engine.abort_requests()
            result = replace(result, records=tuple(sorted(result.records, key=due_order)[: stop.requests]))
        return result, stop, invalid_reason(result, offered)

    def _early_judge(self, point: LoadPoint, planned: int) -> EarlyJudge | None:
        """Return who may stop a load point; what a whole one left undecided is measured whole again."""
        if not self.order.stops_early:
            return None
        return EarlyJudge(self.study.slo, point, planned=planned, lost=self._verdict().missed)

    def _add(self, point: LoadPoint, result: LoadResult, look: int, stop: Stop | None) -> None:
        """Keep the records of all looks in one file, and derive the load point's numbers from them."""
        measurement = measure(result.records, concurrency=point.concurrency)
        this_look, path = self._raw_file(point, f"-{look}"), self._raw_file(point)
        if look:
            measurement = join(self.measurements[point.label], measurement)
            write_records(path, LoadResult(records=measurement.records, client=result.client))
            this_look.unlink()
        else:
            this_look.replace(path)
        self.measurements[point.label] = measurement
        self.points[point.label] = PointRecord(
            load=point.label,
            summary=measurement.summary(),
            goodput_rps=measurement.goodput_rps(self.study.slo.request_limits_s(point.label)),
            client=ClientRecord.of(result.client),
            file=str(path.relative_to(self.folder)),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            stopped=stop,
        )

    def _raw_file(self, point: LoadPoint, suffix: str = "") -> Path:
        name = point.label.replace(" ", "-")
        return self.folder / "trials" / self.order.name / f"{name}{suffix}.npz"

    def _salt(self, point: LoadPoint, look: int) -> int:
        """A number of its own for every look, so that no prompt meets its twin in a cache."""
        index = self.study.slo.load.index(point)
        return (self.order.number * len(self.study.slo.load) + index) * (LOOKS + 1) + look

    def _verdict(self) -> Verdict:
        stops = {label: point.stopped for label, point in self.points.items() if point.stopped}
        return judge_stopped(self.study.slo, self.measurements, stops, error_rate=ERROR_RATE / LOOKS)

    def _is_undecided(self, point: LoadPoint) -> bool:
        """Whether another look can still change the trial's verdict."""
        texts = {ceiling.text for ceiling in self.study.slo.ceilings if ceiling.quantity.load == point.label}
        verdict = self._verdict()
        return verdict.decision is Decision.UNDECIDED and any(
            judged.decision is Decision.UNDECIDED for judged in verdict.ceilings if judged.ceiling in texts
        )
