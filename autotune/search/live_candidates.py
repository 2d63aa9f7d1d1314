"""Which candidates can be measured on the engine of another one: they differ in a flag that it changes live.

In: the candidate of a launch, and what is known. Out: further candidates for its engine, spread between the
least value and the one launched, or launches whose engines it could be measured on. Pure.
Invariant: such a candidate is of the search space, worth a trial, and differs in nothing else, nor would the
space's conditions have it differ.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice, pairwise
from typing import TypeAlias

from autotune.engine.dialect import EffectiveFlags, LiveFlag
from autotune.engine.dialects import dialect_of
from autotune.order import LiveValue
from autotune.search.confirmation import NumberedTrial, best_of
from autotune.slo import Slo
from autotune.space import Candidate, Choices, FlagValue, IntRange, SearchSpace, Tunable

_CANDIDATES = 6
"""How many are offered: of those that the load can tell apart, a trial measures fewer."""
_LOOKED_AT = 24
"""How many are looked at for those, where some are not worth a trial."""
_LAUNCHES = 3
"""How many higher values of a flag are offered for a launch in a candidate's place."""

IsWorth: TypeAlias = Callable[[Candidate], bool]


def candidates_beside(
    space: SearchSpace,
    slo: Slo,
    host: Candidate,
    *,
    trials: Sequence[NumberedTrial],
    is_worth: IsWorth,
) -> tuple[Candidate, ...]:
    """Return candidates that the host's engine could be measured for as well.

    `trials`: those that are settled. Each value lies in the middle, by ratio, of the widest gap between the
    least one, those that are known, and the one launched; or the most requests that the load has at once,
    above which a limit is never reached. The least one is above any that was too low elsewhere.
    """
    found: list[Candidate] = []
    for name, flag, launched in _live_flags(space, host):
        highest = min(launched, _most_at_once(slo) or launched)
        lowest = _too_low(space, slo, name, trials)
        values = [each for each in _values(space.tune[name], flag, highest) if each > lowest]
        known = (trial.record.to_candidate() for trial in trials)
        beside = [each.to_dict().get(name) for each in known if _agree(each, host, name)]
        spread = _spread(values, [each for each in values if each in beside], highest)
        found += [Candidate.of({**host.to_dict(), name: value}) for value in islice(spread, _LOOKED_AT)]
    return tuple(islice(filter(is_worth, found), _CANDIDATES))


def launches_for(
    space: SearchSpace, slo: Slo, candidate: Candidate, *, is_worth: IsWorth
) -> tuple[Candidate, ...]:
    """Return what could be launched in a candidate's place, which could be measured on its engine as well.

    Those are the highest value that the load can tell from lower ones, and some between.
    """
    most = _most_at_once(slo) or math.inf
    found: list[Candidate] = []
    for name, flag, own in _live_flags(space, candidate):
        above = [each for each in _values(space.tune[name], flag, math.inf) if each > own]
        if above and own < most:
            highest = above[min(bisect_left(above, most), len(above) - 1)]
            between = _spread([own, *(each for each in above if each < highest)], (own,), highest)
            values = (highest, *islice(between, _LAUNCHES - 1))
            found += [Candidate.of({**candidate.to_dict(), name: value}) for value in values]
    return tuple(filter(is_worth, found))


def live_value(candidate: Candidate, host: Candidate) -> LiveValue:
    """Return what makes a candidate of the one that its engine was launched for."""
    launched = host.to_dict()
    changed = [(name, value) for name, value in candidate.to_dict().items() if launched.get(name) != value]
    ((name, value),) = changed
    assert isinstance(value, int)  # noqa: S101 - no other is changed live
    return LiveValue(name, value)


def expected_flags(space: SearchSpace, candidate: Candidate) -> dict[str, FlagValue]:
    """Return a candidate's flags, with the engine's own choices for those that it leaves out."""
    flags = candidate.to_dict()
    return {**dialect_of(space.engine).known_defaults(space, flags), **flags}


def _live_flags(space: SearchSpace, candidate: Candidate) -> Iterator[tuple[str, LiveFlag, int]]:
    """Yield the flags of a candidate's engine that can be changed live, and what it is launched with."""
    told = {**space.flags, **expected_flags(space, candidate)}
    engine = EffectiveFlags(flags=told, running_limit=1)
    for name, flag in dialect_of(space.engine).live_flags(engine).items():
        launched = told.get(name)
        if isinstance(launched, int) and _is_free(space, name):
            yield name, flag, launched


def _is_free(space: SearchSpace, name: str) -> bool:
    """Whether a flag is tuned, and changes nothing about which others take part."""
    field = name.replace("-", "_")
    conditions = [each for each in space.conditions.values() if each is not None]
    return (
        name in space.tune
        and space.conditions[name] is None
        and all(name not in each.names and field not in each.names for each in conditions)
    )


def _agree(candidate: Candidate, host: Candidate, name: str) -> bool:
    """Whether two candidates are equal but for one flag."""
    one, other = candidate.to_dict(), host.to_dict()
    return {**one, name: None} == {**other, name: None}


def _most_at_once(slo: Slo) -> int | None:
    """Return the most requests that a closed loop has under way, None if nothing bounds them."""
    most = [point.concurrency for point in slo.load]
    return None if None in most else max(each for each in most if each is not None)


def _too_low(space: SearchSpace, slo: Slo, name: str, trials: Sequence[NumberedTrial]) -> float:
    """Return the highest value below which it was seen to get worse, other flags being equal; 0 if none was.

    What is best beside some flags is only near to what is best beside others, but a limit that is too low for
    one is hardly right for the next. With several objectives nothing is too low.
    """
    if len(slo.goals) > 1:
        return 0.0
    alike: dict[Candidate, list[tuple[float, NumberedTrial]]] = {}
    for trial in trials:
        flags = expected_flags(space, trial.record.to_candidate())
        value, own = flags.get(name), trial.record.candidate
        if isinstance(value, int | float):
            rest = Candidate.of({flag: own[flag] for flag in own if flag != name})
            alike.setdefault(rest, []).append((value, trial))
    lows = [0.0]
    for group in alike.values():
        best = best_of([trial for _, trial in group], slo)
        at = next((value for value, trial in group if trial is best), 0.0)
        lows += [value for value, _ in group if value < at]
    return max(lows)


def _values(tunable: Tunable, flag: LiveFlag, highest: float) -> list[int]:
    """Return what the space has between the least value that the engine takes and, left out, the highest."""
    match tunable:
        case IntRange(bounds=(low, high), multiple_of=step):
            found = [*range(tunable.snap(low), int(min(high + 1, highest)), step)]
        case Choices(choices=choices):
            found = sorted(each for each in choices if isinstance(each, int) and not isinstance(each, bool))
        case _:
            found = []
    return [each for each in found if flag.minimum <= each < highest]


def _spread(values: Sequence[int], known: Collection[int], highest: int) -> Iterator[int]:
    """Yield the value in the middle of the widest gap, then so with that known, and the least one last."""
    ends = {*values[:1], *known, highest}
    while (value := _middle_of_widest(values, sorted(ends))) is not None:
        ends.add(value)
        yield value
    yield from (each for each in values[:1] if each not in known)


def _middle_of_widest(values: Sequence[int], ends: Sequence[int]) -> int | None:
    """Return the value nearest, by ratio, to the middle of the widest gap that holds one."""
    for low, high in sorted(pairwise(ends), key=lambda gap: gap[0] / gap[1]):
        inside = values[bisect_right(values, low) : bisect_left(values, high)]
        if inside:
            middle = math.sqrt(low * high)
            return min(inside, key=lambda each: abs(math.log(each / middle)))
    return None
