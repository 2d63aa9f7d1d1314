from pathlib import Path
from typing import Any

import pytest

from autotune.bench.ask import Options, plan_of
from autotune.bench.points import Amount, Sweep, article, concurrency_ladder, fitting, length_sweep
from autotune.bench.search import Range
from autotune.bench.target import Target
from autotune.errors import ConfigError
from autotune.load.workload import Wire, Workload
from autotune.stalls import StallLimit

TARGET = Target("http://h", "m", None, 32_000, is_sglang=True)


def loads(**options: Any) -> list[tuple[str, str]]:
    return [(str(point.sweep), point.load.label) for point in plan_of(Options(**options), TARGET).points]


def test_without_a_word_a_few_concurrencies_are_measured() -> None:
    plan = plan_of(Options(), TARGET)
    assert [point.x for point in plan.points] == [1, 8, 32]
    assert plan.workload == Workload(input_tokens=1024, output_tokens=256, endpoint=Wire.GENERATE)
    assert (
        plan_of(Options(), Target("http://h", "m", None, 9, is_sglang=False)).workload.endpoint
        == "completions"
    )


def test_what_only_engines_take_is_sent_to_engines_or_when_asked() -> None:
    gateway = Target("http://h", "m", None, 9, is_sglang=False, is_engine=False)
    plan = plan_of(Options(), gateway)
    assert (plan.workload.ignore_eos, [note[:33] for note in plan.notes]) == (
        False,
        ["answers may be shorter than asked"],
    )
    for options, target, is_sent in (
        (Options(ignore_eos=True), gateway, True),
        (Options(ignore_eos=False), gateway, False),
        (Options(), TARGET, True),
        (Options(ignore_eos=False), TARGET, False),
    ):
        plan = plan_of(options, target)
        assert (plan.workload.ignore_eos, plan.notes) == (is_sent, ())


def test_sweeps_are_measured_in_the_order_lengths_concurrencies_rates() -> None:
    assert loads(rate="0.5,2", concurrency="4", lengths="16,32") == [
        ("prompt length", "concurrency 1"),
        ("prompt length", "concurrency 1"),
        ("concurrency", "concurrency 4"),
        ("rate", "rate 0.5"),
        ("rate", "rate 2"),
    ]
    assert len(loads(lengths="all")) == 9


def test_the_article_is_one_word() -> None:
    points = plan_of(Options(protocol="article", output_tokens=64), TARGET).points
    lengths = [point.workload.input_tokens for point in points if point.sweep is Sweep.LENGTH]
    assert lengths == [16, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
    assert [point.x for point in points if point.sweep is Sweep.CONCURRENCY] == [10, 20, 30, 40, 50, 100]
    assert [point.x for point in points if point.sweep in {Sweep.SINGLE, Sweep.SATURATION}] == [1, 500]
    assert {point.workload.input_tokens for point in points if point.sweep is not Sweep.LENGTH} == {1024}
    assert points[-1].load.requests == 1000
    fewer = article(Workload(input_tokens=9, output_tokens=9), Amount(20))
    asked = [(point.load.concurrency or 0, point.load.requests) for point in fewer]
    assert all(requests == max(concurrency, 20) for concurrency, requests in asked)


def test_arrivals_and_amounts_reach_the_load_points() -> None:
    plan = plan_of(
        Options(rate="3", arrivals="gamma", burstiness=0.5, duration_s=9.0, concurrency="2"), TARGET
    )
    closed, opened = (point.load for point in plan.points)
    assert (closed.duration_s, closed.arrivals) == (9.0, None)
    assert (opened.duration_s, opened.arrivals, opened.burstiness) == (9.0, "gamma", 0.5)
    assert plan_of(Options(rate="2"), TARGET).points[0].load.requests == 120
    assert concurrency_ladder(plan.workload, [50], Amount())[0].load.requests == 150


def test_a_ramp_spreads_the_starts_of_concurrencies_only() -> None:
    plan = plan_of(Options(rate="3", concurrency="2", lengths="16", ramp_s=1.5), TARGET)
    assert [point.load.ramp_s for point in plan.points] == [None, 1.5, None]


def test_steps_are_one_load_whose_rate_climbs() -> None:
    (point,) = plan_of(Options(steps="1,2,6", arrivals="constant"), TARGET).points
    assert (point.load.steps, point.load.rate, point.load.requests) == ((1, 2, 6), 6, 180)
    assert (point.label, point.load.label, point.sweep) == ("rates 1 2 6", "rate 6", Sweep.STEPS)
    with pytest.raises(ConfigError, match="at least 2"):
        plan_of(Options(steps="1"), TARGET)


def test_a_trace_is_replayed_at_its_own_speed_or_at_the_rates_asked_for(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp_s": 1}\n{"timestamp_s": 3}\n{"timestamp_s": 5}')
    assert loads(trace=trace) == [("rate", "rate 0.5")]
    assert plan_of(Options(trace=trace, duration_s=2.0), TARGET).points[0].load.duration_s == 2.0
    assert loads(trace=trace, rate="1,2", requests=3) == [("rate", "rate 1"), ("rate", "rate 2")]
    with pytest.raises(ConfigError, match="has 3 requests, 9 were asked"):
        plan_of(Options(trace=trace, rate="1", requests=9), TARGET)


def test_a_workload_file_is_used_and_options_win_over_it(tmp_path: Path) -> None:
    path = tmp_path / "workload.yaml"
    path.write_text("{input_tokens: {uniform: [8, 16]}, output_tokens: 4, seed: 3}\n")
    plan = plan_of(Options(workload=path, endpoint="completions"), TARGET)
    assert (plan.workload.seed, plan.workload.endpoint, plan.workload.output_tokens) == (3, "completions", 4)


def test_what_does_not_fit_the_context_is_left_out_and_told() -> None:
    small = Target("http://h", "m", 4096, 32_000, is_sglang=True)
    plan = plan_of(Options(lengths="16,4096,8192"), small)
    assert [point.x for point in plan.points] == [16]
    assert len(plan.notes) == 2
    assert "4096 + 8 tokens do not fit the context of 4096" in plan.notes[0]
    with pytest.raises(ConfigError, match="nothing to measure"):
        plan_of(Options(lengths="8192"), small)
    points = length_sweep(plan.workload, [70_000], Amount())
    assert fitting(points, None) == (points, [])


def test_a_search_has_a_range_and_a_ceiling() -> None:
    ceilings = ("ttft p95 < 10s", "error_ratio < 1%")
    plan = plan_of(Options(search="concurrency:2-99", ceilings=ceilings, stall_below_tps=2.0), TARGET)
    assert (plan.points, plan.where) == ((), Range(2, 99, is_whole=True))
    assert (plan.asked.ceilings, plan.asked.stall) == (ceilings, StallLimit(2.0, 5.0))
    assert plan_of(Options(search="rate", ceilings=ceilings), TARGET).where == Range(0.25, 64, is_whole=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "rate"}, "needs a --ceiling"),
        ({"search": "users", "ceilings": ("ttft p95 < 1s",)}, "write it like concurrency:1-512"),
        ({"search": "rate:9-3", "ceilings": ("ttft p95 < 1s",)}, "from a low load"),
        ({"ceilings": ("ttft p95 < 10",)}, "the limit has no unit"),
        ({"ceilings": ("ttft p95 < 10s at concurrency 3",)}, "without 'at ...'"),
        ({"concurrency": "1,x"}, "numbers with commas"),
        ({"concurrency": "0"}, "above 0"),
        ({"protocol": "paper"}, "there is article"),
        ({"endpoint": "embed"}, "there is generate, completions, chat"),
        ({"endpoint": "chat"}, "give a dataset"),
        ({"requests": 3, "duration_s": 3.0}, "either --requests or --duration"),
        ({"rate": "2", "arrivals": "gamma"}, "belong together"),
        ({"rate": "2", "arrivals": "weekly"}, "'poisson', 'constant' or 'gamma'"),
        ({"tokenizer": Path("none.json")}, None),
    ],
)
def test_options_that_cannot_be_understood_are_refused(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert plan_of(Options(**options), TARGET).workload.tokenizer == Path("none.json")
        return
    with pytest.raises(ConfigError, match=message):
        plan_of(Options(**options), TARGET)
