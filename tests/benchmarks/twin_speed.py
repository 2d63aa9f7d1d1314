"""What the twin costs a candidate, beside its limit of 20 ms: python -m tests.benchmarks.twin_speed

CPU milliseconds of this process, since wall time on a shared machine says little: a prediction of a candidate
that was not seen before, at two load points of 300 requests each (the scenario's concurrency and half of it).
Candidates are spread over the scenario's space; those that cannot start cost nothing and are left out.

--both then builds the simulator with mypyc and measures that too; --thousand draws 1,000 candidates a
scenario and adds up CPU seconds, beside their limit of 20.

Seen on a busy machine of two cores, in ms and as a share of the limit in brackets (plain and compiled in the
same minutes, the better of two runs). The last column is --thousand, compiled, in seconds and once; all of
its candidates can start in the twin, which lets no reserve of memory stop one:

                       plain        compiled by mypyc    1,000 compiled
    chunk/TTFT       16 (0.8)            7 (0.4)            8 (0.4)
    KV-bound         40 (2.0)           14 (0.7)           15 (0.7)
    OOM edge         34 (1.7)           11 (0.6)           12 (0.6)
    shared prefix    39 (2.0)           15 (0.7)           15 (0.8)
    DP attention     25 (1.3)           10 (0.5)           12 (0.6)
    all              31 (1.5)           11 (0.6)

CPU time depends on the neighbours too: with nine processes on the two cores KV-bound took 22 s, and
chunk/TTFT 13 instead of 8.

Decode passes between events are one move, and so are the chunks of one long prompt. What is left is 250 to
1,600 turns a candidate at 20 microseconds of interpreted Python each, in no one place, and 3 to 5 ms outside
of them (records, flags, statistics). Schedules are not shared between candidates: of some 500 that a study
simulates in eight launches, at most one in seven would find its own among those before, even if the pool, the
conservativeness and whatever of the running limit exceeds the concurrency never mattered.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from autotune.cli import COLLECT_AFTER_ALLOCATIONS
from autotune.search.gp.encoding import Encoding
from autotune.search.sampler import SpaceDomain
from autotune.search.twin import Twin
from autotune.simulator import scheduler
from autotune.simulator.profile import read_profile
from autotune.slo import Slo
from tests.benchmarks.search.problem import Problem
from tests.benchmarks.search.simulated import SCENARIOS, Scenario, problem_of
from tests.support.compiled import compiled_copy, run

LIMIT_MS = 20.0
CANDIDATES = 60
REQUESTS = 300
MANY = 1000
LIMIT_S = 20.0


def main() -> None:
    arguments = parsed()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS)
    print("scheduler:", "plain" if scheduler.__file__.endswith(".py") else "compiled")
    (thousands if arguments.thousand else candidates)()
    if arguments.both:
        with tempfile.TemporaryDirectory() as name:
            compiled_copy(Path(name), optimised=True)
            options = ["--thousand"] if arguments.thousand else []
            print(run(Path(name), "-m", "tests.benchmarks.twin_speed", *options), end="")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.twin_speed")
    parser.add_argument("--both", action="store_true", help="then the same compiled by mypyc (a C compiler)")
    parser.add_argument("--thousand", action="store_true", help="1,000 candidates a scenario, CPU seconds")
    return parser.parse_args()


def candidates() -> None:
    print(f"{'scenario':16}{'candidates':>11}{'mean ms':>9}{'median':>8}{'worst':>8}{'limit':>7}{'ratio':>7}")
    everything: list[float] = []
    for scenario in SCENARIOS:
        costs_ms = [cost_ms for cost_ms, starts in predicted(two_points(scenario), CANDIDATES) if starts]
        everything += costs_ms
        show(scenario.name, costs_ms)
    show("all", everything)


def thousands() -> None:
    print(f"{'scenario':16}{'candidates':>11}{'start':>7}{'CPU s':>8}{'limit':>7}{'ratio':>7}")
    for scenario in SCENARIOS:
        told = list(predicted(two_points(scenario), MANY))
        spent_s = sum(cost_ms for cost_ms, _ in told) / 1000
        can_start = sum(starts for _, starts in told)
        print(
            f"{scenario.name:16}{len(told):>11}{can_start:>7}{spent_s:>8.1f}"
            f"{LIMIT_S:>7.0f}{spent_s / LIMIT_S:>7.2f}"
        )


def show(name: str, spent_ms: list[float]) -> None:
    mean = sum(spent_ms) / len(spent_ms)
    print(
        f"{name:16}{len(spent_ms):>11}{mean:>9.1f}{median(spent_ms):>8.1f}{max(spent_ms):>8.1f}"
        f"{LIMIT_MS:>7.0f}{mean / LIMIT_MS:>7.2f}"
    )


def two_points(scenario: Scenario) -> Scenario:
    """Return the scenario with a second load point at half its concurrency, both of 300 requests."""
    concurrency = scenario.slo["load"][0]["concurrency"]
    load = [{"concurrency": each, "requests": REQUESTS} for each in (concurrency, concurrency // 2)]
    return replace(scenario, slo={**scenario.slo, "load": load})


def predicted(scenario: Scenario, count: int) -> Iterator[tuple[float, bool]]:
    """Yield what each candidate costs in ms, and whether it can start."""
    problem = problem_of(scenario)
    twin = Twin(read_profile(scenario.profile), problem.space, Slo.model_validate(scenario.slo))
    for params in spread(problem, count):
        began_s = time.process_time()
        prediction = twin.predict(params)
        yield 1000 * (time.process_time() - began_s), prediction.values is not None


def spread(problem: Problem, count: int) -> list[dict[str, object]]:
    """Return candidates all over the space, the same every time."""
    domain = SpaceDomain(problem.space, lambda _: True)
    encoding = Encoding(domain.distributions)
    rows = encoding.spread(count, np.random.default_rng(3))
    return [dict(domain.complete(values)) for values in encoding.values(rows)]


if __name__ == "__main__":
    main()
