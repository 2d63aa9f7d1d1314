"""How many rounds of fresh launches a confirmation takes: as many as asked, or until the gain is known well.

In: a `Contest` and what the user asked for. Out: a number of rounds, and the answer that they give. Reads the
raw files of answers in `final_answer` only. Invariant: looking at an interval to decide whether to go on
spends error rate, so that all looks together are wrong with at most the rate that is stated.
"""

import math
from pathlib import Path

from autotune.search.alike import alikeness_of
from autotune.search.answer import Answer, AnswerKind, conclude
from autotune.search.budget import Budget
from autotune.search.confirmation import Contest
from autotune.search.gains import Gain
from autotune.slo import ERROR_RATE, Decision, Slo

MOST_ROUNDS = 12
"""Without a limit on time somebody must end it: the interval then hardly narrows from round to round."""


def rounds_due(contest: Contest, slo: Slo, budget: Budget) -> int:
    """Return how many rounds the confirmation has, by what is known so far: one more while it is imprecise.

    The gain that must be known is the named winner's, or the best finalist's while nobody wins, in every
    objective; it is looked at between rounds only. Nothing is gained by more rounds once no finalist can
    meet the SLO.
    """
    done, begun = complete_rounds(contest), max(_launches(contest), default=0)
    if budget.precision is None or not contest.finalists or contest.baseline is None:
        return budget.rounds
    if done < budget.rounds or done < begun:
        return max(budget.rounds, begun)
    answer = conclude(contest, slo, gain_error_rate=gain_error_rate(contest, budget))
    return done + 1 if done < MOST_ROUNDS and _is_imprecise(answer, budget.precision) else done


def final_answer(contest: Contest, slo: Slo, budget: Budget, folder: Path) -> Answer:
    """Return the study's answer after its confirmation; `folder` is the study's.

    Raises:
        OSError: a raw file of answers cannot be read.
        StudyError: a raw file of answers is damaged.
    """
    alike = alikeness_of(contest, folder)
    return conclude(contest, slo, alike=alike, gain_error_rate=gain_error_rate(contest, budget))


def complete_rounds(contest: Contest) -> int:
    """Return how many rounds are complete."""
    return min(_launches(contest), default=0)


def gain_error_rate(contest: Contest, budget: Budget) -> float:
    """Return the error rate of this round's intervals: with a precision asked, a share of the whole.

    Round n after those that are always run may spend 6 / (pi n)^2 of it; all of them together spend it.
    """
    if budget.precision is None:
        return ERROR_RATE
    look = max(complete_rounds(contest) - budget.rounds, 0) + 1
    return ERROR_RATE * 6 / (math.pi * look) ** 2


def _launches(contest: Contest) -> list[int]:
    launched = [record.confirms for record in contest.fresh]
    return [launched.count(each.number) for each in contest.standing]


def _is_imprecise(answer: Answer, precision: float) -> bool:
    able = [each for each in answer.finalists if each.decision is not Decision.MISSED]
    if answer.kind is AnswerKind.IMPROVED and answer.confirmed_winner is not None:
        able = [answer.confirmed_winner]
    if not able:
        return False
    best = max(able, key=lambda each: each.gain.low if each.gain else -math.inf)
    return any(gain is not None and _reach(gain) > precision for gain in best.gains)


def _reach(gain: Gain) -> float:
    return max(gain.high - gain.estimate, gain.estimate - gain.low)
