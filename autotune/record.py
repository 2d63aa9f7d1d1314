"""What a trial leaves behind, as the storage keeps it: outcome, flags asked and effective, failure, points.

In: what trial.py saw. Out: `TrialRecord`, one JSON text in the trial's user attributes. Pure.
Invariant: a report, an export or a resumed study needs nothing but these records and the raw files they name.
"""

from dataclasses import asdict
from enum import StrEnum

from pydantic import Field

from autotune.document import Frozen
from autotune.engine.dialect import EffectiveFlags
from autotune.failure import EngineFailure
from autotune.metrics import PointSummary
from autotune.request import ClientHealth
from autotune.slo import Stop, Verdict
from autotune.space import Candidate, FlagValue


class Role(StrEnum):
    """Why a trial was run."""

    BASELINE = "baseline"
    SEARCH = "search"
    CONFIRMATION = "confirmation"


class Outcome(StrEnum):
    """How a trial ended; failed, missed and measured badly never look alike."""

    MEASURED = "measured"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    INVALID = "invalid"
    INTERRUPTED = "interrupted"


class ClientRecord(Frozen):
    """The load generator's self-check (`request.ClientHealth`), kept beside what it measured."""

    loop_lag_p99_s: float
    cpu_ratio: float
    peak_in_flight: int
    dispatch_delay_p99_s: float = 0.0
    dispatch_delay_mean_s: float = 0.0
    tokens_per_read: float = 1.0
    cpu_s_per_1000_tokens: float = 0.0
    clock_drift_s: float = 0.0
    has_kernel_stamps: bool = True
    processes: int = 1

    @classmethod
    def of(cls, client: ClientHealth | None) -> "ClientRecord | None":
        """Return what is kept of a self-check; there is none in virtual time."""
        return None if client is None else cls.model_validate(asdict(client))


class PointRecord(Frozen):
    """One measured load point. `file` is relative to the study's folder, `sha256` that of the file.

    `stopped`: why it was not measured to its end; then its values are partial, those of the first requests,
    while the file has every request that was sent.
    """

    load: str
    summary: PointSummary
    goodput_rps: float
    client: ClientRecord | None
    file: str
    sha256: str
    stopped: Stop | None = None


class AnswersRecord(Frozen):
    """What was answered to the fixed prompts: the raw file with its hash, or why nothing was."""

    file: str | None = None
    sha256: str | None = None
    reason: str | None = None


class TrialRecord(Frozen):
    """One trial. Durations and `began_s` are seconds on the study's clock (virtual if `is_simulated`).

    `objectives`: one value per objective, in the SLO's order; None unless measured.
    `reason`: why it is INFEASIBLE, INVALID or INTERRUPTED; a FAILED one has its `failure`.
    `confirms`: the number of the trial whose candidate a confirmation launched again.
    `same_as`: the number of an earlier trial with the same effective flags, whose numbers were taken over.
    `measured_live_on`: the number of the trial on whose engine it was measured, a flag being changed while
    that ran; it was not launched, took the time of its own load, and its effective flags are those of then.
    `nodes`: where it ran, if the study has several slots; `slots`: how many of them shared its time.
    `answers`: of a confirmation only.
    """

    outcome: Outcome
    role: Role
    candidate: dict[str, FlagValue]
    is_simulated: bool
    began_s: float
    durations_s: dict[str, float] = Field(default={})
    start_phases_s: dict[str, float] = Field(default={})
    effective: EffectiveFlags | None = None
    failure: EngineFailure | None = None
    reason: str | None = None
    points: tuple[PointRecord, ...] = ()
    verdict: Verdict | None = None
    objectives: tuple[float, ...] | None = None
    confirms: int | None = None
    same_as: int | None = None
    measured_live_on: int | None = None
    nodes: tuple[str, ...] = ()
    slots: int = 1
    answers: AnswersRecord | None = None

    @property
    def duration_s(self) -> float:
        """Everything the trial took."""
        return sum(self.durations_s.values())

    @property
    def is_launch(self) -> bool:
        """Whether it took a launch of its own."""
        return bool(self.durations_s) and self.measured_live_on is None

    @property
    def is_lost_to_node(self) -> bool:
        """Whether a node failed under it, which says nothing about its candidate."""
        return self.failure is not None and self.failure.kind.is_of_the_node

    def to_candidate(self) -> Candidate:
        """Return the candidate that was asked for."""
        return Candidate.of(self.candidate)

    def point(self, load: str) -> PointRecord | None:
        """Return the record of a load point, None if it was not measured."""
        return next((point for point in self.points if point.load == load), None)

    def whole_point(self, load: str) -> PointRecord | None:
        """Return the record of a load point that was measured to its end, None if it was not."""
        point = self.point(load)
        return point if point is not None and point.stopped is None else None

    @property
    def stops(self) -> tuple[PointRecord, ...]:
        """The load points that were stopped while they ran."""
        return tuple(point for point in self.points if point.stopped is not None)

    def take_over(self, number: int, twin: "TrialRecord") -> "TrialRecord":
        """Return the record with the result of an earlier trial that is the same in effect."""
        return self.model_copy(
            update={
                "outcome": twin.outcome,
                "failure": twin.failure,
                "verdict": twin.verdict,
                "objectives": twin.objectives,
                "points": twin.points,
                "same_as": number,
                "measured_live_on": twin.measured_live_on,
            }
        )
