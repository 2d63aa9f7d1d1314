"""One study of the benchmark: a method's launches on a problem, and what came of them.

In: a problem, a method, a seed. Out: the launches (`make`), and a `Study` that judges them (`judge`), so that
launches can be kept and judged anew. Pure. A method that knows what is left to gain ends by itself, as a
study does; what it exports then is what it exports after any later launch.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from autotune.record import Role
from autotune.search.budget import Budget
from autotune.search.confirmation import NumberedTrial
from autotune.search.stopping import too_little
from autotune.space import Candidate
from tests.benchmarks.search.confirmed import export, record_of
from tests.benchmarks.search.methods import Belief, Method
from tests.benchmarks.search.problem import Launch, Problem

BUDGET = Budget(least_gain=0.01)
"""The default of --least-gain."""


@dataclass(frozen=True)
class Made:
    """The launches of one seed, and what they cost this machine: seconds of CPU a launch."""

    launches: tuple[Launch, ...]
    ask_s: float


@dataclass(frozen=True)
class Study:
    """What one seed of one method came to; counts are infinite where it never got there.

    `exported`: the true worth against the optimum after each number of launches that was asked for, and
    `last` after all of them. `launches`: how many it made. `fresh`: how many the confirmation of the last
    took. `misses`, `is_worse` (than the baseline): of the last.
    """

    launches_5: float
    launches_2: float
    minutes_5: float
    minutes_2: float
    exported: tuple[float, ...]
    last: float
    launches: int
    fresh: int
    crashes: int
    misses: bool
    is_worse: bool
    ask_s: float


def make(problem: Problem, method: Method, seed: int, budget: int) -> Made:
    """Launch what a method asks for until its budget is spent, or little is left to gain."""
    began_s = time.process_time()
    asked = islice(method(problem, seed), budget)
    launches = tuple(_until_little_is_left(problem, asked))
    ask_s = (time.process_time() - began_s) / len(launches)
    return Made(launches, ask_s)


def judge(
    problem: Problem, made: Made, seed: int, stops: Sequence[int], belief: Belief | None = None
) -> Study:
    """Return what the launches came to; `belief`: by which the method's finalists are nominated."""
    launches = made.launches
    (launches_5, minutes_5), (launches_2, minutes_2) = (_until(problem, launches, s) for s in (0.95, 0.98))
    held = belief and _remembered(belief)
    exports = [
        export(problem, launches[:stop], seed, held, unspent=max(stop - len(launches), 0)) for stop in stops
    ]
    last = exports[-1]
    return Study(
        launches_5=launches_5,
        launches_2=launches_2,
        minutes_5=minutes_5,
        minutes_2=minutes_2,
        exported=tuple(each.worth / problem.optimum for each in exports),
        last=last.worth / problem.optimum,
        launches=len(launches),
        fresh=last.fresh,
        crashes=sum(each.value is None for each in launches),
        misses=last.launch is not None and last.launch.truth.misses,
        is_worse=last.launch is not None and last.worth < problem.truth(problem.baseline).worth,
        ask_s=made.ask_s,
    )


def _remembered(belief: Belief) -> Belief:
    """Return a belief that is worked out once where several stops see the same launches."""
    known: dict[object, Sequence[float] | None] = {}

    def recall(
        problem: Problem, made: Sequence[Launch], candidates: Sequence[Candidate]
    ) -> Sequence[float] | None:
        key = (tuple((each.candidate, each.value) for each in made), tuple(candidates))
        if key not in known:
            known[key] = belief(problem, made, candidates)
        return known[key]

    return recall


def _until_little_is_left(problem: Problem, asked: Iterable[Launch]) -> Iterator[Launch]:
    trials: list[NumberedTrial] = []
    for made in asked:
        if too_little(made.gain, BUDGET, trials) is not None:
            return
        role = Role.SEARCH if trials else Role.BASELINE
        trials.append(NumberedTrial(len(trials), record_of(problem, made, role), promised=made.gain))
        yield made


def _until(problem: Problem, launches: Sequence[Launch], share: float) -> tuple[float, float]:
    """Return how many launches and minutes it took to launch something worth this share of the optimum."""
    minutes = np.cumsum([made.truth.launch_s / 60 for made in launches])
    hits = [i for i, made in enumerate(launches) if made.truth.worth >= share * problem.optimum]
    return (hits[0] + 1.0, float(minutes[hits[0]])) if hits else (np.inf, np.inf)
