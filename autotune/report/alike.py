"""Whether a candidate still answers as the baseline does, in words. Pure.

In: what the fresh launches of a candidate answered (`search.alike`). Out: sentences. Invariant: what was not
compared is called unknown.
"""

from collections.abc import Iterator

from autotune.report.language import say, word
from autotune.report.units import gain_text, percent, significant
from autotune.search.alike import Alikeness, AnswerDifference, AnswersVerdict
from autotune.search.answer import Answer, Confirmed
from autotune.slo import Decision


def alike_lines(answer: Answer) -> Iterator[str]:
    """Yield whether the winner answers as the baseline does, and who gained more and does not."""
    winner = answer.confirmed_winner
    text = alike_text(winner) if winner else None
    if text is not None:
        yield text
    if winner is not None and winner.answers_differ:
        yield say("Look at what it answers first: autotune export takes it only with --accept-answers.")
    for rival in answer.finalists:
        is_ahead = rival.gain and winner and winner.gain and rival.gain.low > winner.gain.low
        if is_ahead and rival.gain and rival.answers_differ and rival.decision is Decision.MET:
            yield say(
                "Trial {number} gained {gain}, but its answers differ: {differs}.",
                number=rival.trial,
                gain=gain_text(rival.gain),
                differs=difference_text(rival),
            )


def alike_text(confirmed: Confirmed) -> str | None:
    """Return what is to be said of a finalist's answers; None for the baseline or an older study's."""
    alike = confirmed.alike
    match alike.verdict if alike else None:
        case AnswersVerdict.ALIKE:
            return say("It answers as the baseline does: {what}.", what=_numbers(alike))
        case AnswersVerdict.DIFFERENT:
            return say("ITS ANSWERS DIFFER from the baseline's: {what}.", what=_numbers(alike))
        case AnswersVerdict.UNKNOWN:
            reason = alike.reason if alike else None
            return say("Whether it answers as the baseline does is not known: {why}.", why=reason)
        case None:
            return None


def difference_text(confirmed: Confirmed) -> str | None:
    """Return how its answers differ from the baseline's, None if that is not certain."""
    return _numbers(confirmed.alike) if confirmed.answers_differ else None


def _numbers(alike: Alikeness | None) -> str:
    if alike is None or alike.cross is None or alike.own is None:
        return say("nothing was compared")
    return say(
        "{prompts} fixed prompts, greedily: {equal} of the {unit} are equal before the first that differs"
        "{where}{drift}; between launches of the baseline {own}{own_drift}",
        prompts=alike.prompts,
        equal=percent(alike.cross.equal_ratio),
        unit=word(str(alike.unit)),
        where=_where(alike.cross),
        drift=_drift(alike.cross),
        own=percent(alike.own.equal_ratio),
        own_drift=_drift(alike.own),
    )


def _where(difference: AnswerDifference) -> str:
    first = difference.first_divergence
    return "" if first is None else say(" (position {first} at the earliest)", first=first)


def _drift(difference: AnswerDifference) -> str:
    drift = difference.drift_nats
    if drift is None:
        return ""
    return say(", log-probabilities drift by {drift} nats a token", drift=significant(drift))
