"""Load points of a running engine, one after the other, to measurements and what is recorded of them.

In: a study, an order, an engine that serves. Out: `PointRecord`s, verdict and objectives, and raw files under
`trials/<number>/`. Talks to the engine, over HTTP or in virtual time. Invariants: raw records are on disk
before anything is derived from them; every load point begins with an empty cache.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from autotune.engine.launcher import HttpAddress, RunningEngine
from autotune.errors import LoadError
from autotune.failure import EngineError, EngineFailure
from autotune.load.arrivals import LoadPoint
from autotune.load.collapse import hang, serves_nothing
from autotune.load.health import invalid_reason
from autotune.load.records_file import write_records
from autotune.load.workload import offer, warm_up
from autotune.metrics import Measurement, join, measure
from autotune.order import TrialOrder, TrialTime
from autotune.record import ClientRecord, Outcome, PointRecord, Role, TrialRecord
from autotune.request import Endpoint, LoadResult, OfferedLoad, RequestRecord, due_order
from autotune.slo import (
    ERROR_RATE,
    FRESH_LAUNCHES,
    LOOKS,
    Decision,
    EarlyJudge,
    Stop,
    StopKind,
    Verdict,
    is_within_reach,
    judge_stopped,
)
from autotune.study import Study

VALID_ATTEMPTS = 3
"""How often a measurement that the load generator spoilt is tried on one engine."""

SILENCE_LIMIT_S = 120.0
"""For how long no byte of any answer may come while requests are in flight: far above any time a prefill of
every waiting prompt takes, far below a request's own time-out."""

_LIVE_SALT = 10**9
"""Above the number of looks of any study."""

OnPhase: TypeAlias = Callable[[str], None]


@dataclass
class Measuring:
    """One candidate's load points while they are measured; `folder` is the study's.

    `measurements` and `points` hold, by their labels, what is known so far, however it ends.
    """

    study: Study
    order: TrialOrder
    engine: RunningEngine
    folder: Path
    time: TrialTime
    on_phase: OnPhase
    measurements: dict[str, Measurement] = field(default_factory=dict)
    points: dict[str, PointRecord] = field(default_factory=dict)

    def measure_points(self) -> None:
        """Measure every load point that can still tell something.

        Raises:
            EngineError: the engine died, hangs or serves nothing.
            LoadError: no valid measurement came of `VALID_ATTEMPTS`.
            TimeIsUpError: the trial's time is over.
        """
        goals = {goal.quantity.load for goal in self.study.slo.goals}
        endpoint = self._endpoint()
        for point in self.study.slo.load:
            if self._is_lost() and not self.order.measure_all and point.label not in goals:
                continue
            self.on_phase(f"load: {point.label}")
            self._warm_up(point, endpoint)
            for look in range(LOOKS):
                self._measure(point, endpoint, look)
                if not self._is_worth_a_look(point, taken=look + 1):
                    break

    def with_result(self, record: TrialRecord) -> TrialRecord:
        """Return the record with its verdict and objectives; INVALID if an objective has no value."""
        objectives = []
        for goal in self.study.slo.goals:
            load = goal.quantity.load
            value = goal.quantity.of(self.measurements[load], self.study.slo.request_limits_s(load))
            if value is None:
                reason = f"nothing was measured for {goal.text!r}"
                return record.model_copy(update={"outcome": Outcome.INVALID, "reason": reason})
            objectives.append(value)
        return record.model_copy(update={"verdict": self.verdict, "objectives": tuple(objectives)})

    @property
    def verdict(self) -> Verdict:
        """What is known of the ceilings so far."""
        stops = {label: point.stopped for label, point in self.points.items() if point.stopped}
        return judge_stopped(self.study.slo, self.measurements, stops, error_rate=ERROR_RATE / LOOKS)

    @property
    def peak_in_flight(self) -> int:
        """The most requests that the engine had at once where it matters: no more can have run.

        That is at the load points of the objectives, and at that of a ceiling that is missed.
        """
        slo, missed = self.study.slo, self.verdict.missed
        loads = {goal.quantity.load for goal in slo.goals}
        loads |= {ceiling.quantity.load for ceiling in slo.ceilings if ceiling.text == missed}
        seen = (each.records for load, each in self.measurements.items() if load in loads)
        return max(map(_peak_in_flight, seen), default=0)

    def _endpoint(self) -> Endpoint:
        match self.engine.address:
            case HttpAddress(base_url=base_url, vocabulary_size=vocabulary_size):
                from autotune.load.client import HttpEndpoint  # noqa: PLC0415 - httpx takes 0.3 s

                return HttpEndpoint(
                    base_url,
                    self.study.slo.workload,
                    model=self.study.space.model,
                    vocabulary_size=vocabulary_size,
                    silence_limit_s=SILENCE_LIMIT_S,
                    is_alive=lambda: self.engine.failure() is None and self.time.left_s > 0,
                )
            case endpoint:
                return endpoint

    def _warm_up(self, point: LoadPoint, endpoint: Endpoint) -> None:
        if point.warm_up_requests:
            offered = warm_up(self.study.slo.workload, point, salt=self._salt(point, LOOKS))
            result = self._serve(offered, endpoint)
            if invalid_reason(result, offered) is None:
                self._refuse_failure(serves_nothing(result))

    def _serve(
        self,
        offered: OfferedLoad,
        endpoint: Endpoint,
        file: Path | None = None,
        onlooker: EarlyJudge | None = None,
    ) -> LoadResult:
        """Load the engine, keep the raw records, and refuse what neither ended by itself nor was decided."""
        self.time.check()
        result = endpoint.run(offered, onlooker)
        if file is not None:
            write_records(file, result)
        self._refuse_failure(self.engine.failure() or hang(result))
        return result

    def _refuse_failure(self, failure: EngineFailure | None) -> None:
        if failure is not None:
            raise EngineError(failure)
        self.time.check()

    def _measure(self, point: LoadPoint, endpoint: Endpoint, look: int) -> None:
        """Measure once more and add it to what is known of the load point.

        A measurement that is not valid is repeated on the same engine: a launch costs far more.
        """
        reason = None
        for _ in range(VALID_ATTEMPTS):
            result, stop, reason = self._offer(point, endpoint, look)
            if reason is None:
                self._add(point, result, look, stop)
                self._refuse_failure(serves_nothing(result))
                return
            self.on_phase(f"load: {point.label}, again: {reason}")
        raise LoadError(f"{point.label}: {reason}")

    def _offer(
        self, point: LoadPoint, endpoint: Endpoint, look: int
    ) -> tuple[LoadResult, Stop | None, str | None]:
        """Load an engine with an empty cache; return what came of it, why not more, why it is not valid."""
        self.engine.flush_cache()
        offered = offer(self.study.slo.workload, point, salt=self._salt(point, look))
        early = self._early_judge(point, len(offered.requests)) if look == 0 else None
        result = self._serve(offered, endpoint, self._raw_file(point, f"-{look}"), early)
        stop = early.stop if early else None
        if stop is not None:
            self.engine.abort_requests()
            result = replace(result, records=tuple(sorted(result.records, key=due_order)[: stop.requests]))
        return result, stop, invalid_reason(result, offered)

    def _early_judge(self, point: LoadPoint, planned: int) -> EarlyJudge | None:
        """Return who may stop a load point; what a whole one left undecided is measured whole again."""
        if not self.order.stops_early:
            return None
        lost, course = self.verdict.missed, self.order.courses.get(point.label)
        return EarlyJudge(self.study.slo, point, planned=planned, lost=lost, course=course)

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
        folder = self.folder / "trials" / self.order.records_folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}{suffix}.npz"

    def _salt(self, point: LoadPoint, look: int) -> int:
        """A number of its own for every look, so that no prompt meets its twin in a cache."""
        index = self.study.slo.load.index(point)
        live = self.order.live.value if self.order.live else 0
        return (self.order.number * len(self.study.slo.load) + index) * (LOOKS + 1) + look + live * _LIVE_SALT

    def _is_lost(self) -> bool:
        """Whether nothing that is left to be measured can make the candidate the best."""
        stops = [point.stopped.kind for point in self.points.values() if point.stopped]
        return StopKind.NO_CHANCE in stops or self.verdict.decision is Decision.MISSED

    def _is_worth_a_look(self, point: LoadPoint, *, taken: int) -> bool:
        """Whether the looks that are left can be expected to decide what is undecided.

        Those of a confirmation are pooled with another launch's.
        """
        launches = FRESH_LAUNCHES if self.order.role is Role.CONFIRMATION else 1
        ceilings = {each.text: each for each in self.study.slo.ceilings if each.quantity.load == point.label}
        times = launches * LOOKS / taken
        return not self._is_lost() and any(
            is_within_reach(judged, ceilings[judged.ceiling], times=times, error_rate=ERROR_RATE / LOOKS)
            for judged in self.verdict.ceilings
            if judged.ceiling in ceilings
        )


def _peak_in_flight(records: Sequence[RequestRecord]) -> int:
    moments = sorted(
        [(record.sent_s, 1) for record in records] + [(record.ended_s, -1) for record in records]
    )
    return max(accumulate(change for _, change in moments), default=0)
