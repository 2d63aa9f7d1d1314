from collections.abc import Mapping
from typing import Any

import pytest

from autotune.export.remedy import remedies
from autotune.export.selection import RefusedExport, select
from autotune.record import Role
from autotune.report.findings import nearest
from autotune.search.answer import AnswerKind
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Verdict
from tests.support import histories as made

LIGHTER: Mapping[str, Any] = {
    "ceilings": ["ttft p95 < 10s at concurrency 100"],
    "objective": "maximise output_throughput at concurrency 50",
}


def missed(
    slo: Mapping[str, Any], *measured: tuple[float, float], space: Mapping[str, Any] = {}
) -> StudyHistory:
    """A study that nothing meets; its candidates have these throughputs and TTFTs at concurrency 50."""
    study = made.make_study(space, slo)
    trials = [
        made.trial(study, number, {"chunked-prefill-size": 1024 * (number + 1)}, tps, ttft_s, role=role)
        for number, (tps, ttft_s) in enumerate(measured)
        for role in [Role.SEARCH if number else Role.BASELINE]
    ]
    return made.history(study, *trials, answer=made.answered(AnswerKind.NOTHING_MEETS, None, None))


def helps(history: StudyHistory) -> list[str]:
    found = nearest(history)
    assert found is not None
    return list(remedies(history, found))


def test_a_looser_limit_is_told_with_how_many_candidates_pass_it() -> None:
    history = missed({}, (1000.0, 15.0), (1100.0, 12.34), (1000.0, 13.0), (300.0, 12.0))
    assert helps(history)[0] == (
        "With ttft p95 < 13.0 s at concurrency 50, 2 of 4 measured candidates would pass, "
        "by the values measured so far."
    )


def test_the_limit_that_is_told_is_kept_by_the_nearest_candidate_itself() -> None:
    for ttft_s in (10.01, 12.0, 12.5, 99.9, 100.0, 10.1):
        assert ", 1 of 1 measured candidates would pass" in helps(missed({}, (1000.0, ttft_s)))[0]


def test_every_missed_limit_is_loosened_and_a_floor_is_lowered() -> None:
    first = helps(missed({}, (432.1, 12.34)))[0]
    assert first.startswith(
        "With ttft p95 < 13.0 s at concurrency 50 and output_throughput > 430 tok/s at concurrency 50, 1 of 1"
    )


def test_services_share_a_load_under_which_the_candidate_was_seen_to_keep_the_limit() -> None:
    history = _judged_at_100(missed(LIGHTER, (1000.0, 8.0), space=made.TWO_NODES), value_s=16.0)
    assert helps(history)[1] == (
        "More nodes: at concurrency 50 it has 8.00 s; "
        "2 such services (4 nodes) that share the load would keep the limit."
    )


def test_without_a_lighter_load_the_number_of_nodes_is_not_invented() -> None:
    assert helps(missed({}, (1000.0, 12.0)))[1] == (
        "More nodes: how many cannot be told, as no lighter load was measured under which it keeps "
        "this limit."
    )
    overloaded = _judged_at_100(missed(LIGHTER, (1000.0, 12.0)), value_s=24.0)
    assert "how many cannot be told" in helps(overloaded)[1]


def test_throughput_adds_up_over_services() -> None:
    history = missed({}, (170.0, 5.0))
    assert (
        helps(history)[1] == "More nodes: 3 such services (3 nodes), each under this load, give it together."
    )


def test_failed_requests_are_not_talked_away_by_a_looser_limit() -> None:
    history = missed({}, (1000.0, 9.0))
    record = history.trials[0].record
    assert record.verdict is not None
    first, *rest = record.verdict.ceilings
    failing = first.model_copy(update={"margin_ratio": -10.0, "failed": 40, "decision": "missed"})
    told = _with_verdict(history, Verdict(ceilings=(failing, *rest)))
    assert helps(told)[0] == (
        "No looser limit helps against the failed requests under ttft p95 < 10s at concurrency 50."
    )


def test_what_is_undecided_needs_more_load_rather_than_a_looser_limit() -> None:
    history = made.undecided()
    assert helps(history)[0].startswith("By the share seen so far about")
    with pytest.raises(RefusedExport, match="would decide it: give concurrency 50 more requests"):
        select(history, number=None, force=False)


def test_what_was_never_judged_has_no_remedy() -> None:
    history = made.improved()
    crashed = next(trial for trial in history.trials if trial.number == 3)
    assert list(remedies(history, crashed)) == []


def _judged_at_100(history: StudyHistory, *, value_s: float) -> StudyHistory:
    """Return the history with its one candidate judged by what it had at concurrency 100."""
    record = history.trials[0].record
    assert record.verdict is not None
    (judged,) = record.verdict.ceilings
    update = {"value": value_s, "margin_ratio": 1 - value_s / 10.0, "decision": "missed"}
    return _with_verdict(history, Verdict(ceilings=(judged.model_copy(update=update),)))


def _with_verdict(history: StudyHistory, verdict: Verdict) -> StudyHistory:
    (trial,) = history.trials
    record = trial.record.model_copy(update={"verdict": verdict})
    return made.history(history.study, NumberedTrial(trial.number, record), answer=history.answer)
