import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.metrics import Metric
from autotune.report import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9.996, "10.0"),
        (1192.4, "1,190"),
        (0.01234, "0.0123"),
        (-3.14159, "-3.14"),
        (4.2e-7, "4.20e-07"),
        (math.inf, "inf"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert units.significant(value) == text


@given(st.floats(1e-9, 1e9))
def test_rounding_never_changes_a_number_by_more_than_half_a_percent(value: float) -> None:
    assert float(units.significant(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0 s"),
        (0.8432, "843 ms"),
        (0.99996, "1.00 s"),
        (12.345, "12.3 s"),
        (2.5e-4, "250 us"),
        (None, "-"),
    ],
)
def test_a_latency_is_in_the_unit_without_leading_zeros(value_s: float | None, text: str) -> None:
    assert units.latency(value_s) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (43.12, "43.1 s"),
        (59.7, "1 min 0 s"),
        (723, "12 min 3 s"),
        (11100, "3 h 5 min"),
        (None, "-"),
    ],
)
def test_a_duration_is_in_hours_minutes_and_seconds(value_s: float | None, text: str) -> None:
    assert units.duration(value_s) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (Metric.TTFT, 1.5, "1.50 s"),
        (Metric.ERROR_RATIO, 0.001, "0.100 %"),
        (Metric.OUTPUT_THROUGHPUT, 1192.0, "1,190 tok/s"),
        (Metric.GOODPUT, 4.25, "4.25 req/s"),
        (Metric.TPOT, None, "-"),
    ],
)
def test_every_metric_has_its_unit(metric: Metric, value: float | None, text: str) -> None:
    assert units.metric_value(metric, value) == text


def test_a_ceiling_lends_its_unit_to_a_value() -> None:
    assert units.ceiling_value("output_throughput > 1ktok/s at concurrency 5", 1234.0) == "1,230 tok/s"


def test_signs_of_gains_are_always_written() -> None:
    assert [units.signed_percent(gain) for gain in (0.1234, -0.05, 0.0)] == ["+12.3 %", "-5.00 %", "+0 %"]


def test_flag_values_are_spelled_as_on_a_command_line() -> None:
    values = (True, False, 8192, 0.85, "fcfs", (1, 2, "x"), None)
    assert [units.flag_value(value) for value in values] == [
        "true",
        "false",
        "8192",
        "0.85",
        "fcfs",
        "1 2 x",
        "(engine's default)",
    ]


@given(st.text())
def test_no_control_character_gets_through(text: str) -> None:
    shown = units.printable(text)
    assert len(shown) == len(text)
    assert shown.isprintable()
    assert all(
        after in (before, "\N{REPLACEMENT CHARACTER}") for before, after in zip(text, shown, strict=True)
    )


def test_counts_keep_all_their_digits() -> None:
    assert units.whole(412345) == "412,345"
    assert units.whole(None) == "-"
