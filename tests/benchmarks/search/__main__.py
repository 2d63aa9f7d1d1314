"""How many launches each method needs: python -m tests.benchmarks.search [options] [SCENARIO ...]

--seeds N, --launches N, --report, --methods METHOD ... -- (which methods; the others are left out), --keep
FOLDER (the launches of each study are kept there and not made again: several processes may share one table).

Everything is in simulated time: start-up, load and crashes are charged what the profile says. Launches and
GPU-minutes to 5 % and 2 %: until a candidate whose true worth is that near the optimum was launched; the
median over seeds ("never": fewer than half got there) and the share that did. @n: the true worth, against the
optimum, of what is exported after n launches (median/10th percentile; `confirmed`). made: launches that were
made (median); methods that know what is left to gain end by themselves, as `tune` does at its default of 1 %,
and leave the rest to the confirmation.
fresh: launches of the confirmation. loss: what the last export lacks to the optimum (median/90th percentile).
nothing: share of studies that export nothing. crashes: median. misses, worse: share of studies whose last
export misses its SLO, or is worse than the baseline. s/launch: CPU, the simulated launch included.
Development seeds begin at 0, reporting seeds (--report) at 1000: nothing is tuned on the latter. `seen.md`
has what was seen.
"""

import argparse
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks.environments import UnavailableError
from tests.benchmarks.search import peers, simulated, synthetic
from tests.benchmarks.search.methods import Method, beliefs, methods
from tests.benchmarks.search.problem import Problem
from tests.benchmarks.search.study import Made, Study, judge, make
from tests.benchmarks.search.table import header, reached, row

BUDGET = 40
STOPS = (10, 20, 30, 40)


def main() -> None:
    arguments = _parsed()
    chosen = _chosen(arguments.methods)
    for problem in (synthetic.problem(), *map(simulated.problem_of, simulated.SCENARIOS)):
        if not arguments.names or problem.name in arguments.names:
            _compare(problem, chosen, arguments)


def _chosen(names: list[str]) -> dict[str, Method]:
    """Return the methods that were asked for, all without names."""
    known = methods()
    if not names or set(names) & set(peers.NAMES):
        try:
            known |= peers.peers()
        except UnavailableError as error:
            print(f"{' and '.join(peers.NAMES)} are left out: {error}")
    return {name: method for name, method in known.items() if not names or name in names}


def _compare(problem: Problem, chosen: dict[str, Method], arguments: argparse.Namespace) -> None:
    first = 1000 if arguments.report else 0
    seeds = range(first, first + arguments.seeds)
    budget = arguments.launches
    stops = [stop for stop in STOPS if stop <= budget]
    print(f"\n{problem.name}: {arguments.seeds} seeds from {first}, {budget} launches")
    print(header(stops))
    studies: dict[str, list[Study]] = {}
    for name, method in chosen.items():
        if name.startswith("gp + twin") and problem.prior(1.0) is None:
            continue
        of = f"{problem.name}-{name}-{budget}".replace("/", "-")
        studies[name] = []
        for seed in seeds:
            made = kept(arguments.keep, f"{of}-{seed}", partial(make, problem, method, seed, budget))
            studies[name].append(judge(problem, made, seed, stops, beliefs().get(name)))
        print(row(name, studies[name]), flush=True)
    for line in reached(studies):
        print(line, flush=True)


def kept(folder: Path | None, name: str, make: Callable[[], Made]) -> Made:
    """Return the launches of that name from the folder; make and keep them if they are not there yet."""
    if folder is None:
        return make()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pickle"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(make()))
        part.replace(path)
    made: Made = pickle.loads(path.read_bytes())  # noqa: S301 - our own files
    return made


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.search")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--launches", type=int, default=BUDGET)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("names", nargs="*")
    return parser.parse_args()


if __name__ == "__main__":
    main()
