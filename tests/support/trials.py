"""Finished trials with a given outcome, as the storage would hold them."""

from typing import Any

from autotune.engine.dialect import EffectiveFlags
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.metrics import measure
from autotune.record import Outcome, PointRecord, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial
from autotune.slo import Slo, Verdict, judge
from autotune.space import FlagValue
from autotune.study import Study
from tests.support.records import steady_records

STUDY = Study.model_validate(
    {
        "name": "s",
        "space": {
            "version": "0.5.23",
            "model": "m",
            "launcher": "simulated",
            "profile": "llama-8b-1xh100",
            "tune": {
                "chunked-prefill-size": {"int": [512, 8192], "scale": "log", "multiple_of": 64},
                "max-running-requests": {"int": [8, 256], "scale": "log"},
                "mem-fraction-static": {"float": [0.7, 0.9], "step": 0.05},
                "schedule-policy": {"choices": ["fcfs", "lpm"]},
            },
        },
        "slo": {
            "workload": {"input_tokens": 256, "output_tokens": 32},
            "load": [{"concurrency": 4, "requests": 40}],
            "ceilings": ["ttft p95 < 1s at concurrency 4"],
            "objective": "maximise output_throughput at concurrency 4",
        },
    }
)


def verdict(slo: Slo, ttft_s: float) -> Verdict:
    """The verdict on 200 requests that all had this TTFT."""
    return judge(
        slo, {"concurrency 4": measure(steady_records([ttft_s] * 200, concurrency=4), concurrency=4)}
    )


def measured(
    *values: float,
    ttft_s: float = 0.5,
    role: Role = Role.SEARCH,
    confirms: int | None = None,
    flags: dict[str, FlagValue] | None = None,
    slo: Slo = STUDY.slo,
    **changes: Any,
) -> TrialRecord:
    """A measured trial of 100 s with these objective values."""
    records = steady_records([ttft_s] * 40, concurrency=4)
    point = PointRecord(
        load="concurrency 4",
        summary=measure(records, concurrency=4).summary(),
        goodput_rps=1.0,
        client=None,
        file="trials/0000/concurrency-4.npz",
        sha256="0" * 64,
    )
    fields: dict[str, Any] = {
        "outcome": Outcome.MEASURED,
        "role": role,
        "candidate": flags if flags is not None else {"max-running-requests": int(values[0])},
        "is_simulated": True,
        "began_s": 0.0,
        "durations_s": {"launch": 60.0, "load": 40.0},
        "effective": EffectiveFlags(flags=dict(flags or {}), running_limit=8),
        "points": (point,),
        "verdict": verdict(slo, ttft_s),
        "objectives": values,
        "confirms": confirms,
    }
    return TrialRecord(**(fields | changes))


def failed(role: Role = Role.SEARCH, confirms: int | None = None, **changes: Any) -> TrialRecord:
    """A trial whose engine found no room for its KV pool."""
    failure = EngineFailure(
        kind=FailureKind.NO_KV_MEMORY, phase=StartPhase.KV_POOL, line="Not enough memory."
    )
    fields: dict[str, Any] = {
        "outcome": Outcome.FAILED,
        "role": role,
        "candidate": {"mem-fraction-static": 0.7},
        "is_simulated": True,
        "began_s": 0.0,
        "durations_s": {"launch": 30.0},
        "failure": failure,
        "confirms": confirms,
    }
    return TrialRecord(**(fields | changes))


def numbered(*records: TrialRecord) -> tuple[NumberedTrial, ...]:
    """Number the records from 0."""
    return tuple(NumberedTrial(number, record) for number, record in enumerate(records))


def with_goals(*goals: str) -> Study:
    """STUDY with several objectives; throughput up and TTFT down unless others are given."""
    default = ("maximise output_throughput at concurrency 4", "minimise ttft p95 at concurrency 4")
    data = STUDY.slo.model_dump(exclude={"objective"}) | {"objectives": list(goals or default)}
    return STUDY.model_copy(update={"slo": Slo.model_validate(data)})
