"""How many rounds of fresh launches a confirmation takes: as many as asked, then until its answer is known.

In: a `Contest`, what the user asked for, what the search left of it. Out: a number of rounds, and the answer
that they give. Reads the raw files of answers in `final_answer` only. Invariant: looking at a gain's interval
to decide whether to go on spends error rate, so that all looks together are wrong with at most the rate that
is stated. The verdict on a ceiling is not corrected: it pools all launches, at that rate at every look.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from pathlib import Path

from autotune.interval import student_quantile
from autotune.search.alike import alikeness_of
from autotune.search.answer import Answer, AnswerKind, Confirmed, conclude
from autotune.search.budget import Budget
from autotune.search.confirmation import Contest
from autotune.search.gains import Gain
from autotune.slo import ERROR_RATE, Decision, Slo

MOST_ROUNDS = 12
"""Without a limit on time somebody must end it: the interval then hardly narrows from round to round."""


def rounds_due(contest: Contest, slo: Slo, budget: Budget, *, unspent: int | None = 0) -> int:
    """Return how many rounds the confirmation has, by what is known so far.

    With a precision it is one more while the gain is known less well: the named winner's, or the best
    finalist's while nobody wins, in every objective. Without one it is as many as asked; only while the
    baseline is kept for want of proof, or nobody is known to meet the SLO or not, are they doubled out of the
    launches that the search left `unspent` (None: any number), if those can bring the proof.

    The answer is looked at between rounds only. Nothing is gained by more of them once no finalist can meet
    the SLO.
    """
    done, begun = complete_rounds(contest), max(_launches(contest), default=0)
    if not contest.finalists or contest.baseline is None:
        return budget.rounds
    looks = _looks(contest, budget, unspent)
    due = looks[bisect_right(looks, done) :]
    is_look = done in looks and begun <= done
    if not due or (is_look and not _is_open(contest, slo, budget, unspent)):
        return done
    return due[0] if budget.precision is None else min(max(due[0], begun), looks[-1])


def final_answer(
    contest: Contest, slo: Slo, budget: Budget, folder: Path, *, unspent: int | None = 0
) -> Answer:
    """Return the study's answer after its confirmation; `folder` is the study's, `unspent` as above.

    Raises:
        OSError: a raw file of answers cannot be read.
        StudyError: a raw file of answers is damaged.
    """
    alike = alikeness_of(contest, folder)
    rate = gain_error_rate(contest, budget, unspent=unspent)
    return conclude(contest, slo, alike=alike, gain_error_rate=rate)


def complete_rounds(contest: Contest) -> int:
    """Return how many rounds are complete."""
    return min(_launches(contest), default=0)


def gain_error_rate(contest: Contest, budget: Budget, *, unspent: int | None = 0) -> float:
    """Return the error rate of this look's intervals, a share of the whole; `unspent` as above.

    With a precision look n may spend 6 / (pi n)^2 of it, else 1 / 2^n, and the last one what is left: all of
    them together spend it.
    """
    return _error_rate_at(complete_rounds(contest), contest, budget, unspent)


def _error_rate_at(rounds: int, contest: Contest, budget: Budget, unspent: int | None) -> float:
    looks = _looks(contest, budget, unspent)
    look = bisect_left(looks, rounds) + 1
    if budget.precision is not None:
        return ERROR_RATE * 6 / (math.pi * look) ** 2
    return ERROR_RATE * 0.5 ** min(look, len(looks) - 1)


def _looks(contest: Contest, budget: Budget, unspent: int | None) -> list[int]:
    """Return after how many rounds the answer is looked at, in ascending order."""
    if budget.precision is not None:
        return [*range(budget.rounds, max(MOST_ROUNDS, complete_rounds(contest)) + 1)]
    looks, most = [budget.rounds], _most_rounds(contest, budget, unspent)
    while looks[-1] < most:
        doubled = 2 * looks[-1]
        looks.append(most if most < 1.5 * doubled else doubled)
    return looks


def _most_rounds(contest: Contest, budget: Budget, unspent: int | None) -> int:
    """Return how many rounds there may be if those beyond the ones asked for take what is unspent."""
    if unspent is None:
        return MOST_ROUNDS
    asked = budget.rounds
    done = max(complete_rounds(contest), asked)
    spent = sum(max(count - asked, 0) for count in Counter(each.confirms for each in contest.fresh).values())
    begun = sum(max(count - done, 0) for count in _launches(contest))
    more = max(unspent - spent + begun, 0) // max(len(contest.standing), 1)
    return min(done + more, max(MOST_ROUNDS, asked))


def _launches(contest: Contest) -> list[int]:
    launched = [record.confirms for record in contest.fresh]
    return [launched.count(each.number) for each in contest.standing]


def _is_open(contest: Contest, slo: Slo, budget: Budget, unspent: int | None) -> bool:
    """Whether further rounds may tell more that matters."""
    answer = conclude(contest, slo, gain_error_rate=gain_error_rate(contest, budget, unspent=unspent))
    able = [each for each in answer.finalists if each.decision is not Decision.MISSED]
    if budget.precision is not None:
        return _is_imprecise(answer, able, budget.precision)
    if answer.kind is not AnswerKind.KEEP_BASELINE:
        return answer.kind is AnswerKind.UNDECIDED and bool(able)
    narrowed = _narrowed(contest, budget, unspent)
    return any(gain is not None and _is_provable(gain, narrowed) for each in able for gain in each.gains)


def _is_imprecise(answer: Answer, able: list[Confirmed], precision: float) -> bool:
    if answer.kind is AnswerKind.IMPROVED and answer.confirmed_winner is not None:
        able = [answer.confirmed_winner]
    if not able:
        return False
    best = max(able, key=lambda each: each.gain.low if each.gain else -math.inf)
    return any(gain is not None and _reach(gain) > precision for gain in best.gains)


def _narrowed(contest: Contest, budget: Budget, unspent: int | None) -> float:
    """Return how much narrower the gains' intervals would be at the last look, with the noise seen so far."""
    done, last = complete_rounds(contest), _looks(contest, budget, unspent)[-1]

    def reach(rounds: int) -> float:
        sides = 2 * len(contest.finalists)
        rate = _error_rate_at(rounds, contest, budget, unspent)
        freedom = len(contest.contenders) * (rounds - 1)
        return student_quantile(1 - rate / sides, freedom) / math.sqrt(rounds)

    return reach(last) / reach(done)


def _is_provable(gain: Gain, narrowed: float) -> bool:
    """Whether it would be a gain for certain, were it as large as it seems and known so much better."""
    estimate, low = math.log1p(gain.estimate), math.log1p(gain.low)
    return estimate > (estimate - low) * narrowed


def _reach(gain: Gain) -> float:
    return max(gain.high - gain.estimate, gain.estimate - gain.low)
