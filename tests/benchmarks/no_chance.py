"""What giving up loads that cannot win saves: python -m tests.benchmarks.no_chance [CANDIDATES]

On the distorted simulators of `tests.benchmarks.search`, with the noise of their profiles, random candidates
are loaded one after the other, six waves each; the twin believes in the undistorted profile and learns
nothing. Prints how many loads are given up, how many of those wrongly (the whole load would have been worth
more than the best so far, less its noise), and what that saves of the loads' seconds. Every order of the
candidates is another search; no ceiling stops anything. Virtual time.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import optuna

from autotune.engine.dialects import dialect_of
from autotune.load.workload import offer
from autotune.metrics import measure
from autotune.request import LoadResult, due_order
from autotune.search.sampler import SamplerKind, make_sampler
from autotune.search.twin import Twin
from autotune.simulator.assembly import open_scheduler
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.startup import Ready, plan_start
from autotune.simulator.virtual import VirtualEndpoint
from autotune.slo import Course, EarlyJudge, Slo, Stop
from autotune.space import Candidate, SearchSpace
from tests.benchmarks.search.simulated import SCENARIOS, Scenario, distorted, space_of

ORDERS = 20
WAVES = 6


@dataclass(frozen=True)
class Loaded:
    """A candidate's whole load, what it is worth, and the twin's course of it."""

    result: LoadResult
    worth: float
    course: Course

    @property
    def ended_s(self) -> float:
        return max(record.ended_s for record in self.result.records)


def main(candidates: str = "40") -> None:
    """Print one line for every scenario."""
    print("scenario | loads, in all orders | given up | wrongly | seconds saved")
    for scenario in SCENARIOS:
        slo = _slo(scenario)
        loads = list(_loads(scenario, slo, int(candidates)))
        stops = wrong = 0
        saved_s = whole_s = 0.0
        for order in range(ORDERS):
            best = -inf
            for place in np.random.default_rng(order).permutation(len(loads)):
                loaded = loads[place]
                whole_s += loaded.ended_s
                stop = _given_up(slo, loaded, best)
                if stop is not None:
                    stops += 1
                    wrong += not replace(loaded.course, to_beat=best).is_too_little(loaded.worth)
                    first = sorted(loaded.result.records, key=due_order)[: stop.requests]
                    saved_s += loaded.ended_s - max(record.ended_s for record in first)
                best = max(best, loaded.worth)
        print(
            f"{scenario.name} | {ORDERS * len(loads)} | {stops} | {wrong} | {100 * saved_s / whole_s:.0f} %",
            flush=True,
        )


def _slo(scenario: Scenario) -> Slo:
    load = [{**point, "requests": WAVES * point["concurrency"]} for point in scenario.slo["load"]]
    return Slo.model_validate({**scenario.slo, "load": load, "ceilings": []})


def _loads(scenario: Scenario, slo: Slo, count: int) -> Iterator[Loaded]:
    believed = read_profile(scenario.profile)
    noise = {"noise_ratio": believed.step.noise_ratio, "launch_noise_ratio": believed.step.launch_noise_ratio}
    actual = distorted(believed, scenario)
    actual = actual.model_copy(update={"step": actual.step.model_copy(update=noise)})
    space = space_of(scenario)
    twin, study = Twin(believed, space, slo), optuna.create_study()
    sampler = make_sampler(SamplerKind.RANDOM, space, seed=0)
    for seed in range(count):
        candidate = sampler.draw(study)
        result, courses = _loaded(actual, space, slo, candidate, seed), twin.courses(candidate, 0.0)
        if result is not None and courses:
            (course,) = courses.values()
            worth = measure(result.records, concurrency=slo.load[0].concurrency)
            yield Loaded(result, worth.rate(slo.goals[0].quantity.metric), course)


def _loaded(
    profile: Profile, space: SearchSpace, slo: Slo, candidate: Candidate, seed: int
) -> LoadResult | None:
    """Return the load of one launch, None if it cannot serve."""
    argv = dialect_of(space.engine).argv(space, candidate, rank=0, port=30000, rendezvous_port=20000)
    ready = plan_start(profile, argv, seed=seed).outcome
    if not isinstance(ready, Ready):
        return None
    scheduler = open_scheduler(profile, ready, seed=seed)
    endpoint = VirtualEndpoint(scheduler, request_s=profile.step.request_s)
    result = endpoint.run(offer(slo.workload, slo.load[0], salt=seed + 1))
    return None if scheduler.is_dead else result


def _given_up(slo: Slo, loaded: Loaded, best: float) -> Stop | None:
    """Return the stop of a load whose best rival is worth this."""
    course, records = replace(loaded.course, to_beat=best), sorted(loaded.result.records, key=due_order)
    judge = EarlyJudge(slo, slo.load[0], planned=len(records), course=course)
    while (count := judge.next_look) is not None:
        judge.is_decided(records[:count])
    return judge.stop


if __name__ == "__main__":
    main(*sys.argv[1:])
