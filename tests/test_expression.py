import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.expression import parse_expression


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("chunked_prefill_size % 64 == 0", {"chunked-prefill-size": 128}, True),
        ("chunked_prefill_size % 64 == 0", {"chunked-prefill-size": 100}, False),
        ("0.7 <= mem_fraction_static < 0.9", {"mem-fraction-static": 0.9}, False),
        ("schedule_policy in ('fcfs', 'lpm')", {"schedule-policy": "lpm"}, True),
        ("not enable_mixed_chunk or chunked_prefill_size > 64", {"enable-mixed-chunk": False}, True),
        ("-a + 3 * (b // 2) - b / 1 > 0 and a != b", {"a": 1, "b": 2}, False),
        ("a not in [1, 2]", {"a": 3}, True),
    ],
)
def test_an_expression_is_evaluated_over_flags(text: str, flags: dict[str, object], expected: bool) -> None:
    assert parse_expression(text).holds(flags) is expected


def test_a_flag_left_to_the_engine_never_rejects() -> None:
    assert parse_expression("chunked_prefill_size > 64").holds({})


def test_an_unknown_flag_does_not_hide_a_decided_part() -> None:
    assert not parse_expression("unknown > 1 and known > 1").holds({"known": 0})
    assert parse_expression("unknown > 1 or known > 1").holds({"known": 2})


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('true')", "a.b", "[x for x in y]", "lambda: 1", "a := 1", "f(1)", "a ** 9"],
)
def test_anything_beyond_flags_and_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|not an expression"):
        parse_expression(text)


@pytest.mark.parametrize(("text", "flags"), [("a > 'x'", {"a": 1}), ("1 / a > 1", {"a": 0})])
def test_values_that_do_not_fit_the_operators_are_named(text: str, flags: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cannot be evaluated"):
        parse_expression(text).holds(flags)


@given(a=st.integers(-100, 100), b=st.integers(1, 100))
def test_arithmetic_is_pythons(a: int, b: int) -> None:
    flags = {"a": a, "b": b}

    assert parse_expression("a % b == a - (a // b) * b").holds(flags)
    assert parse_expression(f"a + b == {a + b}").holds(flags)
