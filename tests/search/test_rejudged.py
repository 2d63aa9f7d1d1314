"""The same launches under another SLO: nothing is launched, and nothing is said that they do not show."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.load.records_file import read_records, write_records
from autotune.record import Outcome, Role, TrialRecord
from autotune.report.answer import answer_text, headline
from autotune.search.answer import Answer, AnswerKind
from autotune.search.budget import Budget
from autotune.search.ledger import read_history
from autotune.search.rejudged import rejudge
from autotune.search.study_history import StudyHistory
from autotune.slo import Decision, Slo, StopKind
from autotune.study import Study
from autotune.tuner import tune
from tests.support.scripted import CRASH, Script, ScriptedLauncher
from tests.support.trials import STUDY

RUNS = Path(__file__).parents[2] / "runs"
FILE = Path("other.yaml")
AT = "concurrency 4"
SLO: dict[str, Any] = {
    "workload": {"input_tokens": 256, "output_tokens": 32},
    "load": [{"concurrency": 2, "requests": 200}, {"concurrency": 4, "requests": 200}],
    "ceilings": ["ttft p95 < 1s at concurrency 4"],
    "objective": "maximise output_throughput at concurrency 4",
}
SMALL = Budget(launches=7, finalists=2)
OWN = Study.model_validate(STUDY.model_dump(by_alias=True) | {"slo": SLO})


def _slo(*ceilings: str, **changes: Any) -> Slo:
    return Slo.model_validate({**SLO, "ceilings": list(ceilings), **changes})


def _slower_but_faster_first_tokens(flags: dict[str, str], _launch: int) -> Script:
    """The more may run, the higher the throughput and the later the first token; the baseline is far off."""
    running = int(flags.get("max-running-requests", 8))
    return Script(ttft_s=0.2 + running / 100, gap_s=20.0 / running)


def _tuned(
    folder: Path,
    script: Callable[[dict[str, str], int], Script] = _slower_but_faster_first_tokens,
    *,
    study: Study = OWN,
    budget: Budget = SMALL,
) -> StudyHistory:
    return tune(study, ScriptedLauncher(script), budget, folder, observe=lambda _: None)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> StudyHistory:
    return _tuned(tmp_path_factory.mktemp("own"))


def _launched(history: StudyHistory) -> list[TrialRecord]:
    return [trial.record for trial in history.trials if trial.record.durations_s]


def _answer(history: StudyHistory) -> Answer:
    assert history.answer is not None
    return history.answer


def _judged(record: TrialRecord) -> list[tuple[str, Decision, Any, Any]]:
    """Every ceiling with its decision; raw times are whole nanoseconds, so values are almost the same."""
    return [
        (each.ceiling, each.decision, pytest.approx(each.value), pytest.approx(each.margin_ratio))
        for each in (record.verdict.ceilings if record.verdict else ())
    ]


def _fresh_values(history: StudyHistory) -> tuple[float, ...]:
    baseline = _answer(history).baseline
    assert baseline is not None
    return baseline.objective(0)


def _ttft_s(history: StudyHistory, number: int) -> float:
    point = history.trials[number].record.point(AT)
    assert point is not None
    assert point.summary.ttft is not None
    return point.summary.ttft.p95


def test_the_studys_own_slo_gives_the_very_records_and_the_answer_again(own: StudyHistory) -> None:
    again = rejudge(own, own.study.slo, FILE)

    assert any(record.stops for record in _launched(own))
    for before, after in zip(own.trials, again.trials, strict=True):
        assert _judged(after.record) == _judged(before.record)
        assert after.record.objectives == pytest.approx(before.record.objectives)
        assert [point.stopped for point in after.record.points] == [
            point.stopped for point in before.record.points
        ]
    assert (_answer(again).kind, _answer(again).winner) == (_answer(own).kind, _answer(own).winner)
    assert {each.trial for each in _answer(again).finalists} == {
        each.trial for each in _answer(own).finalists
    }
    assert again.judged_again is not None
    assert not again.judged_again.not_judged


def test_nothing_of_it_is_stored(own: StudyHistory) -> None:
    before = {path: path.stat().st_mtime_ns for path in own.folder.rglob("*") if path.is_file()}

    rejudge(own, _slo("ttft p95 < 300ms at concurrency 4"), FILE)

    assert {path: path.stat().st_mtime_ns for path in own.folder.rglob("*") if path.is_file()} == before
    assert read_history(own.folder).answer == own.answer


def test_another_objective_has_another_winner_among_those_that_were_launched_again(own: StudyHistory) -> None:
    again = rejudge(
        own, _slo("ttft p95 < 2s at concurrency 4", objective="minimise ttft p95 at concurrency 4"), FILE
    )

    values = [record.objectives for record in _launched(again) if record.outcome is Outcome.MEASURED]
    assert all(value is not None and value[0] < 2 for value in values)
    assert {each.trial for each in _answer(again).finalists} >= {
        each.trial for each in _answer(own).finalists
    }


def test_the_best_under_it_that_was_never_launched_again_is_promising_and_not_confirmed(
    own: StudyHistory,
) -> None:
    searched = [
        trial.number
        for trial in own.trials
        if trial.record.role is Role.SEARCH and trial.record.same_as is None and not trial.record.stops
    ]
    slowest = min(searched, key=lambda number: _ttft_s(own, number))
    limit_s = _ttft_s(own, slowest) + 0.001
    again = rejudge(own, _slo(f"ttft p95 < {limit_s:.6f}s at concurrency 4"), FILE)

    answer = _answer(again)
    assert slowest not in {each.trial for each in _answer(own).finalists}
    assert answer.kind is AnswerKind.NOT_CONFIRMED
    assert [(each.trial, each.launches) for each in answer.finalists] == [(slowest, 0)]
    assert f"Trial {slowest} is promising, not confirmed" in answer_text(again)


def test_a_stopped_load_point_is_missed_again_only_if_it_would_have_been_stopped_again(
    own: StudyHistory,
) -> None:
    stricter = rejudge(own, _slo("ttft p95 < 500ms at concurrency 4"), FILE)
    laxer = rejudge(own, _slo("ttft p95 < 9s at concurrency 4"), FILE)

    stopped = [trial.number for trial in own.trials if trial.record.stops]
    for number in stopped:
        record = stricter.trials[number].record
        (stop,) = [point.stopped for point in record.stops if point.load == AT]
        assert stop is not None
        assert (stop.kind, stop.ceiling) == (StopKind.MISSED, "ttft p95 < 500ms at concurrency 4")
        assert record.verdict is not None
        assert record.verdict.decision is Decision.MISSED
        assert laxer.trials[number].record.outcome is Outcome.INVALID
    assert laxer.judged_again is not None
    (reason,) = laxer.judged_again.not_judged
    assert "concurrency 4 was stopped early under the study's own SLO" in reason
    assert set(laxer.judged_again.not_judged[reason]) == set(stopped)
    assert f"Not judged again: trial {', '.join(map(str, sorted(stopped)))}, because" in answer_text(laxer)


def test_a_launch_that_misses_at_one_load_needs_no_more_than_the_values_of_the_others(tmp_path: Path) -> None:
    own = _tuned(
        tmp_path,
        lambda flags, _: Script(ttft_s=0.5 if "max-running-requests" not in flags else 3.0),
        study=OWN.model_copy(update={"slo": _slo("ttft p95 < 1s at concurrency 2")}),
        budget=Budget(launches=2, finalists=1),
    )
    again = rejudge(own, _slo("ttft p95 < 2s at concurrency 2"), FILE)
    other = rejudge(own, _slo("ttft p95 < 4s at concurrency 2"), FILE)

    assert [point.load for point in own.trials[1].record.stops] == ["concurrency 2", "concurrency 4"]
    assert again.trials[1].record.outcome is Outcome.MEASURED
    assert again.trials[1].record.verdict is not None
    assert again.trials[1].record.verdict.decision is Decision.MISSED
    assert other.trials[1].record.outcome is Outcome.INVALID


def test_a_load_point_that_was_skipped_is_said_to_be(tmp_path: Path) -> None:
    slo = _slo(
        "ttft p95 < 1s at concurrency 2",
        load=SLO["load"],
        objective="maximise output_throughput at concurrency 2",
    )
    own = _tuned(
        tmp_path,
        lambda flags, _: Script(ttft_s=0.5 if "max-running-requests" not in flags else 3.0),
        study=OWN.model_copy(update={"slo": slo}),
        budget=Budget(launches=2, finalists=1, stops_early=False),
    )
    assert [point.load for point in own.trials[1].record.points] == ["concurrency 2"]

    record = rejudge(own, _slo("ttft p95 < 4s at concurrency 4"), FILE).trials[1].record

    assert record.outcome is Outcome.INVALID
    assert record.reason == (
        "concurrency 4 was not measured: the launch missed ttft p95 < 1s at concurrency 2"
    )


def _copied(history: StudyHistory, folder: Path) -> StudyHistory:
    """The same study with raw files of its own."""
    for path in history.folder.rglob("*.npz"):
        place = folder / path.relative_to(history.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    return replace(history, folder=folder)


def _without(path: Path) -> None:
    path.unlink()


def _changed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_without, "the raw records of concurrency 4 are not there"),
        (_changed, "the raw records of concurrency 4 are not the recorded ones: their SHA-256 differs"),
        (_a_folder, "the raw records of concurrency 4 cannot be read: Is a directory"),
    ],
)
def test_a_raw_file_that_is_gone_or_another_is_said_and_its_launch_is_not_judged(
    own: StudyHistory, tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    history = _copied(own, tmp_path)
    (point,) = [each for each in history.trials[0].record.points if each.load == AT]
    harm(tmp_path / point.file)

    again = rejudge(history, own.study.slo, FILE)

    assert again.judged_again is not None
    assert again.judged_again.not_judged == {reason: (0,)}
    assert (again.trials[0].record.verdict, again.trials[0].record.objectives) == (None, None)
    assert [point.load for point in again.trials[0].record.points] == ["concurrency 2"]
    # the baseline's fresh launches still are what the finalists are compared with
    assert _fresh_values(again) == pytest.approx(_fresh_values(own))
    assert _answer(again).winner == _answer(own).winner


def test_a_finalist_without_its_own_raw_file_is_judged_by_its_fresh_launches(
    own: StudyHistory, tmp_path: Path
) -> None:
    history, winner = _copied(own, tmp_path), _answer(own).winner
    assert winner
    (point,) = [each for each in history.trials[winner].record.points if each.load == AT]
    (tmp_path / point.file).unlink()

    kept = rejudge(history, own.study.slo, FILE)
    missing = rejudge(history, _slo("ttft p95 < 10ms at concurrency 4"), FILE)

    assert _answer(kept).winner == winner
    assert _answer(missing).finalists == ()
    assert _answer(missing).kind is AnswerKind.NOTHING_MEETS


def test_a_baseline_without_its_own_raw_file_is_still_what_is_compared_with(
    own: StudyHistory, tmp_path: Path
) -> None:
    history = _copied(own, tmp_path)
    (point,) = [each for each in history.trials[0].record.points if each.load == AT]
    (tmp_path / point.file).unlink()

    answer = _answer(rejudge(history, _slo("output_throughput > 100tok/s at concurrency 4"), FILE))

    assert answer.kind is AnswerKind.IMPROVED
    assert answer.baseline is not None
    assert answer.baseline.decision is Decision.MISSED


@pytest.mark.parametrize("is_same_hash", [True, False])
def test_a_damaged_file_or_one_with_other_numbers_is_not_judged(
    own: StudyHistory, tmp_path: Path, is_same_hash: bool
) -> None:
    """The hash is right, so that it was recorded like that, by whoever did."""
    history = _copied(own, tmp_path)
    record = history.trials[0].record
    (point,) = [each for each in record.points if each.load == AT]
    path = tmp_path / point.file
    if is_same_hash:
        result = read_records(path)
        sha256 = write_records(path, replace(result, records=result.records[:100]))
        expected = "the raw records of concurrency 4 do not give the recorded numbers again"
    else:
        path.write_bytes(b"no archive")
        sha256 = hashlib.sha256(b"no archive").hexdigest()
        expected = "the raw records of concurrency 4 are damaged"
    points = tuple(
        each.model_copy(update={"sha256": sha256}) if each is point else each for each in record.points
    )
    first = replace(history.trials[0], record=record.model_copy(update={"points": points}))

    again = rejudge(replace(history, trials=(first, *history.trials[1:])), own.study.slo, FILE)

    assert again.trials[0].record.reason == expected


def test_what_was_not_measured_stays_what_it_was(tmp_path: Path) -> None:
    own = _tuned(
        tmp_path,
        lambda flags, _: Script(raises=None, dies=CRASH) if "max-running-requests" in flags else Script(),
        budget=Budget(launches=3, finalists=1),
    )
    again = rejudge(own, _slo("ttft p95 < 2s at concurrency 4"), FILE)

    assert [each.record.failure for each in again.trials] == [each.record.failure for each in own.trials]
    assert _answer(again).kind is AnswerKind.KEEP_BASELINE


def test_an_objective_of_which_nothing_was_measured_makes_a_launch_invalid(tmp_path: Path) -> None:
    """One token has no time per token."""
    short = {"input_tokens": 256, "output_tokens": 1}
    own = _tuned(
        tmp_path,
        lambda *_: Script(),
        study=OWN.model_copy(update={"slo": _slo("ttft p95 < 1s at concurrency 4", workload=short)}),
        budget=Budget(launches=1),
    )
    again = rejudge(
        own,
        _slo(
            "ttft p95 < 1s at concurrency 4", workload=short, objective="minimise tpot p50 at concurrency 4"
        ),
        FILE,
    )
    assert again.trials[0].record.reason == "nothing was measured for 'minimise tpot p50 at concurrency 4'"


def test_a_study_without_an_answer_has_none_under_another_slo_either(own: StudyHistory) -> None:
    again = rejudge(replace(own, answer=None), _slo("ttft p95 < 2s at concurrency 4"), FILE)

    assert again.answer is None
    assert headline(again) == "No answer yet: the study is not finished."


def test_several_objectives_are_answered_from_those_that_were_launched_again(own: StudyHistory) -> None:
    both = ["maximise output_throughput at concurrency 4", "minimise ttft p95 at concurrency 4"]
    again = rejudge(own, _slo("ttft p95 < 2s at concurrency 4", objective=None, objectives=both), FILE)

    assert all(len(record.objectives or (0, 0)) == 2 for record in _launched(again))
    assert len(_answer(again).finalists) >= 2


def test_on_the_h100_the_default_wins_where_the_first_token_is_what_matters() -> None:
    own = read_history(RUNS / "h100-llama-8b-tpot")
    slo = own.study.slo.model_dump(by_alias=True) | {"ceilings": ["ttft p95 < 4s at concurrency 128"]}
    again = rejudge(own, Slo.model_validate(slo), FILE)

    answer = _answer(again)
    assert (_answer(own).kind, answer.kind, answer.winner) == (
        AnswerKind.UNDECIDED,
        AnswerKind.KEEP_BASELINE,
        0,
    )
    assert answer.baseline is not None
    assert answer.baseline.mean(0) == pytest.approx(4478, abs=1)
    assert answer.binding is not None
    assert answer.binding.value == pytest.approx(3.05, abs=0.01)
    assert again.judged_again is not None
    assert again.judged_again.not_judged == {"the raw records of concurrency 128 are not there": (1, 5, 7)}


def test_the_h100s_values_are_derived_again_from_their_raw_records_all_looks_of_them() -> None:
    own = read_history(RUNS / "h100-llama-8b-tpot")
    again = rejudge(own, own.study.slo, FILE)

    judged = [
        (before.record, after.record)
        for before, after in zip(own.trials, again.trials, strict=True)
        if after.record.outcome is Outcome.MEASURED
    ]
    assert len(judged) == 8
    assert {point.summary.sent for _, after in judged for point in after.points} == {256, 768}
    for before, after in judged:
        assert after.objectives == pytest.approx(before.objectives, rel=1e-9)
