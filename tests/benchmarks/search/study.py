"""One study of the benchmark: a method's launches on a problem, and what came of them.

In: a problem, a method, a seed. Out: a `Study`. Pure. What is exported is confirmed as a study confirms: the
best three that look feasible are launched twice more, and the best mean whose launches all met the ceilings
wins.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from autotune.search.stopping import FEWEST_MEASURED
from tests.benchmarks.search.methods import Method
from tests.benchmarks.search.problem import Launch, Problem, launch

LEAST_GAIN = 0.01
"""The default of --least-gain."""
FINALISTS, ROUNDS = 3, 2


@dataclass(frozen=True)
class Stop:
    """Where the search would have ended by itself, the whole budget if nowhere.

    `worth`: the true worth of what is exported then, against the optimum.
    """

    launches: int
    worth: float
    crashes: int


@dataclass(frozen=True)
class Study:
    """What one seed of one method came to; counts are infinite where it never got there.

    `exported`: the true worth against the optimum after each number of launches that was asked for.
    `stopped`: None for methods that do not know what is left to gain.
    """

    launches_5: float
    launches_2: float
    minutes_5: float
    minutes_2: float
    exported: tuple[float, ...]
    stopped: Stop | None
    crashes: int
    misses: bool
    is_worse: bool
    ask_s: float


def run(problem: Problem, method: Method, seed: int, budget: int, stops: Sequence[int]) -> Study:
    """Return what a method came to with a budget of launches."""
    began_s = time.process_time()
    launches = list(islice(method(problem, seed), budget))
    ask_s = (time.process_time() - began_s) / len(launches)
    (launches_5, minutes_5), (launches_2, minutes_2) = (_until(problem, launches, s) for s in (0.95, 0.98))
    last = export(problem, launches, seed)
    return Study(
        launches_5=launches_5,
        launches_2=launches_2,
        minutes_5=minutes_5,
        minutes_2=minutes_2,
        exported=tuple(_exported(problem, launches[:stop], seed) for stop in stops),
        stopped=_stopped(problem, launches, seed),
        crashes=_crashes(launches),
        misses=last is not None and last.truth.misses,
        is_worse=last is not None and last.truth.worth < problem.truth(problem.baseline).worth,
        ask_s=ask_s,
    )


def export(problem: Problem, launches: Sequence[Launch], seed: int) -> Launch | None:
    """Return the confirmed best of the launches, None if no finalist holds."""
    generator = np.random.default_rng((seed, len(launches), 5))
    seen = {made.candidate: made for made in launches if made.looks_feasible}
    best = sorted(seen.values(), key=lambda made: -(made.value or 0.0))[:FINALISTS]
    confirmed = []
    for made in best:
        again = [launch(problem, made.candidate, generator) for _ in range(ROUNDS)]
        if all(each.looks_feasible for each in again):
            confirmed.append((np.mean([each.value or 0.0 for each in again]), made))
    return max(confirmed, key=lambda each: each[0])[1] if confirmed else None


def _crashes(launches: Sequence[Launch]) -> int:
    return sum(made.value is None for made in launches)


def _until(problem: Problem, launches: Sequence[Launch], share: float) -> tuple[float, float]:
    """Return how many launches and minutes it took to launch something worth this share of the optimum."""
    minutes = np.cumsum([made.truth.launch_s / 60 for made in launches])
    hits = [i for i, made in enumerate(launches) if made.truth.worth >= share * problem.optimum]
    return (hits[0] + 1.0, float(minutes[hits[0]])) if hits else (np.inf, np.inf)


def _exported(problem: Problem, launches: Sequence[Launch], seed: int) -> float:
    """Return the true worth of what is exported, as a share of the optimum; 0 if nothing is."""
    chosen = export(problem, launches, seed)
    return 0.0 if chosen is None else chosen.truth.worth / problem.optimum


def _stopped(problem: Problem, launches: Sequence[Launch], seed: int) -> Stop | None:
    gains = [made.gain for made in launches]
    if all(gain is None for gain in gains):
        return None
    measured = np.cumsum([made.value is not None for made in launches]).tolist()
    too_little = (i for i, gain in enumerate(gains) if gain is not None and gain < LEAST_GAIN)
    stop = next((i for i in too_little if i and measured[i - 1] >= FEWEST_MEASURED), len(launches))
    done = launches[:stop]
    return Stop(stop, _exported(problem, done, seed), _crashes(done))
