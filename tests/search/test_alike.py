"""Whether finalists answer as the baseline does; engines here are random, with known ways to differ."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load.answers import AnswerSheet, AnswerUnit, GivenAnswer, write_sheet
from autotune.record import AnswersRecord, Role, TrialRecord
from autotune.search.alike import LEAST_DRIFT_NATS, Alikeness, AnswersVerdict, alikeness_of, compare
from autotune.search.confirmation import Contest, NumberedTrial
from tests.support.trials import measured

PROMPTS, TOKENS = 16, 32


def sheet(
    generator: np.random.Generator,
    *,
    noise_nats: float = 0.0,
    flip_chance: float = 0.0,
    drift_nats: float = 0.0,
    logprobs: bool = True,
    unit: AnswerUnit = AnswerUnit.IDS,
) -> AnswerSheet:
    """A launch: noise on every log-probability, and now and then another token from some position on."""

    def answer(prompt: int) -> GivenAnswer:
        tokens = [prompt * 1000 + position for position in range(TOKENS)]
        if generator.random() < flip_chance:
            start = int(generator.integers(TOKENS))
            tokens[start:] = [-token - 1 for token in tokens[start:]]
        told = -1.0 - drift_nats + generator.normal(0.0, noise_nats, TOKENS)
        return GivenAnswer(unit=unit, tokens=tuple(tokens), logprobs=tuple(told) if logprobs else None)

    alone, together = ([answer(prompt) for prompt in range(PROMPTS)] for _ in range(2))
    return AnswerSheet(path="/generate", alone=tuple(alone), together=tuple(together))


def compared(seed: int, changes: dict[str, Any], noise: dict[str, Any]) -> Alikeness:
    generator = np.random.default_rng(seed)
    candidate = [sheet(generator, **{**noise, **changes}) for _ in range(2)]
    baseline = [sheet(generator, **noise) for _ in range(2)]
    return compare(candidate, baseline, error_rate=0.05)


def test_launches_that_answer_the_same_are_alike() -> None:
    alike = compared(0, {}, {})

    assert alike.verdict is AnswersVerdict.ALIKE
    assert (alike.unit, alike.prompts) == (AnswerUnit.IDS, PROMPTS)
    assert alike.cross == alike.own
    assert alike.cross is not None
    assert (alike.cross.equal_ratio, alike.cross.changed_ratio) == (1.0, 0.0)
    assert (alike.cross.first_divergence, alike.cross.drift_nats) == (None, 0.0)


def test_a_drift_beyond_the_baselines_own_is_different_and_is_told() -> None:
    alike = compared(0, {"drift_nats": 0.05}, {"noise_nats": 0.01})

    assert alike.verdict is AnswersVerdict.DIFFERENT
    assert alike.cross is not None
    assert alike.own is not None
    assert alike.cross.drift_nats == pytest.approx(0.05, rel=0.1)
    assert alike.own.drift_nats == pytest.approx(0.01 * 2 / np.sqrt(np.pi), rel=0.1)


def test_tokens_that_diverge_more_often_than_the_baselines_own_are_different() -> None:
    alike = compared(0, {"flip_chance": 0.9}, {"flip_chance": 0.05})

    assert alike.verdict is AnswersVerdict.DIFFERENT
    assert alike.cross is not None
    assert alike.own is not None
    assert alike.cross.equal_ratio < 0.7 < alike.own.equal_ratio
    assert alike.cross.changed_ratio == 1.0
    assert alike.cross.first_divergence is not None


def test_answers_that_part_at_once_leave_no_drift_to_tell() -> None:
    generator = np.random.default_rng(0)
    baseline = [sheet(generator), sheet(generator)]
    answers = tuple(GivenAnswer(unit=AnswerUnit.IDS, tokens=(-1,), logprobs=(0.0,)) for _ in range(PROMPTS))
    other = AnswerSheet(path="/generate", alone=answers, together=answers)

    alike = compare([other], baseline, error_rate=0.05)

    assert alike.verdict is AnswersVerdict.DIFFERENT
    assert alike.cross is not None
    assert (alike.cross.equal_ratio, alike.cross.drift_nats) == (0.0, None)


def test_a_drift_that_nobody_could_see_is_no_difference() -> None:
    assert compared(0, {"drift_nats": 0.9 * LEAST_DRIFT_NATS}, {}).verdict is AnswersVerdict.ALIKE
    assert compared(0, {"drift_nats": 1.1 * LEAST_DRIFT_NATS}, {}).verdict is AnswersVerdict.DIFFERENT


def test_without_log_probabilities_the_tokens_decide() -> None:
    assert compared(0, {}, {"logprobs": False}).verdict is AnswersVerdict.ALIKE
    assert compared(0, {"flip_chance": 1.0}, {"logprobs": False}).verdict is AnswersVerdict.DIFFERENT


def test_what_was_answered_in_other_forms_is_not_compared() -> None:
    generator = np.random.default_rng(0)
    other = [sheet(generator, unit=AnswerUnit.CHARACTERS)]

    alike = compare(other, [sheet(generator), sheet(generator)], error_rate=0.05)

    assert (alike.verdict, alike.reason) == (
        AnswersVerdict.UNKNOWN,
        "the launches were answered in other forms",
    )


@pytest.mark.parametrize(
    "noise",
    [
        {"noise_nats": 0.02},
        {"noise_nats": 0.02, "flip_chance": 0.05},
        {"flip_chance": 0.5, "logprobs": False},
    ],
    ids=str,
)
def test_the_same_engine_is_called_different_no_more_often_than_stated(noise: dict[str, Any]) -> None:
    studies = 400
    wrong = sum(compared(seed, {}, noise).verdict is AnswersVerdict.DIFFERENT for seed in range(studies))

    assert wrong / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)


@given(seed=st.integers(0, 1000), flips=st.floats(0, 1), noise=st.floats(0, 1))
def test_a_launch_never_differs_from_itself(seed: int, flips: float, noise: float) -> None:
    generator = np.random.default_rng(seed)
    launches = [sheet(generator, flip_chance=flips, noise_nats=noise) for _ in range(2)]

    alike = compare(launches, launches, error_rate=0.05)

    assert alike.verdict is AnswersVerdict.ALIKE


class Launches:
    """Confirmations with raw files, of baseline 0 and finalists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._generator = np.random.default_rng(7)
        self.records: list[TrialRecord] = []

    def add(self, confirms: int, *, reason: str | None = None, **changes: Any) -> None:
        answers = AnswersRecord(reason=reason)
        if reason is None:
            name = f"{len(self.records)}.json"
            digest = write_sheet(self._folder / name, sheet(self._generator, **changes))
            answers = AnswersRecord(file=name, sha256=digest)
        self.records.append(measured(100.0, role=Role.CONFIRMATION, confirms=confirms, answers=answers))

    def alike(self, *finalists: int, baseline: bool = True) -> dict[int, Alikeness]:
        trials = [NumberedTrial(number, measured(100.0)) for number in (0, *finalists)]
        contest = Contest(
            trials[0] if baseline else None, tuple(trials[1:]), tuple(trials), tuple(self.records)
        )
        return alikeness_of(contest, self._folder)


def test_every_finalist_is_compared_with_the_baseline_by_its_raw_files(tmp_path: Path) -> None:
    launches = Launches(tmp_path)
    for _ in range(2):
        launches.add(0)
        launches.add(1)
        launches.add(2, flip_chance=1.0)

    alike = launches.alike(1, 2)

    assert [alike[number].verdict for number in (1, 2)] == [AnswersVerdict.ALIKE, AnswersVerdict.DIFFERENT]


def test_what_was_not_asked_is_unknown_with_the_reason(tmp_path: Path) -> None:
    launches = Launches(tmp_path)
    launches.add(0)
    launches.add(1)
    launches.add(2, reason="a simulated engine has no model that could answer")
    launches.records.append(measured(100.0, role=Role.CONFIRMATION, confirms=3))

    alike = launches.alike(1, 2, 3)

    assert {each.verdict for each in alike.values()} == {AnswersVerdict.UNKNOWN}
    assert [alike[number].reason for number in (1, 2, 3)] == [
        "only one launch of the baseline was asked, so its own difference is not known",
        "a simulated engine has no model that could answer",
        "no launch was asked",
    ]


def test_without_a_baseline_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    launches = Launches(tmp_path)
    launches.add(1)

    assert launches.alike(1, baseline=False)[1].reason == "there is no baseline to compare with"
