from hypothesis import given
from hypothesis import strategies as st

from autotune.live.chart import area_chart


def test_the_chart_rises_with_the_series() -> None:
    assert area_chart([None, 1.0, 2.0], width=3, height=2) == ("  █", " ▂█")


def test_a_short_series_is_stretched_by_whole_columns_and_a_long_one_thinned_out() -> None:
    assert area_chart([1.0, 2.0], width=5, height=1) == ("▁▁██",)
    assert area_chart([1.0, 1.0, 1.0, 2.0], width=2, height=1) == ("▁█",)


def test_nothing_is_drawn_of_nothing() -> None:
    assert area_chart([None], width=9, height=3) == ()
    assert area_chart([1.0], width=0, height=3) == ()


@given(
    st.lists(st.none() | st.floats(-1e9, 1e9), min_size=1, max_size=90),
    st.integers(1, 40),
    st.integers(1, 9),
)
def test_the_chart_fits_and_its_highest_value_reaches_the_top(
    series: list[float | None], width: int, height: int
) -> None:
    rows = area_chart(series, width=width, height=height)

    known = [value for value in series if value is not None]
    assert len(rows) == (height if known else 0)
    assert all(len(row) <= width for row in rows)
    if known and len(series) <= width:
        assert "█" in rows[0]
