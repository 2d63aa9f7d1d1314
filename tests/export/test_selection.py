import pytest

from autotune.errors import ConfigError
from autotune.export.selection import RefusedExport, select
from autotune.failure import FailureKind
from autotune.search.alike import Alikeness
from autotune.search.answer import AnswerKind
from autotune.search.study_history import StudyHistory
from tests.support import histories as made


def test_the_winner_is_what_a_finished_study_recommends() -> None:
    selection = select(made.improved(), number=None, force=False)
    assert selection.trial.number == 2
    assert selection.marks == ()


def test_a_kept_baseline_is_exported() -> None:
    assert select(made.kept(), number=None, force=False).trial.number == 0


def test_an_unfinished_study_recommends_its_best_and_says_that_it_is_not_confirmed() -> None:
    selection = select(made.unfinished(), number=None, force=False)
    assert selection.trial.number == 1
    assert selection.marks[0].startswith("NOT CONFIRMED")


def test_without_a_confirmed_finalist_what_still_stands_is_recommended() -> None:
    assert select(made.not_confirmed(), number=None, force=False).trial.number == 0


def test_a_simulated_study_marks_its_export() -> None:
    assert select(made.improved(is_simulated=True), number=None, force=False).marks[0].startswith("SIMULATED")


def test_nothing_that_meets_the_slo_is_refused_with_the_binding_ceiling_and_its_margin() -> None:
    with pytest.raises(RefusedExport) as caught:
        select(made.nothing_meets(), number=None, force=False)
    assert str(caught.value) == (
        "trial 1 does not meet the SLO: ttft p95 < 10s at concurrency 50: measured 12.0 s, "
        "missed by 20.0 % of the limit.\n"
        "    With ttft p95 < 12.0 s at concurrency 50, 1 of 2 measured candidates would pass, "
        "by the values measured so far.\n"
        "    More nodes: how many cannot be told, as no lighter load was measured under which it keeps "
        "this limit.\n"
        "    --force exports it, marked as such."
    )
    assert caught.value.exit_code == 1


def test_a_refused_trial_names_the_nearest_candidate() -> None:
    with pytest.raises(RefusedExport) as caught:
        select(made.nothing_meets(), number=0, force=False)
    assert "trial 0 does not meet the SLO" in str(caught.value)
    assert "The nearest candidate is trial 1" in str(caught.value)


@pytest.mark.parametrize(
    ("history", "number", "reason"),
    [
        (made.improved(), 1, "missed by 25.0 %"),
        (made.improved(), 3, "was not measured"),
        (made.unfinished(), 2, "undecided"),
        (made.not_confirmed(), 1, "fresh launches failed"),
    ],
)
def test_a_named_trial_that_does_not_meet_the_slo_leaves_only_by_force(
    history: StudyHistory, number: int, reason: str
) -> None:
    with pytest.raises(RefusedExport, match=reason):
        select(history, number=number, force=False)
    assert select(history, number=number, force=True).marks[0].startswith("DOES NOT MEET ITS SLO: ")


def test_a_study_that_says_no_exports_nothing_unasked() -> None:
    study = made.make_study()
    lost = made.confirmed(study, 1, 1100.0, 12.0)
    answer = made.answered(AnswerKind.NOTHING_MEETS, None, None, lost)
    trials = [made.trial(study, 1, made.FASTER, 1100.0, 7.0), made.trial(study, 2, {}, 1000.0, 8.0)]
    history = made.history(study, *trials, answer=answer)
    with pytest.raises(RefusedExport, match="trial 2 does not meet the SLO: the fresh launches"):
        select(history, number=None, force=False)
    assert select(history, number=2, force=False).trial.number == 2


def test_a_front_is_the_users_choice() -> None:
    history = made.front_answered()
    with pytest.raises(ConfigError, match=r"Name one of its trials with --trial: 0, 1, 2\."):
        select(history, number=None, force=False)


def test_a_named_point_of_the_confirmed_front_needs_no_force_and_carries_no_mark() -> None:
    selection = select(made.front_answered(), number=2, force=False)
    assert (selection.trial.number, selection.shortfall, selection.marks) == (2, None, ())


def test_a_candidate_beside_the_confirmed_front_is_marked() -> None:
    assert select(made.front_answered(), number=3, force=False).marks == (
        "NOT ON THE CONFIRMED PARETO FRONT: another candidate beats it.",
    )


def test_a_trial_that_does_not_exist_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="no finished trial 99"):
        select(made.improved(), number=99, force=True)


def test_a_study_that_measured_nothing_has_nothing_to_export_even_by_force() -> None:
    with pytest.raises(RefusedExport, match=r"no candidate was measured\.$"):
        select(made.empty(), number=None, force=True)
    study = made.make_study()
    history = made.history(study, made.failed(0, FailureKind.CRASHED, "gone"))
    with pytest.raises(RefusedExport, match="Not measured: 1 crashed"):
        select(history, number=None, force=True)


def test_a_process_study_becomes_a_container_without_the_hosts_paths() -> None:
    selection = select(
        made.improved(
            {"launcher": "process", "command": ["/opt/venv/bin/python", "-m", "sglang.launch_server"]}
        ),
        number=None,
        force=False,
    )
    assert selection.plan.ranks[0].argv[0] == "/opt/venv/bin/python"
    inside = selection.container_plan.ranks[0].argv
    assert inside[0] == "python3"
    assert inside[inside.index("--host") + 1] == "0.0.0.0"  # noqa: S104 - inside a container


def test_a_container_keeps_the_command_that_was_written_for_it() -> None:
    selection = select(made.improved({"command": ["sglang", "serve"]}), number=None, force=False)
    assert selection.container_plan.ranks[0].argv[:2] == ("sglang", "serve")


def test_a_winner_that_answers_otherwise_leaves_only_by_name_and_is_marked() -> None:
    history = made.answering(made.improved(), 2, made.DIFFERENT)

    with pytest.raises(RefusedExport) as caught:
        select(history, number=None, force=True)
    selection = select(history, number=None, force=False, accept_answers=True)

    first, where, remedy = str(caught.value).splitlines()
    assert first.startswith("trial 2 answers otherwise than the baseline: 16 fixed prompts, greedily: 40.0 %")
    assert "answers.json" in where
    assert remedy == "    --accept-answers exports it, marked as such."
    assert selection.marks[0].startswith("ITS ANSWERS DIFFER FROM THE BASELINE'S, which was accepted by name")


@pytest.mark.parametrize("alike", [made.ALIKE, made.NOT_ASKED], ids=["alike", "unknown"])
def test_a_winner_that_is_not_known_to_answer_otherwise_leaves_unmarked(alike: Alikeness) -> None:
    selection = select(made.answering(made.improved(), 2, alike), number=None, force=False)

    assert selection.marks == ()


@pytest.mark.parametrize("force", [False, True])
def test_what_was_measured_live_only_is_never_exported(force: bool) -> None:
    with pytest.raises(RefusedExport, match=r"trial 2 was measured live on trial 1, .* must confirm it"):
        select(made.measured_live(), number=2, force=force, accept_answers=True)


def test_what_was_launched_is_recommended_before_what_was_measured_live() -> None:
    assert select(made.measured_live(), number=None, force=False).trial.number == 1


def test_a_candidate_that_was_measured_live_leaves_once_a_launch_confirmed_it() -> None:
    history = made.measured_live(is_confirmed=True)

    assert select(history, number=2, force=False).trial.number == 2
    assert select(history, number=None, force=False).trial.number == 2


def test_a_study_whose_launches_all_failed_does_not_export_what_was_measured_live() -> None:
    study = made.make_study()
    crashed = made.failed(0, FailureKind.CRASHED, "Segmentation fault")

    with pytest.raises(RefusedExport, match="trial 1 was measured live on trial 0"):
        select(made.history(study, crashed, made.live(study, 1, 0)), number=None, force=True)
