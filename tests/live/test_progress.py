from dataclasses import replace
from pathlib import Path

from rich.text import Text

from autotune.live.progress import Controller, Progress, RunningTrial, Standing, stage_of
from autotune.record import Role
from autotune.search.budget import Budget
from autotune.search.study_history import StudyHistory
from tests.support.trials import STUDY, failed, measured, numbered, with_goals

BASELINE = measured(90.0, role=Role.BASELINE, flags={})
SEARCHING = RunningTrial(number=9, role=Role.SEARCH, candidate={}, phase="launch", trial_s=40.0)


def _standing(*records: object, budget: Budget | None = None, study: object = STUDY) -> Standing:
    history = StudyHistory(study, Path("s"), numbered(*records), 0, None)  # type: ignore[arg-type]
    return Standing(history, budget)


def _progress(standing: Standing, *running: RunningTrial, left_s: float | None = None) -> Progress:
    return Progress(standing, running, is_simulated=True, left_s=left_s, told=(Text("told"),))


def test_the_best_so_far_is_the_best_that_meets_the_slo() -> None:
    standing = _standing(
        BASELINE,
        measured(500.0, ttft_s=3.0),
        failed(),
        measured(120.0),
        measured(110.0),
        measured(900.0, role=Role.CONFIRMATION, confirms=3),
    )

    assert standing.best_by_launch == (90.0, 90.0, 90.0, 120.0, 120.0)
    assert standing.incumbent is not None
    assert standing.incumbent.number == 3
    assert (standing.launches, standing.confirmations) == (5, 1)


def test_less_is_better_where_the_objective_says_so() -> None:
    study = with_goals("minimise ttft p95 at concurrency 4", "maximise output_throughput at concurrency 4")

    standing = _standing(measured(0.5, 1.0), measured(0.4, 1.0), measured(0.6, 1.0), study=study)

    assert standing.best_by_launch == (0.5, 0.4, 0.4)


def test_expected_times_are_medians_of_measured_trials() -> None:
    times = [{"launch": launch, "load": 40.0} for launch in (50.0, 60.0, 100.0)]
    records = [measured(1.0, durations_s=each, start_phases_s={"kv_pool": 5.0}) for each in times]

    standing = _standing(*records, failed(durations_s={"launch": 1.0}))

    assert standing.expected_stage_s("launch") == 60.0
    assert standing.expected_phase_s("launch: kv pool") == 5.0
    assert standing.expected_phase_s("load: concurrency 4") is None
    assert _standing().expected_stage_s("launch") is None


def test_launches_left_are_those_that_fit_before_the_confirmation() -> None:
    standing = _standing(BASELINE, budget=Budget(launches=40, study_s=5000.0, finalists=1))

    progress = _progress(standing, SEARCHING, left_s=1000.0)

    assert progress.launches_left == (1000 - 400 - 60) // 100
    assert progress.time_left_s == 1000.0
    assert _progress(standing, SEARCHING).launches_left == 38
    assert _progress(standing, left_s=10.0).launches_left == 0
    assert _progress(standing, SEARCHING, SEARCHING, left_s=1000.0).launches_left == 2 * 5
    assert _progress(_standing(BASELINE)).launches_left is None


def test_time_left_without_a_deadline_is_that_of_the_launches_to_come_shared_by_those_at_once() -> None:
    standing = _standing(BASELINE, budget=Budget(launches=4, finalists=1))
    other = SEARCHING.model_copy(update={"number": 10, "role": Role.CONFIRMATION})

    assert _progress(standing).time_left_s == (3 + 4) * 100.0
    assert _progress(standing, SEARCHING, other).time_left_s == ((2 + 3) * 100.0 + 2 * 60.0) / 2
    assert _progress(_standing(budget=Budget(launches=4))).time_left_s is None
    assert _progress(_standing(BASELINE, budget=Budget(study_s=9.0))).time_left_s is None


def test_the_part_of_the_study_is_that_of_its_last_trial_or_how_it_ended() -> None:
    standing = _standing(BASELINE)
    progress = _progress(standing)

    assert _progress(_standing()).part == "starting"
    assert progress.part == "baseline"
    assert _progress(standing, SEARCHING).part == "search"
    assert replace(progress, controller=Controller.ENDED).part == "stopped"
    assert replace(progress, controller=Controller.GONE).part == "cut off"


def test_phases_before_and_after_belong_to_their_neighbours() -> None:
    assert [stage_of(phase) for phase in ("asked", "launch: weights", "load: rate 1", "record")] == [
        "launch", "launch", "load", "teardown",
    ]  # fmt: skip


def test_what_was_measured_live_counts_with_the_launch_that_it_was_measured_on() -> None:
    live = measured(120.0, measured_live_on=0, durations_s={"load": 9.0})

    standing = _standing(BASELINE, live, measured(110.0))

    assert standing.best_by_launch == (120.0, 120.0)
    assert standing.launches == 2
    assert standing.expected_stage_s("load") == 40.0
