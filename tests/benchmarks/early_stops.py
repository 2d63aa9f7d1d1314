"""What load points that stop while they run save: python -m tests.benchmarks.early_stops [LAUNCHES] [SEEDS]

Runs every pair of a shipped search space and SLO, simulated, with and without early stops, on the same
seeds, and prints the seconds that the search's load points took and what its answer is worth. Virtual time.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.engine.launchers import open_launcher
from autotune.record import Role
from autotune.search.budget import Budget
from autotune.search.ledger import StudyHistory
from autotune.space import LauncherKind
from autotune.study import read_study
from autotune.tuner import tune

ROOT = Path(__file__).parents[2]
PAIRS = (
    ("deepseek-r1-2x8h100", "ttft-p95-10s-at-50"),
    ("llama-8b-1xh100", "chat"),
    ("llama-8b-1xh100", "rag-long-prompts"),
)


@dataclass(frozen=True)
class Outcome:
    """The search's measuring time, how many load points stopped, and the answer with its fresh value."""

    load_s: float
    points: int
    stopped: int
    winner: str
    value: float | None


def main(launches: int = 16, seeds: int = 5) -> None:
    """Print one line for every pair and seed, and the sums."""
    print("pair, seed | s of load, whole | s, stopping early | stopped points | same winner | value")
    for space, slo in PAIRS:
        runs = [
            (
                _outcome(space, slo, seed, launches, stops=False),
                _outcome(space, slo, seed, launches, stops=True),
            )
            for seed in range(seeds)
        ]
        for seed, (whole, early) in enumerate(runs):
            print(f"{space}, {slo}, {seed} | {' | '.join(_cells(whole, early))}")
        before_s, after_s = (sum(run[side].load_s for run in runs) for side in (0, 1))
        print(
            f"{space}, {slo}: {before_s:,.0f} s -> {after_s:,.0f} s, "
            f"{100 - 100 * after_s / before_s:.0f} % less"
        )


def _cells(whole: Outcome, early: Outcome) -> Iterator[str]:
    yield f"{whole.load_s:,.0f}"
    yield f"{early.load_s:,.0f}"
    yield f"{early.stopped} of {early.points}"
    yield "yes" if whole.winner == early.winner else "no"
    yield f"{whole.value or 0:.4g} -> {early.value or 0:.4g}"


def _outcome(space: str, slo: str, seed: int, launches: int, *, stops: bool) -> Outcome:
    study = read_study(
        ROOT / "search_spaces" / f"{space}.yaml",
        ROOT / "slo" / f"{slo}.yaml",
        launcher=LauncherKind.SIMULATED,
        seed=seed,
    ).study
    budget = Budget(launches=launches, finalists=1, stops_early=stops)
    with tempfile.TemporaryDirectory() as folder:
        launcher = open_launcher(study.space, seed=seed)
        return _read(tune(study, launcher, budget, Path(folder) / study.name, observe=lambda _: None))


def _read(history: StudyHistory) -> Outcome:
    searched = [trial.record for trial in history.trials if trial.record.role is Role.SEARCH]
    points = [point for record in searched for point in record.points if record.same_as is None]
    answer = history.answer
    number = answer.winner if answer else None
    winner = next(
        (str(trial.record.to_candidate()) for trial in history.trials if trial.number == number), ""
    )
    confirmed = answer.confirmed_winner if answer else None
    return Outcome(
        load_s=sum(record.durations_s.get("load", 0.0) for record in searched),
        points=len(points),
        stopped=sum(point.stopped is not None for point in points),
        winner=winner,
        value=confirmed.mean(0) if confirmed else None,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
