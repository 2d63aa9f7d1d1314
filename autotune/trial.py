"""One candidate through its phases: launch, load point by load point, judge, teardown; out comes a record.

In: a study, an asked candidate, a launcher. Out: `TrialRecord`, and raw files under `trials/<number>/`.
Talks to the launcher and, through it or over HTTP, to the engine. Invariants: raw records are on disk before
anything is derived from them; the engine is gone when this returns or raises; only here do engine and load
errors become records.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.launcher import HttpAddress, Launcher, RunningEngine
from autotune.engine.plan import plan_launch
from autotune.errors import LoadError
from autotune.failure import EngineError, EngineFailure, StartPhase
from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.health import invalid_reason
from autotune.load.records_file import write_records
from autotune.load.workload import offer, warm_up
from autotune.metrics import Measurement, join, measure
from autotune.record import ClientRecord, Outcome, PointRecord, Role, TrialRecord
from autotune.request import ClientHealth, Endpoint, LoadResult
from autotune.slo import Decision, Verdict, judge
from autotune.space import Candidate
from autotune.study import Study, owner_of

ERROR_RATE = 0.05
LOOKS = 3
"""How often an undecided load point is measured at most; the looks share the error rate evenly."""

VALID_ATTEMPTS = 3
"""How often a measurement that the load generator spoilt is tried on one engine."""

OnPhase: TypeAlias = Callable[[str], None]
FindTwin: TypeAlias = Callable[[EffectiveFlags], tuple[int, TrialRecord] | None]


@dataclass(frozen=True)
class TrialOrder:
    """What is to be run. `measure_all`: do not skip load points once a ceiling is missed."""

    number: int
    role: Role
    candidate: Candidate
    confirms: int | None
    measure_all: bool

    @property
    def name(self) -> str:
        """The trial's folder and label."""
        return f"{self.number:04d}"


def run_trial(
    study: Study,
    order: TrialOrder,
    launcher: Launcher,
    folder: Path,
    *,
    on_phase: OnPhase,
    find_twin: FindTwin,
) -> TrialRecord:
    """Run one trial to its record; `folder` is the study's.

    `find_twin` tells whether an earlier trial already ran with the same effective flags; its numbers are then
    taken over instead of measured again.

    Raises:
        InfrastructureError: no engine can be launched at all.
        OSError: the raw records cannot be written.
    """
    run = _TrialRun(study, order, launcher, folder, on_phase, find_twin)
    failure, invalid = None, None
    with run.timed("total"):
        try:
            run.launch_and_load()
        except EngineError as error:
            failure = error.failure
        except LoadError as error:
            invalid = str(error)
    return run.to_record(failure, invalid)


@dataclass
class _TrialRun:
    """A trial while it runs: what was ordered, and what is known so far."""

    study: Study
    order: TrialOrder
    launcher: Launcher
    folder: Path
    on_phase: OnPhase
    find_twin: FindTwin
    durations_s: dict[str, float] = field(default_factory=dict)
    start_phases_s: dict[str, float] = field(default_factory=dict)
    effective: EffectiveFlags | None = None
    measurements: dict[str, Measurement] = field(default_factory=dict)
    points: dict[str, PointRecord] = field(default_factory=dict)
    twin: tuple[int, TrialRecord] | None = None

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
        space, name = self.study.space, self.order.name
        owner = owner_of(self.study.name, self.folder)
        plan = plan_launch(space, self.order.candidate, study=owner, trial=name)
        trial_folder = self.folder / "trials" / name
        trial_folder.mkdir(parents=True, exist_ok=True)
        self.on_phase("launch")
        with ExitStack() as stack:
            with self.timed("launch"):
                engine = stack.enter_context(self.launcher.launch(plan, trial_folder, self._report_start))
            self.start_phases_s = {phase.value: spent for phase, spent in engine.phases_s.items()}
            self.effective = engine.effective
            if self.order.role is not Role.CONFIRMATION:
                self.twin = self.find_twin(engine.effective)
            if self.twin is None:
                with self.timed("load"):
                    self._measure_points(engine)
            self.on_phase("teardown")

    def to_record(self, failure: EngineFailure | None, invalid: str | None) -> TrialRecord:
        """Return the record of what happened."""
        total_s = self.durations_s.pop("total")
        self.durations_s["teardown"] = max(total_s - sum(self.durations_s.values()), 0.0)
        record = TrialRecord(
            outcome=Outcome.MEASURED,
            role=self.order.role,
            candidate=self.order.candidate.to_dict(),
            is_simulated=self.launcher.is_simulated,
            began_s=self.began_s,
            durations_s=self.durations_s,
            start_phases_s=self.start_phases_s,
            effective=self.effective,
            points=tuple(self.points.values()),
            confirms=self.order.confirms,
        )
        if failure is not None:
            return record.model_copy(update={"outcome": Outcome.FAILED, "failure": failure})
        if invalid is not None:
            return record.model_copy(update={"outcome": Outcome.INVALID, "reason": invalid})
        if self.twin is not None:
            return take_over(record, *self.twin)
        objectives = tuple(
            goal.quantity.of(
                self.measurements[goal.quantity.load],
                self.study.slo.request_limits_s(goal.quantity.load),
            )
            for goal in self.study.slo.goals
        )
        if any(value is None for value in objectives):
            reason = "no request ended well, so there is no value for the objective"
            return record.model_copy(update={"outcome": Outcome.INVALID, "reason": reason})
        return record.model_copy(update={"verdict": self._verdict(), "objectives": objectives})

    def _report_start(self, phase: StartPhase) -> None:
        self.on_phase(f"launch: {phase.value.replace('_', ' ')}")

    def _measure_points(self, engine: RunningEngine) -> None:
        goals = {goal.quantity.load for goal in self.study.slo.goals}
        endpoint = _endpoint_of(engine, self.study)
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

    def _warm_up(self, point: LoadPoint, endpoint: Endpoint, engine: RunningEngine) -> None:
        if point.warm_up_requests:
            endpoint.run(warm_up(self.study.slo.workload, point, salt=self._salt(point, LOOKS)))
            _raise_failure(engine)

    def _measure(self, point: LoadPoint, endpoint: Endpoint, engine: RunningEngine, look: int) -> None:
        """Measure once more and add it to what is known of the load point.

        A measurement that is not valid is repeated on the same engine: a launch costs far more.
        """
        reason = None
        for _ in range(VALID_ATTEMPTS):
            result, reason = self._offer(point, endpoint, engine, look)
            if reason is None:
                self._add(point, result, look)
                return
            self.on_phase(f"load: {point.label}, again: {reason}")
        raise LoadError(f"{point.label}: {reason}")

    def _offer(
        self, point: LoadPoint, endpoint: Endpoint, engine: RunningEngine, look: int
    ) -> tuple[LoadResult, str | None]:
        """Load an engine whose cache is empty; return what came of it and why it is not valid, if so."""
        engine.flush_cache()
        offered = offer(self.study.slo.workload, point, salt=self._salt(point, look))
        result = endpoint.run(offered)
        write_records(self._raw_file(point, f"-{look}"), result)
        _raise_failure(engine)
        return result, invalid_reason(result, offered)

    def _add(self, point: LoadPoint, result: LoadResult, look: int) -> None:
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
            client=_client_record(result.client),
            file=str(path.relative_to(self.folder)),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )

    def _raw_file(self, point: LoadPoint, suffix: str = "") -> Path:
        name = point.label.replace(" ", "-")
        return self.folder / "trials" / self.order.name / f"{name}{suffix}.npz"

    def _salt(self, point: LoadPoint, look: int) -> int:
        """A number of its own for every look, so that no prompt meets its twin in a cache."""
        index = self.study.slo.load.index(point)
        return (self.order.number * len(self.study.slo.load) + index) * (LOOKS + 1) + look

    def _verdict(self) -> Verdict:
        return judge(self.study.slo, self.measurements, error_rate=ERROR_RATE / LOOKS)

    def _is_undecided(self, point: LoadPoint) -> bool:
        """Whether another look can still change the trial's verdict."""
        texts = {ceiling.text for ceiling in self.study.slo.ceilings if ceiling.quantity.load == point.label}
        verdict = self._verdict()
        return verdict.decision is Decision.UNDECIDED and any(
            judged.decision is Decision.UNDECIDED for judged in verdict.ceilings if judged.ceiling in texts
        )


def take_over(record: TrialRecord, number: int, twin: TrialRecord) -> TrialRecord:
    """Return the record with the result of an earlier trial that is the same in effect."""
    return record.model_copy(
        update={
            "outcome": twin.outcome,
            "failure": twin.failure,
            "verdict": twin.verdict,
            "objectives": twin.objectives,
            "points": twin.points,
            "same_as": number,
        }
    )


def _endpoint_of(engine: RunningEngine, study: Study) -> Endpoint:
    match engine.address:
        case HttpAddress(base_url=base_url, vocabulary_size=vocabulary_size):
            return HttpEndpoint(
                base_url,
                study.slo.workload,
                model=study.space.model,
                vocabulary_size=vocabulary_size,
                is_alive=lambda: engine.failure() is None,
            )
        case endpoint:
            return endpoint


def _raise_failure(engine: RunningEngine) -> None:
    if (failure := engine.failure()) is not None:
        raise EngineError(failure)


def _client_record(client: ClientHealth | None) -> ClientRecord | None:
    if client is None:
        return None
    return ClientRecord(
        loop_lag_p99_s=client.loop_lag_p99_s,
        cpu_ratio=client.cpu_ratio,
        peak_in_flight=client.peak_in_flight,
    )
