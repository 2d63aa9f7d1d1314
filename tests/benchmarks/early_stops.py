"""What load points that stop while they run save: python -m tests.benchmarks.early_stops [SEEDS [SLO...]]

Runs shipped search spaces with shipped SLOs, and one whose ceilings most candidates miss, simulated, with and
without early stops on the same seeds. Prints the seconds that the search's load points took, whether the same
candidate wins, and what it is worth on fresh launches. Virtual time.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.engine.launchers import open_launcher
from autotune.record import Role
from autotune.search.budget import Budget
from autotune.search.study_history import StudyHistory
from autotune.space import LauncherKind
from autotune.study import read_study
from autotune.tuner import tune

ROOT = Path(__file__).parents[2]
LAUNCHES = 16
PAIRS = (
    ("deepseek-r1-2x8h100", "ttft-p95-10s-at-50"),
    ("llama-8b-1xh100", "chat"),
    ("llama-8b-1xh100", "rag-long-prompts"),
    ("llama-8b-1xh100", "tight"),
)
TIGHT = """
workload: {input_tokens: 1024, output_tokens: 256, seed: 7}
load:
  - {rate: 14, requests: 600}
  - {concurrency: 128, requests: 768}
ceilings:
  - ttft p95 < 1s at rate 14
  - tpot p95 < 23ms at concurrency 128
objective: maximise output_throughput at concurrency 128
"""


@dataclass(frozen=True)
class Outcome:
    """The search's measuring time, how many load points stopped, and the answer with its fresh value."""

    load_s: float
    points: int
    stopped: int
    winner: str
    value: float | None


def main(seeds: str = "5", *only: str) -> None:
    """Print one line for every pair and seed, and the sums."""
    print("pair, seed | s of load, whole | s, stopping early | stopped points | same winner | value")
    for space, slo in (pair for pair in PAIRS if not only or pair[1] in only):
        runs = [
            (
                _outcome(space, slo, seed, stops=False),
                _outcome(space, slo, seed, stops=True),
            )
            for seed in range(int(seeds))
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


def _outcome(space: str, slo: str, seed: int, *, stops: bool) -> Outcome:
    budget = Budget(launches=LAUNCHES, finalists=1, stops_early=stops)
    with tempfile.TemporaryDirectory() as folder:
        slo_path = ROOT / "slo" / f"{slo}.yaml"
        if slo == "tight":
            slo_path = Path(folder) / "tight.yaml"
            slo_path.write_text(TIGHT, encoding="utf-8")
        space_path = ROOT / "search_spaces" / f"{space}.yaml"
        study = read_study(space_path, slo_path, launcher=LauncherKind.SIMULATED, seed=seed).study
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
    main(*sys.argv[1:])
