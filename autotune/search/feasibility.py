"""What is known before a launch: requirements, the engine's own rules and facts, and what equal ones showed.

In: a candidate and the trials so far. Out: a reason not to launch it, a reason to doubt it, or an earlier
trial to take over. Pure. Invariants: the same candidate is never launched twice by the search, least of all a
crashed one; a rule that a launch has refuted is not applied any more.
"""

from collections.abc import Sequence

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.dialects import dialect_of
from autotune.failure import FailureKind
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial
from autotune.space import Candidate, FlagValue, SearchSpace

DOUBTED_PER_LAUNCH = 10
"""One in so many doubted candidates is launched all the same, so that a wrong rule does not last."""
_OUT_OF_MEMORY = frozenset(
    {
        FailureKind.OUT_OF_MEMORY_LOADING,
        FailureKind.OUT_OF_MEMORY_CAPTURE,
        FailureKind.OUT_OF_MEMORY_SERVING,
    }
)


def infeasible_reason(space: SearchSpace, candidate: Candidate) -> str | None:
    """Return why the candidate cannot run, None if nothing known speaks against it."""
    try:
        violated = space.violated(candidate)
    except ValueError as error:
        return str(error)
    if violated is not None:
        return f"contradicts 'require: {violated}'"
    return dialect_of(space.engine).invalid_reason(space, candidate)


class MemoryLessons:
    """What the launches of a study say about the memory that other candidates need."""

    def __init__(self, space: SearchSpace, trials: Sequence[NumberedTrial]) -> None:
        self._space = space
        self._use = dialect_of(space.engine).memory_use()
        self._minimums = [
            (
                trial.number,
                self._flags(trial.record.to_candidate()),
                trial.record.failure.minimum_mem_fraction,
            )
            for trial in trials
            if trial.record.failure is not None and trial.record.failure.minimum_mem_fraction is not None
        ]
        survived = [
            self._flags(trial.record.to_candidate())
            for trial in trials
            if trial.record.outcome is Outcome.MEASURED and trial.record.is_launch
        ]
        crashed = (
            (trial.number, self._flags(trial.record.to_candidate()))
            for trial in trials
            if trial.record.failure is not None and trial.record.failure.kind in _OUT_OF_MEMORY
        )
        self._crashed = [
            (number, flags)
            for number, flags in crashed
            if not any(self._is_as_heavy(other, flags) for other in survived)
        ]

    def refusal(self, candidate: Candidate) -> str | None:
        """Return the engine's own word that the candidate's weights leave no room for a KV pool."""
        name, flags = self._use.fraction, self._flags(candidate)
        asked = flags.get(name) if name else None
        if not isinstance(asked, int | float):
            return None
        for number, other, minimum in self._minimums:
            if asked <= minimum and self._is_comparable(flags, other):
                return (
                    f"{name} {asked} is not above {minimum}, the least that trial {number}'s engine asked for"
                )
        return None

    def doubt(self, candidate: Candidate) -> str | None:
        """Return which trial ran out of memory although no flag that takes memory was higher."""
        flags = self._flags(candidate)
        for number, other in self._crashed:
            if self._is_as_heavy(flags, other):
                compared = [name for name in self._use.heavier if name in self._space.tune and name in other]
                weights = ", ".join(f"{name} {flags[name]} against {other[name]}" for name in compared)
                return f"trial {number} ran out of memory with no more of anything: {weights}"
        return None

    def _flags(self, candidate: Candidate) -> dict[str, FlagValue]:
        """Return the candidate's tuned flags, and what the engine is expected to choose for the others."""
        flags = candidate.to_dict()
        return {**dialect_of(self._space.engine).known_defaults(self._space, flags), **flags}

    def _is_comparable(self, one: dict[str, FlagValue], other: dict[str, FlagValue]) -> bool:
        """Whether all flags that may do anything to memory are equal."""
        known = {*self._use.heavier, *self._use.neutral}
        return all(one.get(name) == other.get(name) for name in self._space.tune if name not in known)

    def _is_as_heavy(self, one: dict[str, FlagValue], other: dict[str, FlagValue]) -> bool:
        """Whether one takes at least as much memory as the other, in every dimension."""
        dimensions = [name for name in self._use.heavier if name in self._space.tune]
        return self._is_comparable(one, other) and all(
            _at_least(one.get(name), other.get(name)) for name in dimensions
        )


def _at_least(one: FlagValue | None, other: FlagValue | None) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one >= other
    return one == other


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

    What was measured live is left out: a launch that is paid for is measured, too.
    The size of the KV pool is left out: it varies a little between launches of the same flags. The running
    limit belongs to it, since engines clamp it.
    """
    resolved = _resolved(candidate, effective, space)
    for trial in trials:
        known = trial.record.effective
        measured = trial.record.outcome is Outcome.MEASURED and trial.record.role is not Role.CONFIRMATION
        measured = measured and trial.record.measured_live_on is None
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
