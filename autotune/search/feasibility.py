"""What is known before a launch: requirements, the engine's own rules, and what an equal candidate showed.

In: a candidate and the trials so far. Out: a reason not to launch it, or an earlier trial to take over.
Pure. Invariant: the same candidate is never launched twice by the search, least of all a crashed one.
"""

from collections.abc import Sequence

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.dialects import dialect_of
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial
from autotune.space import Candidate, SearchSpace


def infeasible_reason(space: SearchSpace, candidate: Candidate) -> str | None:
    """Return why the candidate cannot run, None if nothing known speaks against it."""
    try:
        violated = space.violated(candidate)
    except ValueError as error:
        return str(error)
    if violated is not None:
        return f"contradicts 'require: {violated}'"
    return dialect_of(space.engine).invalid_reason(space, candidate)


def same_candidate(candidate: Candidate, trials: Sequence[NumberedTrial]) -> tuple[int, TrialRecord] | None:
    """Return the earlier trial that launched exactly these flags and came to an end."""
    for trial in trials:
        if _is_settled(trial.record) and trial.record.to_candidate() == candidate:
            return trial.number, trial.record
    return None


def same_effect(
    candidate: Candidate, effective: EffectiveFlags, space: SearchSpace, trials: Sequence[NumberedTrial]
) -> tuple[int, TrialRecord] | None:
    """Return the earlier measured trial whose tuned flags resolved to the same values as the candidate's.

    Where the engine does not tell a flag's value, the value asked for stands in.

    The size of the KV pool is left out: it varies a little between launches of the same flags. The running
    limit belongs to it, since engines clamp it.
    """
    resolved = _resolved(candidate, effective, space)
    for trial in trials:
        known = trial.record.effective
        measured = trial.record.outcome is Outcome.MEASURED and trial.record.role is not Role.CONFIRMATION
        if (
            measured
            and known is not None
            and _resolved(trial.record.to_candidate(), known, space) == resolved
        ):
            return trial.number, trial.record
    return None


def _is_settled(record: TrialRecord) -> bool:
    ended = record.outcome in (Outcome.MEASURED, Outcome.FAILED)
    was_launched = record.same_as is None or bool(record.durations_s)
    return ended and record.role is not Role.CONFIRMATION and was_launched


def _resolved(candidate: Candidate, effective: EffectiveFlags, space: SearchSpace) -> dict[str, object]:
    told = {name: value for name, value in effective.flags.items() if value is not None}
    known = {**candidate.to_dict(), **told}
    flags: dict[str, object] = {name: known.get(name) for name in space.tune}
    if "max-running-requests" in flags and effective.running_limit is not None:
        flags["max-running-requests"] = effective.running_limit
    return flags
