from collections.abc import Sequence

from autotune.export.change import changes, single_effects, whole_effect
from autotune.export.page import evidence_page
from autotune.export.selection import Selection, select
from autotune.record import Role
from autotune.search.answer import AnswerKind
from autotune.search.confirmation import NumberedTrial
from tests.support import histories as made

ONLY_CHUNK = {"chunked-prefill-size": 8192}
ONLY_POLICY = {"schedule-policy": "lpm"}


def searched(*others: NumberedTrial) -> Selection:
    """A study whose trial 2 is exported; nothing was launched again."""
    study = made.make_study()
    trials: Sequence[NumberedTrial] = (
        made.trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE),
        made.trial(study, 2, made.FASTER, 1130.0, 6.0),
        *others,
    )
    return select(made.history(study, *trials), number=2, force=False)


def test_the_difference_is_told_in_words() -> None:
    told = [str(change) for change in changes(select(made.improved(), number=None, force=False))]
    assert told == [
        "chunked-prefill-size 4096 (engine's default) -> 8192",
        "schedule-policy (engine's default) -> lpm",
    ]


def test_a_flag_that_is_set_back_to_the_engines_choice_is_told_too() -> None:
    study = made.make_study()
    baseline = made.trial(study, 0, made.FASTER, 1000.0, 8.0, role=Role.BASELINE)
    history = made.history(study, baseline, made.trial(study, 1, ONLY_POLICY, 1100.0, 7.0))
    (change,) = changes(select(history, number=1, force=False))
    assert str(change) == "chunked-prefill-size 8192 -> 4096 (engine's default)"


def test_the_effect_comes_from_fresh_launches_where_there_are_any() -> None:
    source, lines = whole_effect(select(made.improved(), number=None, force=False))
    assert source == "means over 1 fresh launch of the baseline and 1 fresh launch of this"
    assert lines[0] == (
        "concurrency 50: TTFT p95 -11.1 % (8.10 s -> 7.20 s), ITL p99 +0 % (108 ms -> 108 ms), "
        "output throughput +11.9 % (1,000 tok/s -> 1,120 tok/s)"
    )
    assert lines[1].startswith("concurrency 100: TTFT p95 -11.1 % (16.2 s -> 14.4 s)")


def test_several_fresh_launches_count_by_their_mean() -> None:
    history = made.improved()
    more = made.trial(history.study, 9, made.FASTER, 1120.0, 9.0, role=Role.CONFIRMATION, confirms=2)
    history = made.history(history.study, *history.trials, more, answer=history.answer)
    source, lines = whole_effect(select(history, number=None, force=False))
    assert source.endswith("and 2 fresh launches of this")
    assert "TTFT p95 +0 % (8.10 s -> 8.10 s)" in lines[0]


def test_without_fresh_launches_the_search_is_named_as_the_source() -> None:
    source, lines = whole_effect(searched())
    assert source == "means over 1 search launch of the baseline and 1 search launch of this"
    assert "TTFT p95 -25.0 % (8.00 s -> 6.00 s)" in lines[0]


def test_a_single_flag_has_an_effect_only_where_two_trials_differ_in_it_alone() -> None:
    assert tuple(single_effects(searched())) == ()
    study = made.make_study()
    beside = made.trial(study, 1, ONLY_POLICY, 1000.0, 7.5)
    found = tuple(single_effects(searched(beside)))
    chunk = "chunked-prefill-size 4096 (engine's default) -> 8192 alone (trials 1 and 2): "
    policy = "schedule-policy (engine's default) -> lpm alone (trials 0 and 1): "
    assert found[0].startswith(f"{chunk}concurrency 50: TTFT p95 -20.0 % (7.50 s -> 6.00 s)")
    assert found[2].startswith(f"{policy}concurrency 50: TTFT p95 -6.25 % (8.00 s -> 7.50 s)")
    assert len(found) == 4


def test_a_trial_that_took_anothers_numbers_over_says_nothing_of_a_flag() -> None:
    study = made.make_study()
    beside = made.trial(study, 1, ONLY_CHUNK, 1000.0, 7.5)
    record = beside.record.model_copy(update={"same_as": 0})
    assert tuple(single_effects(searched(NumberedTrial(1, record)))) == ()


def test_of_one_change_the_whole_effect_is_told_once() -> None:
    study = made.make_study()
    baseline = made.trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE)
    history = made.history(study, baseline, made.trial(study, 1, ONLY_CHUNK, 1100.0, 7.0))
    selection = select(history, number=1, force=False)
    assert tuple(single_effects(selection)) == ()
    page = evidence_page(selection).text
    assert "Effect of this change (means over 1 search launch" in page
    assert "What a single flag did" not in page


def test_the_page_tells_single_flags_or_that_they_are_not_known() -> None:
    study = made.make_study()
    page = evidence_page(searched(made.trial(study, 1, ONLY_POLICY, 1000.0, 7.5))).text
    assert "Single flags, from two trials of the search that differ in nothing else" in page
    assert "What a single flag did is not known" in evidence_page(searched()).text


def test_a_kept_baseline_changes_nothing() -> None:
    selection = select(made.kept(), number=None, force=False)
    assert changes(selection) == ()
    assert "## Changes against the baseline\n\nNone that is known.\n" in evidence_page(selection).text


def test_without_a_baseline_nothing_is_compared() -> None:
    study = made.make_study()
    answer = made.answered(AnswerKind.UNCOMPARED, 1, None)
    trial = made.trial(study, 1, made.FASTER, 1100.0, 7.0)
    selection = select(made.history(study, trial, answer=answer), number=1, force=False)
    assert changes(selection) == ()
    assert whole_effect(selection) == ("", ())
    assert tuple(single_effects(selection)) == ()


def test_a_baseline_that_was_not_measured_has_no_effect_to_compare_with() -> None:
    study = made.make_study()
    crashed = made.trial(study, 0, {}, 1.0, 1.0, role=Role.BASELINE)
    record = crashed.record.model_copy(update={"outcome": "failed", "points": ()})
    trial = made.trial(study, 1, made.FASTER, 1100.0, 7.0)
    history = made.history(study, NumberedTrial(0, record), trial)
    assert whole_effect(select(history, number=1, force=False)) == ("", ())
