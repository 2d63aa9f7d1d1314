"""Histories of made-up studies, built record by record: what reports and exports are tested on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.engine.dialect import EffectiveFlags
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.load.answers import AnswerUnit
from autotune.metrics import LatencySummary, Metric, PointSummary
from autotune.record import ClientRecord, Outcome, PointRecord, Role, TrialRecord
from autotune.search.alike import Alikeness, AnswerDifference, AnswersVerdict
from autotune.search.answer import Answer, AnswerKind, Confirmed
from autotune.search.confirmation import NumberedTrial
from autotune.search.gains import Gain
from autotune.search.study_history import StudyHistory
from autotune.slo import CeilingVerdict, Decision, Quantity, Slo, Verdict
from autotune.space import FlagValue, SearchSpace
from autotune.study import Study

FASTER: dict[str, FlagValue] = {"chunked-prefill-size": 8192, "schedule-policy": "lpm"}
SLOWER: dict[str, FlagValue] = {"chunked-prefill-size": 2048, "schedule-policy": "fcfs"}
SPACE: dict[str, Any] = {
    "version": "0.5.23",
    "model": "deepseek-ai/DeepSeek-R1",
    "image": "lmsysorg/sglang:v0.5.23",
    "nodes": [{"name": "node0", "address": "10.0.0.10", "gpus": 8}],
    "mounts": [{"source": "/data/models", "target": "/models", "read_only": True}],
    "environment": {"NCCL_DEBUG": "INFO"},
    "environment_from": ["HF_TOKEN"],
    "flags": {"tp-size": 8, "trust-remote-code": True},
    "tune": {
        "chunked-prefill-size": {"int": [1024, 32768]},
        "schedule-policy": {"choices": ["fcfs", "lpm"]},
    },
}
TWO_NODES = {
    "nodes": [
        {"name": "node0", "address": "10.0.0.10", "gpus": 8},
        {"name": "node1", "address": "10.0.0.11", "gpus": 8},
    ],
    "flags": {"tp-size": 16, "trust-remote-code": True},
}
SLO: dict[str, Any] = {
    "workload": {"input_tokens": 1024, "output_tokens": 256, "seed": 7},
    "load": [{"concurrency": 50, "requests": 300}, {"concurrency": 100, "requests": 400}],
    "ceilings": [
        "ttft p95 < 10s at concurrency 50",
        "output_throughput > 500tok/s at concurrency 50",
        "error_ratio < 0.1% at concurrency 50",
    ],
    "objective": "maximise output_throughput at concurrency 50",
}
TWO_OBJECTIVES = {
    "objective": None,
    "objectives": [
        "maximise output_throughput at concurrency 50",
        "minimise ttft p95 at concurrency 50",
    ],
}


def make_study(space: Mapping[str, Any] = {}, slo: Mapping[str, Any] = {}) -> Study:
    return Study(
        name="r1",
        space=SearchSpace.model_validate({**SPACE, **space}),
        slo=Slo.model_validate({**SLO, **slo}),
        seed=3,
    )


def latency(middle_s: float, p95_s: float, count: int = 250) -> LatencySummary:
    return LatencySummary(
        count=count,
        mean=middle_s * 1.1,
        minimum=middle_s / 4,
        maximum=p95_s * 1.5,
        p50=middle_s,
        p90=p95_s * 0.9,
        p95=p95_s,
        p99=p95_s * 1.2,
        p95_low=p95_s * 0.95,
        p95_high=None,
    )


def summary(throughput_tps: float, ttft_p95_s: float, error_ratio: float = 0.0) -> PointSummary:
    return PointSummary(
        sent=300,
        succeeded=300,
        failures={},
        window_s=61.5,
        is_steady=True,
        ttft=latency(ttft_p95_s / 3, ttft_p95_s),
        tpot=latency(0.031, 0.04),
        itl=latency(0.03, 0.09),
        e2e=latency(9.0, 14.0),
        error_ratio=error_ratio,
        output_throughput_tps=throughput_tps,
        total_throughput_tps=throughput_tps * 5,
        request_throughput_rps=throughput_tps / 256,
        cached_ratio=0.0,
    )


def point(number: int, load: str, what: PointSummary) -> PointRecord:
    name = load.replace(" ", "-")
    return PointRecord(
        load=load,
        summary=what,
        goodput_rps=what.request_throughput_rps,
        client=ClientRecord(loop_lag_p99_s=0.002, cpu_ratio=0.2, peak_in_flight=50),
        file=f"trials/{number:04}/{name}.npz",
        sha256=f"{number:064x}",
    )


def value_of(quantity: Quantity, what: PointSummary) -> float:
    found = what.value(quantity.metric, quantity.statistic)
    assert found is not None
    return found


def verdict(slo: Slo, what: PointSummary, *, undecided: Sequence[str] = ()) -> Verdict:
    judged = []
    for ceiling in slo.ceilings:
        value = value_of(ceiling.quantity, what)
        margin_ratio = ceiling.margin_ratio(value)
        decision = Decision.MET if margin_ratio >= 0 else Decision.MISSED
        judged.append(
            CeilingVerdict(
                ceiling=ceiling.text,
                decision=Decision.UNDECIDED if ceiling.text in undecided else decision,
                value=value,
                limit=ceiling.limit,
                margin_ratio=margin_ratio,
                samples=250 if ceiling.quantity.metric is Metric.TTFT else 300,
            )
        )
    return Verdict(ceilings=tuple(judged))


def trial(
    study: Study,
    number: int,
    candidate: Mapping[str, FlagValue],
    throughput_tps: float,
    ttft_p95_s: float,
    *,
    role: Role = Role.SEARCH,
    confirms: int | None = None,
    undecided: Sequence[str] = (),
    is_simulated: bool = False,
) -> NumberedTrial:
    what = summary(throughput_tps, ttft_p95_s)
    heavier = summary(throughput_tps * 1.2, ttft_p95_s * 2)
    record = TrialRecord(
        outcome=Outcome.MEASURED,
        role=role,
        candidate=dict(candidate),
        is_simulated=is_simulated,
        began_s=600.0 * number,
        durations_s={"launch": 412.0, "load": 95.5, "teardown": 4.0},
        effective=EffectiveFlags(
            flags={"chunked-prefill-size": candidate.get("chunked-prefill-size", 4096), "dtype": None},
            kv_tokens=412345,
            running_limit=78,
            version="0.5.23",
        ),
        points=(point(number, "concurrency 50", what), point(number, "concurrency 100", heavier)),
        verdict=verdict(study.slo, what, undecided=undecided),
        objectives=tuple(value_of(goal.quantity, what) for goal in study.slo.goals),
        confirms=confirms,
    )
    return NumberedTrial(number, record)


def failed(
    number: int, kind: FailureKind, line: str, *, candidate: Mapping[str, FlagValue] = FASTER
) -> NumberedTrial:
    record = TrialRecord(
        outcome=Outcome.FAILED,
        role=Role.SEARCH,
        candidate=dict(candidate),
        is_simulated=False,
        began_s=600.0 * number,
        durations_s={"launch": 61.0},
        failure=EngineFailure(
            kind=kind, phase=StartPhase.KV_POOL, line=line, exit_code=1, log_tail=("before", line, "after")
        ),
    )
    return NumberedTrial(number, record)


def without_engine(number: int, outcome: Outcome, reason: str) -> NumberedTrial:
    record = TrialRecord(
        outcome=outcome,
        role=Role.SEARCH,
        candidate={"chunked-prefill-size": 32768},
        is_simulated=False,
        began_s=600.0 * number,
        reason=reason,
    )
    return NumberedTrial(number, record)


def history(
    study: Study, *trials: NumberedTrial, answer: Answer | None = None, running: int = 0
) -> StudyHistory:
    return StudyHistory(study=study, folder=Path("runs/r1"), trials=trials, running=running, answer=answer)


def confirmed(
    study: Study,
    number: int,
    throughput_tps: float,
    ttft_p95_s: float,
    *,
    gain: Gain | None = None,
    failed_launches: int = 0,
    undecided: Sequence[str] = (),
) -> Confirmed:
    """Two fresh launches 1 % below and above these values; `gain` in the first objective."""
    what = summary(throughput_tps, ttft_p95_s)
    values = [value_of(goal.quantity, what) for goal in study.slo.goals]
    return Confirmed(
        trial=number,
        values=tuple(tuple(value * share for value in values) for share in (0.99, 1.01)),
        failed_launches=failed_launches,
        verdict=verdict(study.slo, what, undecided=undecided),
        gains=() if gain is None else (gain, *[None] * (len(values) - 1)),
    )


def answered(
    kind: AnswerKind,
    winner: int | None,
    baseline: Confirmed | None,
    *finalists: Confirmed,
    is_simulated: bool = False,
) -> Answer:
    return Answer(
        kind=kind,
        winner=winner,
        baseline=baseline,
        finalists=finalists,
        error_rate=0.05,
        is_simulated=is_simulated,
    )


def improved(
    space: Mapping[str, Any] = {},
    slo: Mapping[str, Any] = {},
    *,
    is_simulated: bool = False,
) -> StudyHistory:
    """Trial 2 beats the baseline by 12 %; trial 1 misses, trials 3 to 6 were not measured."""
    study = make_study(space, slo)
    trials = [
        trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE, is_simulated=is_simulated),
        trial(study, 1, SLOWER, 900.0, 12.5, is_simulated=is_simulated),
        trial(study, 2, FASTER, 1130.0, 7.0, is_simulated=is_simulated),
        failed(3, FailureKind.NO_KV_MEMORY, "RuntimeError: Not enough memory", candidate=SLOWER),
        failed(4, FailureKind.NO_KV_MEMORY, "RuntimeError: Not enough memory. Raise mem-fraction-static"),
        without_engine(5, Outcome.INFEASIBLE, "trial 3 crashed with less"),
        without_engine(6, Outcome.INVALID, "the client was 0.8 busy"),
        trial(study, 7, {}, 1001.0, 8.1, role=Role.CONFIRMATION, confirms=0, is_simulated=is_simulated),
        trial(study, 8, FASTER, 1120.0, 7.2, role=Role.CONFIRMATION, confirms=2, is_simulated=is_simulated),
    ]
    answer = answered(
        AnswerKind.IMPROVED,
        2,
        confirmed(study, 0, 1000.0, 8.1),
        confirmed(study, 2, 1120.0, 7.2, gain=Gain(estimate=0.12, low=0.081, high=0.16)),
        is_simulated=is_simulated,
    )
    return history(study, *trials, answer=answer)


def live(study: Study, number: int, host: int, *, throughput_tps: float = 1300.0) -> NumberedTrial:
    """A candidate that was measured on the host's engine, and meets the SLO."""
    made = trial(study, number, {**FASTER, "chunked-prefill-size": 4096}, throughput_tps, 6.0)
    changes = {"measured_live_on": host, "durations_s": {"load": 95.5}}
    return replace(made, record=made.record.model_copy(update=changes))


def measured_live(*, is_confirmed: bool = False) -> StudyHistory:
    """Trial 2, the best, was measured live on trial 1; with a fresh launch of it if `is_confirmed`."""
    study = make_study()
    trials = [
        trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE),
        trial(study, 1, FASTER, 1100.0, 7.0),
        live(study, 2, 1),
    ]
    if is_confirmed:
        flags = trials[2].record.candidate
        trials.append(trial(study, 3, flags, 1290.0, 6.0, role=Role.CONFIRMATION, confirms=2))
    return history(study, *trials)


def kept() -> StudyHistory:
    """The finalist's gain may be nothing: the baseline stays."""
    study = make_study()
    gain = Gain(estimate=0.01, low=-0.02, high=0.04)
    answer = answered(
        AnswerKind.KEEP_BASELINE,
        0,
        confirmed(study, 0, 1000.0, 8.0),
        confirmed(study, 1, 1010.0, 8.0, gain=gain),
    )
    trials = [
        trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE),
        trial(study, 1, FASTER, 1100.0, 7.0),
    ]
    return history(study, *trials, answer=answer)


def nothing_meets() -> StudyHistory:
    """The baseline misses by half the limit, trial 1 by a fifth."""
    study = make_study()
    trials = [
        trial(study, 0, {}, 1000.0, 15.0, role=Role.BASELINE),
        trial(study, 1, FASTER, 1100.0, 12.0),
        failed(2, FailureKind.CRASHED, "Segmentation fault"),
    ]
    return history(study, *trials, answer=answered(AnswerKind.NOTHING_MEETS, None, None))


def not_confirmed() -> StudyHistory:
    """The finalist failed in one of its fresh launches."""
    study = make_study()
    trials = [
        trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE),
        trial(study, 1, FASTER, 1100.0, 7.0),
    ]
    answer = answered(
        AnswerKind.NOT_CONFIRMED,
        None,
        confirmed(study, 0, 1000.0, 8.0),
        confirmed(study, 1, 1100.0, 7.0, failed_launches=1),
    )
    return history(study, *trials, answer=answer)


def unfinished() -> StudyHistory:
    """Two candidates measured, one running."""
    study = make_study()
    trials = [
        trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE),
        trial(study, 1, FASTER, 1100.0, 7.0),
        trial(study, 2, SLOWER, 1200.0, 9.8, undecided=["ttft p95 < 10s at concurrency 50"]),
    ]
    return history(study, *trials, running=1)


def empty() -> StudyHistory:
    """Nothing has finished yet."""
    return history(make_study(), running=1)


def pareto() -> StudyHistory:
    """Two objectives: trials 1 and 2 trade throughput for waiting time, trial 3 is worse than 1 in both."""
    study = make_study(slo=TWO_OBJECTIVES)
    trials = [
        trial(study, 0, {}, 700.0, 8.0, role=Role.BASELINE),
        trial(study, 1, FASTER, 900.0, 4.0),
        trial(study, 2, SLOWER, 1100.0, 9.0),
        trial(study, 3, {"chunked-prefill-size": 1024}, 850.0, 5.0),
    ]
    return history(study, *trials)


def front_answered() -> StudyHistory:
    """Trials 1 and 2 were launched again: each is better than the baseline in one objective only."""
    study = make_study(slo=TWO_OBJECTIVES)
    up, down = Gain(estimate=0.3, low=0.2, high=0.4), Gain(estimate=-0.4, low=-0.5, high=-0.3)
    finalists = (
        confirmed(study, 1, 700.0, 4.0).model_copy(update={"gains": (down, up)}),
        confirmed(study, 2, 1300.0, 9.0).model_copy(update={"gains": (up, down)}),
        confirmed(study, 3, 650.0, 7.9).model_copy(update={"gains": (down, None)}),
    )
    answer = answered(AnswerKind.FRONT, None, confirmed(study, 0, 1000.0, 6.0), *finalists)
    trials = [
        trial(study, 0, {}, 1000.0, 6.0, role=Role.BASELINE),
        trial(study, 1, FASTER, 700.0, 4.0),
        trial(study, 2, SLOWER, 1300.0, 9.0),
        trial(study, 3, {"chunked-prefill-size": 1024}, 650.0, 7.9),
    ]
    return history(study, *trials, answer=answer.model_copy(update={"front": (0, 1, 2)}))


def undecided() -> StudyHistory:
    """Trial 1 is below the limit of a percentile, but too few requests show it."""
    study = make_study()
    ceiling = study.slo.ceilings[0].text
    open_ = trial(study, 1, FASTER, 1100.0, 9.8, undecided=[ceiling])
    verdict_ = open_.record.verdict
    assert verdict_ is not None
    seen = {"share_over": 0.04, "independent_samples": 250.0, "requests": 250.0}
    judged = (verdict_.ceilings[0].model_copy(update=seen), *verdict_.ceilings[1:])
    record = open_.record.model_copy(update={"verdict": Verdict(ceilings=judged)})
    trials = [trial(study, 0, {}, 1000.0, 15.0, role=Role.BASELINE), NumberedTrial(1, record)]
    return history(study, *trials, answer=answered(AnswerKind.UNDECIDED, None, None))


def answering(history_: StudyHistory, number: int, alike: Alikeness) -> StudyHistory:
    """The same history, in which this finalist's answers compare so with the baseline's."""
    assert history_.answer is not None
    finalists = tuple(
        each.model_copy(update={"alike": alike}) if each.trial == number else each
        for each in history_.answer.finalists
    )
    return replace(history_, answer=history_.answer.model_copy(update={"finalists": finalists}))


ALIKE = Alikeness(
    verdict=AnswersVerdict.ALIKE,
    unit=AnswerUnit.IDS,
    prompts=16,
    cross=AnswerDifference(equal_ratio=0.98, changed_ratio=0.1, first_divergence=21, drift_nats=0.0042),
    own=AnswerDifference(equal_ratio=1.0, changed_ratio=0.0, first_divergence=None, drift_nats=0.0039),
)
DIFFERENT = Alikeness(
    verdict=AnswersVerdict.DIFFERENT,
    unit=AnswerUnit.CHARACTERS,
    prompts=16,
    cross=AnswerDifference(equal_ratio=0.4, changed_ratio=1.0, first_divergence=2, drift_nats=None),
    own=AnswerDifference(equal_ratio=1.0, changed_ratio=0.0, first_divergence=None, drift_nats=None),
)
NOT_ASKED = Alikeness(
    verdict=AnswersVerdict.UNKNOWN, reason="a simulated engine has no model that could answer"
)
