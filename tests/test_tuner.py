from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from autotune.errors import InfrastructureError, StudyError
from autotune.events import SearchEnded
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.record import Outcome, Role
from autotune.request import ClientHealth
from autotune.search.answer import AnswerKind
from autotune.search.budget import Budget, launches_used
from autotune.search.ledger import read_history
from autotune.search.repeats import SearchEnd
from autotune.search.sampler import SamplerKind
from autotune.search.stopping import FEWEST_MEASURED
from autotune.search.study_history import StudyHistory
from autotune.slo import Slo
from autotune.study import Study
from autotune.tuner import Event, PhaseBegan, Recovered, TrialEnded, tune
from tests.support.scripted import CRASH, NO_KV, Script, ScriptedLauncher
from tests.support.trials import STUDY, with_goals

LOST = EngineFailure(kind=FailureKind.NODE_LOST, phase=StartPhase.PROCESS, line="node1 was lost")
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
    sampler: SamplerKind = SamplerKind.TPE,
) -> StudyHistory:
    return tune(study, launcher, budget, folder, observe=observe, sampler=sampler)


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


def test_finalists_that_miss_the_slo_when_launched_again_give_way_to_the_next(tmp_path: Path) -> None:
    def holds_once(flags: dict[str, str], launch: int) -> Script:
        is_refuted = launch >= 6 and "max-running-requests" in flags
        script = _faster_with_more_slots(flags, launch)
        return replace(script, ttft_s=5.0) if is_refuted else script

    launcher = ScriptedLauncher(holds_once)

    history = _tune(launcher, tmp_path)

    assert history.answer is not None
    assert history.answer.kind is AnswerKind.KEEP_BASELINE
    assert [each.launches for each in history.answer.finalists] == [1] * 4
    assert len(launcher.launches) == 6 + 2 + 4


def test_what_the_file_wants_tried_is_launched_before_what_the_sampler_draws(tmp_path: Path) -> None:
    wanted = ({"max-running-requests": 24}, {"chunked-prefill-size": 1024, "max-running-requests": 48})
    study = STUDY.model_copy(update={"space": STUDY.space.model_copy(update={"tried_first": wanted})})
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(launcher, tmp_path, study=study)

    searched = [each.record.candidate for each in history.trials if each.record.role is Role.SEARCH]
    assert tuple(searched[:2]) == wanted
    assert "chunked-prefill-size" not in launcher.launches[1]
    assert wanted[0] not in searched[2:]
    assert wanted[1] not in searched[2:]


def test_a_wanted_candidate_whose_measurement_stays_invalid_is_given_up_as_any_other(tmp_path: Path) -> None:
    wanted = {"max-running-requests": 24}
    study = STUDY.model_copy(update={"space": STUDY.space.model_copy(update={"tried_first": (wanted,)})})

    overloaded = ClientHealth(loop_lag_p99_s=9.0, cpu_ratio=1.0, peak_in_flight=4)

    def late_client(flags: dict[str, str], _launch: int) -> Script:
        is_wanted = flags.get("max-running-requests") == "24"
        return Script(client=overloaded) if is_wanted else _faster_with_more_slots(flags, 0)

    history = _tune(ScriptedLauncher(late_client), tmp_path, study=study)

    outcomes = [each.record.outcome for each in history.trials if each.record.candidate == wanted]
    assert outcomes == [Outcome.INVALID] * 2
    assert history.answer is not None


def test_confirmations_are_interleaved_and_start_with_the_baseline(tmp_path: Path) -> None:
    history = _tune(ScriptedLauncher(_faster_with_more_slots), tmp_path)

    order = [trial.record.confirms for trial in history.trials if trial.record.role is Role.CONFIRMATION]

    assert order[0] == 0
    assert order[:3] == list(reversed(order[3:]))
    assert len(set(order)) == 3


def test_finalists_are_launched_again_until_the_gain_is_known_as_well_as_asked(tmp_path: Path) -> None:
    def calmer_later(flags: dict[str, str], launch: int) -> Script:
        ttft_s = 0.6 if launch in {6, 8} else 0.5  # two of the confirmation's first launches
        return Script(ttft_s=ttft_s, gap_s=2.0 / int(flags.get("max-running-requests", 32)))

    budget = replace(SMALL, finalists=1, precision=0.2)

    history = _tune(ScriptedLauncher(calmer_later), tmp_path, budget=budget)

    order = [trial.record.confirms for trial in history.trials if trial.record.role is Role.CONFIRMATION]
    assert len(order) > 4
    assert order.count(0) == len(order) / 2
    assert history.answer is not None
    gain = history.answer.finalists[0].gain
    assert gain is not None
    assert gain.high - gain.estimate <= 0.2


def test_what_an_exhausted_search_left_goes_into_the_proof_of_its_gain(tmp_path: Path) -> None:
    def uneven(flags: dict[str, str], launch: int) -> Script:
        gap_s = 1.0 / 16 if flags.get("schedule-policy") == "lpm" else 1.0 / 14
        return Script(gap_s=gap_s * (1.06 if launch % 3 == 0 else 1.0))

    study = _with_space(tune={"schedule-policy": {"choices": ["fcfs", "lpm"]}})
    two_rounds = _tune(ScriptedLauncher(uneven), tmp_path / "2", budget=Budget(launches=2), study=study)
    launcher = ScriptedLauncher(uneven)
    proven = _tune(launcher, tmp_path / "30", budget=Budget(launches=30), study=study)
    again = _tune(ScriptedLauncher(uneven), tmp_path / "30", budget=Budget(launches=30), study=study)

    assert two_rounds.answer is not None
    assert proven.answer is not None
    assert (two_rounds.answer.kind, proven.answer.kind) == (AnswerKind.KEEP_BASELINE, AnswerKind.IMPROVED)
    assert proven.answer.finalists[0].launches == 4
    assert again.answer == proven.answer


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
    assert history.answer.kind is AnswerKind.NOTHING_MEASURED


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
    assert (history.answer.kind, history.answer.baseline) == (AnswerKind.UNCOMPARED, None)
    assert [trial.record.role for trial in history.trials].count(Role.BASELINE) == 1


def test_a_baseline_with_bad_luck_is_launched_once_more(tmp_path: Path) -> None:
    def unlucky_once(flags: dict[str, str], launch: int) -> Script:
        return Script(start_failure=CRASH) if launch == 0 else _faster_with_more_slots(flags, launch)

    history = _tune(ScriptedLauncher(unlucky_once), tmp_path)

    outcomes = [trial.record.outcome for trial in history.trials if trial.record.role is Role.BASELINE]
    assert outcomes == [Outcome.FAILED, Outcome.MEASURED]
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


def test_nodes_on_which_nothing_starts_stop_the_study_and_cost_no_candidate(tmp_path: Path) -> None:
    dead = ScriptedLauncher(lambda *_: Script(start_failure=CRASH))
    with pytest.raises(InfrastructureError, match="Segmentation fault") as caught:
        _tune(dead, tmp_path)
    assert len(dead.launches) == 3
    assert "run the same command again" in str(caught.value)
    still_dead = ScriptedLauncher(lambda *_: Script(start_failure=CRASH))
    with pytest.raises(InfrastructureError):
        _tune(still_dead, tmp_path)
    assert len(still_dead.launches) == 1
    repaired = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(repaired, tmp_path, budget=Budget(launches=10, finalists=1))

    assert "max-running-requests" not in repaired.launches[0]
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


@pytest.mark.parametrize("launch_of_failure", [0, 2, 7], ids=["baseline", "search", "confirmation"])
def test_a_trial_under_which_a_node_was_lost_is_launched_again_and_costs_nothing(
    tmp_path: Path, launch_of_failure: int
) -> None:
    def lost_once(flags: dict[str, str], launch: int) -> Script:
        lost = launch in (launch_of_failure, launch_of_failure + 1)
        return Script(start_failure=LOST) if lost else _faster_with_more_slots(flags, launch)

    launcher = ScriptedLauncher(lost_once)

    history = _tune(launcher, tmp_path)

    again = launcher.launches[launch_of_failure : launch_of_failure + 3]
    assert again == [again[0]] * 3
    launched = [trial.record for trial in history.trials if trial.record.durations_s]
    assert [record.outcome for record in launched].count(Outcome.INVALID) == 2
    measured = [record.role for record in launched if record.outcome is Outcome.MEASURED]
    assert measured == [Role.BASELINE] + [Role.SEARCH] * 5 + [Role.CONFIRMATION] * 6
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


@pytest.mark.parametrize("first", [0, 2, 7], ids=["baseline", "search", "confirmation"])
def test_nodes_that_stay_lost_stop_the_study_which_goes_on_once_they_are_back(
    tmp_path: Path, first: int
) -> None:
    def lost_from_then_on(flags: dict[str, str], launch: int) -> Script:
        assert launch < first + 5  # else the study would go on for ever
        line = f"node1 was lost in launch {launch}"
        lost = LOST.model_copy(update={"line": line})
        return Script(start_failure=lost) if launch >= first else _faster_with_more_slots(flags, launch)

    launcher = ScriptedLauncher(lost_from_then_on)

    with pytest.raises(InfrastructureError, match="node_lost: node1 was lost in launch") as caught:
        _tune(launcher, tmp_path)

    assert len(launcher.launches) == first + 3
    assert "run the same command again" in str(caught.value)
    repaired = ScriptedLauncher(_faster_with_more_slots)
    history = _tune(repaired, tmp_path)
    assert repaired.launches[0] == launcher.launches[-1]
    assert len(repaired.launches) == 12 - first
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


def test_an_image_that_a_node_lacks_stops_the_study_at_once(tmp_path: Path) -> None:
    missing = LOST.model_copy(update={"kind": FailureKind.IMAGE_MISSING})

    def lacks_it(_flags: dict[str, str], launch: int) -> Script:
        assert launch < 5  # else the study would go on for ever
        return Script(start_failure=missing)

    launcher = ScriptedLauncher(lacks_it)

    with pytest.raises(InfrastructureError, match="image_missing"):
        _tune(launcher, tmp_path)

    assert len(launcher.launches) == 1


def test_failures_of_candidates_do_not_stop_a_study_once_an_engine_was_ready(tmp_path: Path) -> None:
    def only_the_baseline_starts(flags: dict[str, str], _launch: int) -> Script:
        return Script(start_failure=CRASH if "max-running-requests" in flags else None)

    history = _tune(ScriptedLauncher(only_the_baseline_starts), tmp_path)

    assert [trial.record.outcome for trial in history.trials].count(Outcome.FAILED) == 5
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.KEEP_BASELINE


def test_a_baseline_that_nothing_competes_with_is_launched_once_more(tmp_path: Path) -> None:
    def only_the_baseline_meets(flags: dict[str, str], _launch: int) -> Script:
        return Script(ttft_s=5.0 if "max-running-requests" in flags else 0.5)

    first = _tune(ScriptedLauncher(only_the_baseline_meets), tmp_path)
    resumed = ScriptedLauncher(only_the_baseline_meets)
    again = _tune(resumed, tmp_path)

    assert [trial.record.confirms for trial in first.trials if trial.record.role is Role.CONFIRMATION] == [0]
    assert first.answer is not None
    assert (first.answer.kind, first.answer.winner) == (AnswerKind.KEEP_BASELINE, 0)
    assert first.answer.baseline is not None
    assert first.answer.baseline.launches == 1
    assert (resumed.launches, again.answer) == ([], first.answer)


def test_several_objectives_are_confirmed_and_answered_as_a_front(tmp_path: Path) -> None:
    def throughput_costs_waiting(flags: dict[str, str], _launch: int) -> Script:
        running = int(flags.get("max-running-requests", 32))
        return Script(gap_s=20.0 / running, ttft_s=0.001 * running)

    launcher = ScriptedLauncher(throughput_costs_waiting)

    history = _tune(launcher, tmp_path, study=with_goals(), budget=Budget(launches=8, finalists=2))

    answer = history.answer
    assert answer is not None
    assert (answer.kind, answer.winner, answer.dominating) == (AnswerKind.FRONT, None, ())
    assert set(answer.front) == {0, *(rival.trial for rival in answer.finalists)}
    assert all(len(row) == 2 for rival in answer.finalists for row in rival.values)


def test_too_few_requests_leave_a_study_undecided(tmp_path: Path) -> None:
    load = [{"concurrency": 4, "requests": 12}]
    slo = Slo.model_validate(STUDY.slo.model_dump() | {"load": load})

    history = _tune(
        ScriptedLauncher(_faster_with_more_slots), tmp_path, study=STUDY.model_copy(update={"slo": slo})
    )

    assert history.answer is not None
    assert (history.answer.kind, history.answer.winner) == (AnswerKind.UNDECIDED, None)


def test_nothing_that_meets_the_slo_is_an_answer_too(tmp_path: Path) -> None:
    history = _tune(ScriptedLauncher(lambda *_: Script(ttft_s=5.0)), tmp_path)

    assert history.answer is not None
    assert (history.answer.kind, history.answer.winner) == (AnswerKind.NOTHING_MEETS, None)


def test_time_is_kept_for_the_confirmation_and_nothing_ends_late(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(launcher, tmp_path, budget=Budget(study_s=1000.0, finalists=1, rounds=2))

    assert launcher.clock.seconds <= 1000.0
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


def test_a_trial_that_takes_too_long_is_cut_off_and_the_confirmation_has_its_time(tmp_path: Path) -> None:
    def hangs_later(flags: dict[str, str], launch: int) -> Script:
        return Script(start_s=1e6) if launch == 2 else _faster_with_more_slots(flags, launch)

    launcher = ScriptedLauncher(hangs_later)

    history = _tune(launcher, tmp_path, budget=Budget(study_s=1500.0, finalists=1, rounds=2))

    assert launcher.clock.seconds <= 1500.0
    cut_off = history.trials[2].record
    assert cut_off.outcome is Outcome.INTERRUPTED
    assert cut_off.duration_s > 100
    assert history.search_end is SearchEnd.TIME
    roles = [trial.record.role for trial in history.trials[3:]]
    assert roles == [Role.CONFIRMATION] * 4
    assert history.answer is not None
    assert history.answer.kind is not AnswerKind.NOT_CONFIRMED


def test_a_trial_that_was_cut_off_is_run_again_by_a_call_with_more_time_only(tmp_path: Path) -> None:
    def hangs_later(flags: dict[str, str], launch: int) -> Script:
        return Script(start_s=1e6) if launch == 2 else _faster_with_more_slots(flags, launch)

    first = ScriptedLauncher(hangs_later)
    _tune(first, tmp_path, budget=Budget(study_s=1500.0, finalists=1, rounds=2))
    spent, later = ScriptedLauncher(_faster_with_more_slots), ScriptedLauncher(_faster_with_more_slots)

    _tune(spent, tmp_path, budget=Budget(study_s=1500.0, finalists=1, rounds=2))
    history = _tune(later, tmp_path, budget=Budget(study_s=4000.0, finalists=1, rounds=2))

    assert spent.launches == []
    assert later.launches[0] == first.launches[2]
    assert sum(trial.record.duration_s for trial in history.trials) <= 4000.0


def test_a_baseline_that_is_cut_off_ends_the_call_in_time(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(start_s=1e6))

    history = _tune(launcher, tmp_path, budget=Budget(study_s=300.0))

    assert len(launcher.launches) == 1
    assert launcher.clock.seconds <= 310.0
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.NOTHING_MEASURED
    again = ScriptedLauncher(_faster_with_more_slots)
    _tune(again, tmp_path, budget=Budget(study_s=310.0))
    assert again.launches == []


def test_a_launch_that_failed_late_is_how_long_the_next_one_may_take(tmp_path: Path) -> None:
    def always_late(_flags: dict[str, str], launch: int) -> Script:
        failure = CRASH.model_copy(update={"line": f"crash {launch}"})
        return Script(start_s=900.0, start_failure=failure)

    launcher = ScriptedLauncher(always_late)

    _tune(launcher, tmp_path, budget=Budget(study_s=2000.0))

    assert len(launcher.launches) == 2


def test_the_time_before_an_interrupt_counts(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _tune(ScriptedLauncher(lambda *_: Script(raises=KeyboardInterrupt())), tmp_path)
    assert read_history(tmp_path).search_end is SearchEnd.STOPPED

    history = _tune(ScriptedLauncher(_faster_with_more_slots), tmp_path)

    assert history.trials[0].record.outcome is Outcome.INTERRUPTED
    assert history.trials[0].record.duration_s == 65.0


def _with_space(**changes: object) -> Study:
    data = STUDY.space.model_dump(by_alias=True) | changes
    return STUDY.model_copy(update={"space": STUDY.space.model_validate(data)})


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    tiny = _with_space(tune={"schedule-policy": {"choices": ["fcfs", "lpm"]}})
    launcher = ScriptedLauncher(lambda *_: Script())

    history = _tune(launcher, tmp_path, study=tiny, budget=Budget(launches=40, finalists=1))

    assert len(launcher.launches) < 10
    assert history.search_end is SearchEnd.EXHAUSTED


def test_every_candidate_of_a_small_space_is_found_without_asking_twice(tmp_path: Path) -> None:
    small = _with_space(
        tune={"max-running-requests": {"int": [8, 20]}}, require=["max_running_requests < 14"]
    )

    history = _tune(
        ScriptedLauncher(_faster_with_more_slots),
        tmp_path,
        study=small,
        budget=Budget(launches=20, finalists=1),
    )

    searched = [trial.record for trial in history.trials if trial.record.role is Role.SEARCH]
    launched = {record.to_candidate() for record in searched if record.durations_s}
    assert len(launched) == 6
    assert len(searched) <= 6 + 3
    assert history.search_end is SearchEnd.STALLED


@pytest.mark.parametrize("sampler", [SamplerKind.TPE, SamplerKind.GP])
def test_a_search_ends_when_little_is_left_to_gain_and_a_later_call_goes_on(
    tmp_path: Path, sampler: SamplerKind
) -> None:
    budget = Budget(launches=16, finalists=1, least_gain=0.9)
    launcher, later = ScriptedLauncher(_faster_with_more_slots), ScriptedLauncher(_faster_with_more_slots)
    events: list[Event] = []

    history = _tune(launcher, tmp_path, budget=budget, observe=events.append, sampler=sampler)

    searched = [each for each in history.trials if each.record.role is not Role.CONFIRMATION]
    assert launches_used(searched) == FEWEST_MEASURED
    assert len(launcher.launches) == FEWEST_MEASURED + 4
    assert history.search_end is SearchEnd.GAIN
    assert history.expected_gain is not None
    assert 0 < history.expected_gain < 0.9
    assert SearchEnded(SearchEnd.GAIN, history.expected_gain) in events

    went_on = _tune(later, tmp_path, budget=replace(budget, least_gain=None), sampler=sampler)

    assert went_on.search_end is SearchEnd.LAUNCHES
    assert went_on.expected_gain is None
    assert launches_used(went_on.trials) == 16


def test_a_search_that_has_found_nothing_feasible_goes_on(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(ttft_s=5.0))

    history = _tune(launcher, tmp_path, budget=Budget(launches=13, finalists=1, least_gain=0.9))

    assert history.search_end is SearchEnd.LAUNCHES


def test_a_candidate_that_breaks_a_requirement_is_never_asked_for(tmp_path: Path) -> None:
    study = _with_space(require=["max_running_requests >= 128"])
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(launcher, tmp_path, study=study, budget=Budget(launches=10, finalists=1))

    assert Outcome.INFEASIBLE not in {each.record.outcome for each in history.trials}
    assert all(int(flags.get("max-running-requests", 128)) >= 128 for flags in launcher.launches)
    assert history.search_end is SearchEnd.LAUNCHES


def test_requirements_that_nothing_fulfils_cost_no_launch_and_are_named(tmp_path: Path) -> None:
    study = _with_space(require=["max_running_requests > 256"])
    launcher = ScriptedLauncher(_faster_with_more_slots)

    history = _tune(launcher, tmp_path, study=study)

    reasons = {each.record.reason for each in history.trials if each.record.outcome is Outcome.INFEASIBLE}
    assert reasons == {"contradicts 'require: max_running_requests > 256'"}
    assert history.search_end is SearchEnd.STALLED
    assert len(launcher.launches) == 2


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
    one = ["asked", "launch", "launch: weights", "load: concurrency 4", "teardown", "record"]
    assert phases == one + one  # the baseline, and its confirmation
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
