import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from autotune.live.lines import trial_line
from autotune.live.page import Page, page_lines
from autotune.live.progress import Controller, Progress, RunningTrial, Standing
from autotune.record import Role, TrialRecord
from autotune.search.budget import Budget
from autotune.search.repeats import SearchEnd
from autotune.search.study_history import StudyHistory
from tests.support.histories import improved
from tests.support.trials import STUDY, failed, measured, numbered

BASELINE = measured(90.0, role=Role.BASELINE, flags={}, start_phases_s={"weights": 30.0})
RUNNING = RunningTrial(
    number=9,
    role=Role.SEARCH,
    candidate={"max-running-requests": 64, "schedule-policy": "lpm"},
    phase="launch: weights",
    trial_s=25.0,
    stage_s=25.0,
    phase_s=20.0,
)


def _progress(*records: TrialRecord, running: tuple[RunningTrial, ...] = (), **facts: object) -> Progress:
    trials = numbered(*records)
    standing = Standing(StudyHistory(STUDY, Path("s"), trials, 0, None), Budget(launches=40))
    told = tuple(trial_line(trial, STUDY.slo) for trial in trials)
    return replace(Progress(standing, running, is_simulated=False, told=told), **facts)  # type: ignore[arg-type]


FULL = _progress(
    BASELINE,
    measured(120.0, flags={"max-running-requests": 32}),
    failed(),
    measured(500.0, ttft_s=3.0),
    running=(RUNNING,),
)


def _text(progress: Progress, width: int = 80, height: int = 24) -> str:
    return "\n".join(line.plain.rstrip() for line in page_lines(progress, width, height))


def _shown(progress: Progress, *, encoding: str = "utf-8", width: int = 80, height: int = 24) -> str:
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=output, width=width, height=height, color_system=None)
    console.print(Page(progress))
    output.seek(0)
    return output.read()


def test_the_page_tells_what_runs_what_stands_best_what_binds_and_what_failed() -> None:
    text = _text(FULL)

    assert "launches 4 of 40  ·  fresh launches 0 of 8" in text
    assert "35 more launches, then the confirmation" in text
    assert "trial 9 (search) launch: weights  20.0 s of ~30 s" in text
    assert "in all 25.0 s of ~2 min" in text
    assert "ceilings of trial 1, the best so far" in text
    assert "ttft p95 < 1s at concurrency 4  500 ms  room of 50.0 %  ██████──────" in text
    assert "120 tok/s  trial 1  +33.3 % against the baseline, not confirmed yet" in text
    assert "trial 9  best (1)   baseline" in text
    assert "max-running-requests  64       32         default" in text
    assert "1 no_kv_memory" in text
    assert "trial 2: Not enough memory." in text
    assert "trial   3  missed" in text
    assert "SIMULATED" not in text


def test_simulated_numbers_say_so_in_the_first_line() -> None:
    assert _text(replace(FULL, is_simulated=True), 30, 5).startswith(" SIMULATED  s")


@given(width=st.integers(1, 200), height=st.integers(1, 70), running=st.integers(0, 5))
def test_no_line_is_wider_than_the_terminal_and_no_page_higher(width: int, height: int, running: int) -> None:
    trials = tuple(RUNNING.model_copy(update={"number": 9 + each}) for each in range(running))

    lines = page_lines(replace(FULL, running=trials), width, height)

    assert len(lines) <= height
    assert all(cell_len(line.plain.rstrip()) <= width for line in lines)


def test_a_small_terminal_keeps_what_runs_what_binds_and_what_is_best() -> None:
    text = _text(FULL, 60, 12)

    assert "trial 9 (search)" in text
    assert "room of 50.0 %" in text
    assert "120 tok/s" in text
    assert "finished" not in text


def test_a_wide_terminal_has_two_columns() -> None:
    lines = _text(FULL, 120, 40).splitlines()

    assert any("trial 9 (search)" in line and "ceilings of trial 1" in line for line in lines)


def test_several_running_trials_are_shown_and_the_rest_counted() -> None:
    trials = tuple(RUNNING.model_copy(update={"number": 9 + each}) for each in range(4))

    text = _text(replace(FULL, running=trials), 80, 40)

    assert all(f"trial {number} (search)" in text for number in (9, 10, 11, 12))
    assert "trial 9  trial 10  trial 11  best (1)" in text
    assert "and 3 more that run" in _text(replace(FULL, running=trials), 80, 7)
    assert "4 trials run" in _text(replace(FULL, running=trials), 80, 4)


def test_more_flags_than_rows_are_counted() -> None:
    many = RUNNING.model_copy(update={"candidate": dict.fromkeys(STUDY.space.tune, "x")})

    assert re.search(r"and \d more flags that differ", _text(replace(FULL, running=(many,)), 80, 18))


def test_before_anything_has_ended_nothing_is_made_up() -> None:
    text = _text(_progress(running=(RUNNING,)))

    assert "25.0 s since it began; no trial has ended yet" in text
    assert "nothing meets the SLO yet" in text
    assert "ttft p95 < 1s at concurrency 4" in text
    assert "not measured" not in text


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((measured(90.0, ttft_s=3.0, role=Role.BASELINE),), "the nearest is trial 0"),
        ((BASELINE,), "90.0 tok/s  trial 0  the baseline"),
        ((measured(90.0, ttft_s=3.0, role=Role.BASELINE), measured(5.0)), "the baseline does not meet"),
        ((measured(5.0),), "5.00 tok/s  trial 0"),
    ],
)
def test_the_best_is_told_against_the_baseline(records: tuple[TrialRecord, ...], expected: str) -> None:
    assert expected in _text(_progress(*records))


def test_a_deadline_is_a_time_of_day_unless_time_is_virtual() -> None:
    assert "more launches until " in _text(replace(FULL, left_s=5000.0))
    assert "until the time is up" in _text(replace(FULL, left_s=5000.0, is_simulated=True))
    assert "1 h 23 min left" in _text(replace(FULL, left_s=5000.0))


def test_why_the_search_ended_stands_where_its_launches_did() -> None:
    history = replace(FULL.history, search_end=SearchEnd.GAIN)
    text = _text(replace(FULL, standing=Standing(history, FULL.budget)))
    assert "The search ended because little was left to gain." in text
    assert "more launches" not in text


def test_a_study_without_a_process_says_how_it_goes_on() -> None:
    assert "the same tune command goes on" in _text(replace(FULL, controller=Controller.GONE))
    assert "more launches" not in _text(replace(FULL, controller=Controller.ENDED))


def test_an_answered_study_has_no_time_left() -> None:
    progress = replace(FULL, standing=Standing(improved(), None), running=())

    assert "answered" in _text(progress)
    assert "left" not in _text(progress)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert "-- ceilings of trial 1" in _shown(FULL, encoding="ascii")
    assert "── ceilings of trial 1" in _shown(FULL)
