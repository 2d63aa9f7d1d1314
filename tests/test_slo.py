from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from autotune.document import read_document
from autotune.metrics import Metric, measure
from autotune.slo import Decision, Slo, judge, pool, violation
from tests.support.records import steady_records


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
    records = steady_records(ttft_s, concurrency=4)
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


def test_pooling_decides_what_one_launch_could_not() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4")
    one = _verdict(slo, [0.5] * 50)
    missed = _verdict(slo, [2.0] * 50)

    assert one.decision is Decision.UNDECIDED
    assert pool([one] * 4, slo).decision is Decision.MET
    assert pool([one, missed], slo).decision is Decision.MISSED
    assert pool([], slo).ceilings == ()


def test_goodput_counts_requests_within_every_per_request_ceiling() -> None:
    slo = slo_of("ttft p95 < 1s at concurrency 4", "goodput > 1req/s at concurrency 4")
    records = steady_records([0.5, 2.0] * 20, concurrency=4)
    measurement = measure(records, concurrency=4)

    limits = slo.request_limits_s("concurrency 4")

    assert limits == {Metric.TTFT: 1.0}
    assert 0 < measurement.goodput_rps(limits) < measurement.rate(Metric.REQUEST_THROUGHPUT)
    assert np.isclose(measurement.goodput_rps({}), measurement.rate(Metric.REQUEST_THROUGHPUT))


@pytest.mark.parametrize("path", sorted(Path("slo").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_slo_loads(path: Path) -> None:
    assert read_document(path).to_model(Slo).ceilings


def test_the_schema_describes_ceilings_and_objectives_as_the_lines_that_users_write() -> None:
    models = Slo.model_json_schema(by_alias=True)["$defs"]

    assert models["Ceiling"]["type"] == "string"
    assert models["Objective"]["type"] == "string"
