import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.document import read_document
from autotune.errors import ConfigError
from autotune.load.arrivals import LoadPoint
from autotune.metrics import Metric, join, measure
from autotune.request import RequestFailure, RequestFailureKind, RequestPhase
from autotune.slo import ERROR_RATE, Decision, Slo, Verdict, judge, pool, undecidable, violation, violations
from tests.support.records import steady_records

TIMEOUT = RequestFailure(RequestFailureKind.TIMEOUT, RequestPhase.STREAM, "late")
OBJECTIVE = "maximise output_throughput at concurrency 4"


def slo_of(*ceilings: str, **changes: Any) -> Slo:
    data = {
        "workload": {"input_tokens": 8, "output_tokens": 4},
        "load": [{"concurrency": 4, "requests": 40}, {"rate": 2, "requests": 40}],
        "ceilings": list(ceilings),
        "objective": "maximise output_throughput at concurrency 4",
    }
    return Slo.model_validate(data | changes)


@pytest.mark.parametrize(
    ("text", "metric", "statistic", "limit"),
    [
        ("ttft p95 < 10s at concurrency 4", Metric.TTFT, "p95", 10.0),
        ("itl p99.9 <= 200 ms at concurrency 4", Metric.ITL, "p99.9", 0.2),
        ("tpot mean < 50ms at rate 2", Metric.TPOT, "mean", 0.05),
        ("e2e max < 1min at rate 2.0", Metric.E2E, "max", 60.0),
        ("error_ratio < 0.1% at rate 2", Metric.ERROR_RATIO, None, 0.001),
        ("goodput > 3req/s at concurrency 4", Metric.GOODPUT, None, 3.0),
        ("output_throughput >= 1.5ktok/s at concurrency 4", Metric.OUTPUT_THROUGHPUT, None, 1500.0),
    ],
)
def test_a_ceiling_is_one_line(text: str, metric: Metric, statistic: str | None, limit: float) -> None:
    ceiling = slo_of(text).ceilings[0]

    assert (ceiling.quantity.metric, ceiling.quantity.statistic) == (metric, statistic)
    assert ceiling.limit == pytest.approx(limit)
    assert ceiling.is_floor == (">" in text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttft p95 < 10 at concurrency 4", "the limit has no unit; ttft takes s, ms"),
        ("ttft p95 < 10tok/s at concurrency 4", "unknown unit 'tok/s'"),
        ("tttf p95 < 10s at concurrency 4", "Did you mean 'ttft'"),
        ("latency < 10s at concurrency 4", "unknown metric 'latency'. Known: ttft"),
        ("ttft < 10s at concurrency 4", "needs a statistic"),
        ("ttft median < 10s at concurrency 4", "needs a statistic"),
        ("error_ratio p95 < 1% at concurrency 4", "takes no statistic"),
        ("ttft p95 < 10s", "not a ceiling"),
        ("ttft p95 < 10s at concurrency 5", "names no load point"),
    ],
)
def test_a_ceiling_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        slo_of(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "faster"}, "not an objective"),
        ({"objective": None}, "either objective"),
        ({"objectives": ["minimise ttft p95 at rate 2"]}, "either objective"),
        ({"objective": "maximise output_throughput at rate 3"}, "names no load point"),
        ({"load": [{"concurrency": 4, "requests": 4}, {"concurrency": 4, "requests": 8}]}, "both"),
        ({"load": []}, "at least 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        slo_of(**changes)


def _verdict(slo: Slo, ttft_s: list[float]) -> Any:
    """The verdict on requests with these times, in no order."""
    records = steady_records(random.Random(1).sample(ttft_s, len(ttft_s)), concurrency=4)  # noqa: S311
    return judge(slo, {"concurrency 4": measure(records, concurrency=4)})


def test_a_percentile_is_decided_by_the_exact_interval_of_the_share_over_its_limit() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4")

    assert _verdict(slo, [0.5] * 200).decision is Decision.MET
    assert _verdict(slo, [0.5] * 160 + [2.0] * 40).decision is Decision.MISSED
    assert _verdict(slo, [0.5] * 20).decision is Decision.UNDECIDED
    assert _verdict(slo, [0.5] * 188 + [2.0] * 12).decision is Decision.UNDECIDED


def test_a_mean_is_decided_by_its_value() -> None:
    slo = slo_of("ttft mean < 1s at concurrency 4", "ttft min > 2s at concurrency 4")

    verdict = _verdict(slo, [0.5] * 20)

    assert [judged.decision for judged in verdict.ceilings] == [Decision.MET, Decision.MISSED]
    assert verdict.ceilings[0].margin_ratio == pytest.approx(0.5)
    assert verdict.binding is verdict.ceilings[1]
    assert violation(verdict.ceilings[0]) < 0 < violation(verdict.ceilings[1])


def test_a_percentile_floor_is_turned_round() -> None:
    slo = slo_of("ttft p5 > 0.1s at concurrency 4")

    assert _verdict(slo, [0.5] * 200).decision is Decision.MET
    assert _verdict(slo, [0.05] * 200).decision is Decision.MISSED


def test_nothing_measured_is_a_miss_with_the_worst_margin() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4")

    verdict = judge(slo, {"concurrency 4": measure([], concurrency=4)})

    assert verdict.ceilings[0].decision is Decision.MISSED
    assert verdict.ceilings[0].margin_ratio == -10


def test_violations_are_those_of_the_verdict() -> None:
    limits = ("ttft p95 < 1s", "ttft p5 > 0.1s", "tpot mean < 5ms", "error_ratio < 1%", "goodput > 1req/s")
    slo = slo_of(*(f"{limit} at concurrency 4" for limit in limits))
    records = steady_records([0.5, 0.7, 1.5] * 10, concurrency=4)
    for failed in ((), (9, 12), range(len(records))):
        shown = [replace(each, failure=TIMEOUT if each.index in failed else None) for each in records]
        measured = {"concurrency 4": measure(shown, concurrency=4)}
        judged = {each.ceiling: violation(each) for each in judge(slo, measured).ceilings}
        assert violations(slo, measured) == judged


def _with_failures(slo: Slo, ttft_s: list[float], failed: int) -> Verdict:
    """The verdict on requests of which some failed, here and there."""
    records = steady_records(ttft_s, concurrency=4)
    for index in random.Random(1).sample(range(4, len(records)), failed):  # noqa: S311
        records[index] = replace(records[index], failure=TIMEOUT)
    return judge(slo, {"concurrency 4": measure(records, concurrency=4)})


@pytest.mark.parametrize("statistic", ["p95", "p50", "mean", "max"])
def test_dropping_slow_requests_does_not_help_a_latency_ceiling(statistic: str) -> None:
    slo = slo_of(f"ttft {statistic} < 1s at concurrency 4")

    verdict = _with_failures(slo, [0.5] * 400, failed=240)

    assert verdict.decision is Decision.MISSED
    assert verdict.ceilings[0].value == pytest.approx(0.5)
    assert verdict.ceilings[0].margin_ratio < 0
    assert verdict.ceilings[0].failed == 240


def test_a_failed_request_is_one_request_over_a_percentile_ceiling() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4", "itl p95 < 1s at concurrency 4")

    verdict = _with_failures(slo, [0.5] * 400, failed=4)

    assert verdict.decision is Decision.MET
    assert [judged.share_over for judged in verdict.ceilings] == pytest.approx([0.01, 0.01])
    assert [judged.requests for judged in verdict.ceilings] == pytest.approx([400, 400], rel=0.05)


def test_a_failed_request_does_not_help_a_latency_floor() -> None:
    slo = slo_of("ttft p5 > 0.1s at concurrency 4", "ttft min > 0.1s at concurrency 4")

    verdict = _with_failures(slo, [0.5] * 400, failed=100)

    assert [judged.decision for judged in verdict.ceilings] == [Decision.MISSED, Decision.MISSED]


def test_where_every_request_failed_a_ceiling_is_missed_and_has_no_value() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4", "ttft mean < 1s at concurrency 4")
    records = [replace(each, failure=TIMEOUT) for each in steady_records([0.5] * 40, concurrency=4)]

    verdict = judge(slo, {"concurrency 4": measure(records, concurrency=4)})

    for judged in verdict.ceilings:
        assert (judged.decision, judged.value, judged.margin_ratio) == (Decision.MISSED, None, -10)


def test_an_objective_takes_a_failed_request_for_as_slow_as_the_slowest() -> None:
    slo = slo_of(objective="minimise ttft p95 at concurrency 4")
    records = steady_records([0.5] * 80 + [0.9] * 2 + [0.5] * 18, concurrency=4)
    broken = [*records[:-10], *(replace(each, failure=TIMEOUT) for each in records[-10:])]
    quantity = slo.goals[0].quantity

    assert quantity.of(measure(records, concurrency=4), {}) == pytest.approx(0.5)
    assert quantity.of(measure(broken, concurrency=4), {}) == pytest.approx(0.9)
    assert quantity.of(measure([], concurrency=4), {}) is None


def _undecidable(load: dict[str, Any], *ceilings: str) -> list[str]:
    slo = slo_of(*ceilings, load=[load], objective=f"maximise goodput at {LoadPoint(**load).label}")
    return [f"{each.key}: {each.message} {each.remedy}" for each in undecidable(slo)]


def test_a_load_point_too_small_for_its_percentile_is_named_with_what_would_do() -> None:
    ceilings = ("ttft p95 < 1s at concurrency 50", "itl p99 < 1s at concurrency 50")

    problems = _undecidable({"concurrency": 50, "requests": 100}, *ceilings)

    assert len(problems) == 1
    assert problems[0].startswith("ceilings.1: ")
    assert "300 requests" in problems[0]
    assert "368" in problems[0]
    assert "requests: 112" in problems[0]
    assert _undecidable({"concurrency": 50, "requests": 112}, *ceilings) == []


def test_the_named_number_of_requests_is_the_least_that_can_decide() -> None:
    ceiling = "ttft p95 < 1s at concurrency 4"
    points = {count: _undecidable({"concurrency": 4, "requests": count}, ceiling) for count in (15, 16)}

    assert "requests: 16" in points[15][0]
    assert points[16] == []


def test_a_single_wave_counts_whole_and_an_open_loop_has_no_opening_wave() -> None:
    assert _undecidable({"concurrency": 90, "requests": 90}, "ttft p95 < 1s at concurrency 90") == []
    assert _undecidable({"rate": 1, "requests": 12}, "ttft p95 < 1s at rate 1") == []
    assert _undecidable({"rate": 1, "requests": 11}, "ttft p95 < 1s at rate 1") != []
    by_time = _undecidable({"rate": 2, "duration_s": 5}, "ttft p95 < 1s at rate 2")
    climbing = _undecidable({"steps": [1, 3], "duration_s": 5}, "ttft p95 < 1s at rate 3")
    assert "duration_s: 6" in by_time[0]
    assert "duration_s: 6" in climbing[0]


def test_what_is_decided_by_value_or_limited_by_time_is_never_undecidable() -> None:
    ceilings = ("ttft mean < 1s at concurrency 4", "error_ratio < 1% at concurrency 4")

    assert _undecidable({"concurrency": 4, "requests": 5}, *ceilings) == []
    assert _undecidable({"concurrency": 4, "duration_s": 1}, "ttft p99 < 1s at concurrency 4") == []
    assert _undecidable({"concurrency": 4, "requests": 5}, "ttft p1 > 1s at concurrency 4") != []


@given(st.integers(1, 400), st.sampled_from(["p50", "p90", "p95", "p99"]))
def test_undecidable_means_that_not_even_a_perfect_confirmation_decides(
    requests: int, statistic: str
) -> None:
    assume(requests != 2 * 4)  # two waves alike leave no window between them, so that both of them count
    load = {"concurrency": 4, "requests": requests}
    slo = slo_of(f"ttft {statistic} < 1s at concurrency 4", load=[load], objective=OBJECTIVE)
    look = measure(steady_records([0.5] * (requests - 4), concurrency=4)[:requests], concurrency=4)
    launch = join(join(look, look), look)

    verdict = judge(slo, {"concurrency 4": join(launch, launch)}, error_rate=ERROR_RATE)

    assert (verdict.decision is Decision.MET) == (not undecidable(slo))


def test_pooling_decides_what_one_launch_could_not() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4")
    one = _verdict(slo, [0.5] * 50)
    missed = _verdict(slo, [2.0] * 50)

    assert one.decision is Decision.UNDECIDED
    assert pool([one] * 4, slo).decision is Decision.MET
    assert pool([one, missed], slo).decision is Decision.MISSED
    assert pool([], slo).ceilings == ()


def test_what_is_decided_by_value_is_met_only_if_every_launch_met_it() -> None:
    slo = slo_of(
        "error_ratio < 1% at concurrency 4",
        "output_throughput > 9tok/s at concurrency 4",
        "ttft mean < 1s at concurrency 4",
    )
    fast, slow = _verdict(slo, [0.5] * 50), _verdict(slo, [2.0] * 50)

    assert [judged.decision for judged in pool([fast, fast], slo).ceilings] == [Decision.MET] * 3
    pooled = pool([fast, slow], slo).ceilings
    assert [judged.decision for judged in pooled] == [Decision.MET, Decision.MISSED, Decision.MISSED]
    assert pooled[0].samples == 2 * 54
    assert pooled[2].seen is None


def test_goodput_counts_requests_within_every_per_request_ceiling() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4", "goodput > 1req/s at concurrency 4")
    records = steady_records([0.5, 2.0] * 20, concurrency=4)
    measurement = measure(records, concurrency=4)

    limits = slo.request_limits_s("concurrency 4")

    assert limits == {Metric.TTFT: 1.0}
    assert 0 < measurement.goodput_rps(limits) < measurement.rate(Metric.REQUEST_THROUGHPUT)
    assert np.isclose(measurement.goodput_rps({}), measurement.rate(Metric.REQUEST_THROUGHPUT))


@pytest.mark.parametrize("path", sorted(Path("slo").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_slo_loads_and_can_be_decided(path: Path) -> None:
    slo = read_document(path).to_model(Slo)

    assert slo.ceilings
    assert undecidable(slo) == ()


FILE = """\
workload: {input_tokens: 8, output_tokens: 4}
load:
  - {concurrency: 4, requests: 40}
  - {concurrency: 8, requests: 40}
ceilings:
  - ttft p95 < 1s at concurrency 4
objective: maximise goodput at concurrency 4
"""


@pytest.mark.parametrize(
    ("written", "instead", "place", "message"),
    [
        ("1s at concurrency 4", "1s at concurrency 40", "6: ceilings.0: ", "names no load point"),
        ("goodput at concurrency 4", "goodput at rate 4", "7: objective: ", "names no load point"),
        (
            "objective: maximise goodput",
            "objectives:\n  - maximise goodput at rate 4 #",
            "8: objectives.0: ",
            "no load",
        ),
        ("concurrency: 8", "concurrency: 4", "4: load.1: ", "two load points"),
        ("objective: ", "objectives: [minimise e2e p9 at rate 1]\nobjective: ", "7: objectives: ", "either"),
    ],
)
def test_what_does_not_fit_together_is_reported_at_its_line(
    tmp_path: Path, written: str, instead: str, place: str, message: str
) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(FILE.replace(written, instead))

    with pytest.raises(ConfigError) as caught:
        read_document(path).to_model(Slo)

    text = str(caught.value)
    assert text.startswith(f"{path}:{place}")
    assert message in text
    assert "workload" not in text


def test_the_schema_describes_ceilings_and_objectives_as_the_lines_that_users_write() -> None:
    models = Slo.model_json_schema(by_alias=True)["$defs"]

    assert models["Ceiling"]["type"] == "string"
    assert models["Objective"]["type"] == "string"
