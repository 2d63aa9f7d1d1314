from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from autotune.errors import StudyError
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.record import Outcome, Role
from autotune.request import ClientHealth
from autotune.search.budget import Budget
from autotune.search.confirmation import AnswerKind
from autotune.search.ledger import StudyHistory, read_history
from autotune.study import Study
from autotune.tuner import Event, PhaseBegan, Recovered, TrialEnded, tune
from tests.support.scripted import NO_KV, Script, ScriptedLauncher
from tests.support.trials import STUDY

SMALL = Budget(launches=6, finalists=2, rounds=2)


def _faster_with_more_slots(flags: dict[str, str], _launch: int) -> Script:
    running = int(flags.get("max-running-requests", 32))
    return Script(gap_s=2.0 / running)


def _tune(
    launcher: ScriptedLauncher,
    folder: Path,
    *,
    budget: Budget = SMALL,
    study: Study = STUDY,
    observe: Callable[[Event], None] = lambda _: None,
) -> StudyHistory:
    return tune(study, launcher, budget, folder, observe=observe)


def test_a_study_begins_with_its_baseline_and_ends_with_an_answer(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(launcher, tmp_path)

    roles = [trial.record.role for trial in history.trials if trial.record.durations_s]
    assert roles == [Role.BASELINE] + [Role.SEARCH] * 5 + [Role.CONFIRMATION] * 6
    assert "max-running-requests" not in launcher.launches[0]
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED
    best = max(int(flags.get("max-running-requests", 0)) for flags in launcher.launches)
    winner = {trial.number: trial for trial in history.trials}[history.answer.winner or 0]
    assert winner.record.candidate["max-running-requests"] == best


def test_confirmations_are_interleaved_and_start_with_the_baseline(tmp_path: Path) -> None:
    history = _tune(ScriptedLauncher(_faster_with_more_slots), tmp_path)

    order = [trial.record.confirms for trial in history.trials if trial.record.role is Role.CONFIRMATION]

    assert order[0] == 0
    assert order[:3] == list(reversed(order[3:]))
    assert len(set(order)) == 3


def test_running_it_again_launches_nothing_and_answers_the_same(tmp_path: Path) -> None:
    first = _tune(ScriptedLauncher(_faster_with_more_slots), tmp_path)
    launcher = ScriptedLauncher(_faster_with_more_slots)

    again = _tune(launcher, tmp_path)

    assert launcher.launches == []
    assert again.answer == first.answer


def test_a_larger_budget_goes_on_from_where_it_was(tmp_path: Path) -> None:
    _tune(ScriptedLauncher(_faster_with_more_slots), tmp_path, budget=Budget(launches=3, finalists=1))
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(launcher, tmp_path, budget=Budget(launches=5, finalists=1))

    searched = [trial for trial in history.trials if trial.record.role is not Role.CONFIRMATION]
    assert sum(bool(trial.record.durations_s) for trial in searched) == 5
    assert len({trial.record.to_candidate() for trial in searched}) == len(searched)


def test_a_crash_is_recorded_told_as_a_failure_and_never_launched_again(tmp_path: Path) -> None:
    def fails_when_heavy(flags: dict[str, str], launch: int) -> Script:
        heavy = float(flags.get("mem-fraction-static", 0)) > 0.75
        return Script(start_failure=NO_KV) if heavy else _faster_with_more_slots(flags, launch)

    launcher = ScriptedLauncher(fails_when_heavy)

    history = _tune(launcher, tmp_path, budget=Budget(launches=15, finalists=1))

    failures = [trial.record for trial in history.trials if trial.record.outcome is Outcome.FAILED]
    assert failures
    assert all(record.failure == NO_KV for record in failures)
    launched = [str(sorted(flags.items())) for flags in launcher.launches[:15]]
    assert len(set(launched)) == 15


def test_an_invalid_measurement_is_launched_once_more(tmp_path: Path) -> None:
    overloaded = ClientHealth(loop_lag_p99_s=9.0, cpu_ratio=1.0, peak_in_flight=4)

    def overloaded_once(_flags: dict[str, str], launch: int) -> Script:
        return Script(client=overloaded if launch == 1 else None)

    launcher = ScriptedLauncher(overloaded_once)

    history = _tune(launcher, tmp_path, budget=Budget(launches=3, finalists=1))

    outcomes = [trial.record.outcome for trial in history.trials]
    assert outcomes[1] is Outcome.INVALID
    assert launcher.launches[1] == launcher.launches[2]


def test_a_client_that_is_always_overloaded_ends_the_study_without_an_answer(tmp_path: Path) -> None:
    overloaded = ClientHealth(loop_lag_p99_s=9.0, cpu_ratio=1.0, peak_in_flight=4)

    history = _tune(ScriptedLauncher(lambda *_: Script(client=overloaded)), tmp_path)

    assert {trial.record.outcome for trial in history.trials} == {Outcome.INVALID}
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.NOTHING_MEETS


def test_confirmations_that_are_never_valid_do_not_go_on_for_ever(tmp_path: Path) -> None:
    overloaded = ClientHealth(loop_lag_p99_s=9.0, cpu_ratio=1.0, peak_in_flight=4)

    def overloaded_later(flags: dict[str, str], launch: int) -> Script:
        client = overloaded if launch >= 4 else None
        return Script(gap_s=2.0 / int(flags.get("max-running-requests", 32)), client=client)

    history = _tune(ScriptedLauncher(overloaded_later), tmp_path, budget=Budget(launches=4, finalists=1))

    assert history.answer is not None
    assert history.answer.kind is AnswerKind.NOT_CONFIRMED


def test_a_baseline_that_fails_does_not_end_the_study(tmp_path: Path) -> None:
    def baseline_fails(flags: dict[str, str], launch: int) -> Script:
        if "max-running-requests" not in flags:
            return Script(start_failure=NO_KV)
        return _faster_with_more_slots(flags, launch)

    history = _tune(ScriptedLauncher(baseline_fails), tmp_path)

    assert history.answer is not None
    assert (history.answer.kind, history.answer.baseline) == (AnswerKind.IMPROVED, None)


def test_nothing_that_meets_the_slo_is_an_answer_too(tmp_path: Path) -> None:
    history = _tune(ScriptedLauncher(lambda *_: Script(ttft_s=5.0)), tmp_path)

    assert history.answer is not None
    assert (history.answer.kind, history.answer.winner) == (AnswerKind.NOTHING_MEETS, None)


def test_time_is_kept_for_the_confirmation_and_nothing_ends_late(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(launcher, tmp_path, budget=Budget(study_s=2000.0, finalists=1, rounds=2))

    assert launcher.clock.seconds <= 2000.0
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    tiny = STUDY.space.model_validate(
        STUDY.space.model_dump(by_alias=True, exclude={"tune"})
        | {"tune": {"schedule-policy": {"choices": ["fcfs", "lpm"]}}}
    )
    launcher = ScriptedLauncher(lambda *_: Script())

    _tune(
        launcher,
        tmp_path,
        study=STUDY.model_copy(update={"space": tiny}),
        budget=Budget(launches=40, finalists=1),
    )

    assert len(launcher.launches) < 10


def test_a_candidate_that_breaks_a_requirement_costs_no_launch(tmp_path: Path) -> None:
    space = STUDY.space.model_validate(
        STUDY.space.model_dump(by_alias=True) | {"require": ["max_running_requests >= 64"]}
    )
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(
        launcher,
        tmp_path,
        study=STUDY.model_copy(update={"space": space}),
        budget=Budget(launches=6, finalists=1),
    )

    infeasible = [each.record for each in history.trials if each.record.outcome is Outcome.INFEASIBLE]
    assert infeasible
    assert all("max_running_requests >= 64" in (record.reason or "") for record in infeasible)
    assert all(int(flags.get("max-running-requests", 64)) >= 64 for flags in launcher.launches)


def test_an_interrupt_keeps_everything_and_the_trial_is_run_again(tmp_path: Path) -> None:
    def interrupted_in_the_third(flags: dict[str, str], launch: int) -> Script:
        if launch == 2:
            return Script(raises=KeyboardInterrupt())
        return _faster_with_more_slots(flags, launch)

    launcher = ScriptedLauncher(interrupted_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        _tune(launcher, tmp_path)
    assert read_history(tmp_path).running == 1
    events: list[Event] = []
    resumed = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(resumed, tmp_path, observe=events.append)

    assert events[0] == Recovered((2,), ())
    assert resumed.launches[0] == launcher.launches[2]
    assert history.trials[2].record.outcome is Outcome.INTERRUPTED
    assert history.running == 0


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / "controller.lock"),
        pytest.raises(StudyError, match="another autotune process"),
    ):
        _tune(ScriptedLauncher(_faster_with_more_slots), tmp_path)


def test_events_tell_every_phase_of_every_trial(tmp_path: Path) -> None:
    events: list[Event] = []

    _tune(
        ScriptedLauncher(_faster_with_more_slots),
        tmp_path,
        budget=Budget(launches=1, finalists=1),
        observe=events.append,
    )

    phases = [event.phase for event in events if isinstance(event, PhaseBegan)]
    assert phases == [
        "asked", "launch", "launch: weights", "load: concurrency 4", "teardown", "record",
    ]  # fmt: skip
    assert isinstance(events[-1], TrialEnded)


def test_a_candidate_that_fails_when_it_is_launched_again_does_not_win(tmp_path: Path) -> None:
    late = EngineFailure(kind=FailureKind.CRASHED, phase=StartPhase.SERVING, line="boom")

    def fails_later(flags: dict[str, str], launch: int) -> Script:
        if launch >= 6 and "max-running-requests" in flags:
            return Script(start_failure=late)
        return _faster_with_more_slots(flags, launch)

    history = _tune(ScriptedLauncher(fails_later), tmp_path)

    assert history.answer is not None
    assert history.answer.kind is AnswerKind.KEEP_BASELINE
