"""What live values are worth: python -m tests.benchmarks.live_values [SEEDS [SAMPLER...]]

A space in which the limit of running requests decides whether the SLO is met, simulated, with and without
live values on the same seeds. Prints, side by side, after how many launches and minutes of the search
(virtual time) the first candidate was measured that does not miss the SLO and is worth 95 % of the best of
all these studies; then the medians. "never": not within the budget.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf
from pathlib import Path
from statistics import median

from autotune.engine.launchers import open_launcher
from autotune.record import Role, TrialRecord
from autotune.search.budget import Budget
from autotune.search.ledger import StudyHistory
from autotune.search.sampler import SamplerKind
from autotune.slo import Decision, Slo
from autotune.space import SearchSpace
from autotune.study import Study
from autotune.tuner import tune

LAUNCHES = 16
FIRST_SEED = 1000
"""Space, SLO and rules were chosen on the seeds below."""
NEAR = 0.95
SPACE = {
    "version": "0.5.23",
    "model": "m",
    "launcher": "simulated",
    "profile": "llama-8b-1xh100",
    "tune": {
        "max-running-requests": {"int": [8, 512], "scale": "log"},
        "chunked-prefill-size": {"int": [512, 8192], "scale": "log", "multiple_of": 64},
        "schedule-policy": {"choices": ["fcfs", "lpm"]},
    },
}
SLO = {
    "workload": {"input_tokens": 1024, "output_tokens": 128, "seed": 7},
    "load": [{"concurrency": 128, "requests": 512}],
    "ceilings": ["ttft p95 < 8s at concurrency 128", "tpot p95 < 25ms at concurrency 128"],
    "objective": "maximise output_throughput at concurrency 128",
}


@dataclass(frozen=True)
class Reached:
    """After how many launches and minutes, infinite if never."""

    launches: float
    minutes: float

    def __str__(self) -> str:
        return "never" if isinf(self.launches) else f"{self.launches:.0f} launches, {self.minutes:.0f} min"


def main(seeds: str = "10", *samplers: str) -> None:
    """Print one line for every seed, and the medians."""
    for kind in (SamplerKind(name) for name in samplers or ("tpe", "gp")):
        pairs = [
            (history(kind, seed, live=False), history(kind, seed, live=True))
            for seed in range(FIRST_SEED, FIRST_SEED + int(seeds))
        ]
        best = max(value_of(each) for pair in pairs for each in pair)
        found = [(reached(one, NEAR * best), reached(other, NEAR * best)) for one, other in pairs]
        print(f"{kind}: the best is worth {best:,.0f} tok/s")
        for seed, (without, within) in enumerate(found, FIRST_SEED):
            print(f"  seed {seed}: {without!s:>24} -> {within!s:>24}")
        sides = [middle(side) for side in zip(*found, strict=True)]
        print(f"  median: {sides[0]!s:>24} -> {sides[1]!s:>24}", flush=True)


def history(kind: SamplerKind, seed: int, *, live: bool, launches: int = LAUNCHES) -> StudyHistory:
    """Return a study of so many launches."""
    study = Study(
        name="live", space=SearchSpace.model_validate(SPACE), slo=Slo.model_validate(SLO), seed=seed
    )
    budget = Budget(launches=launches, finalists=1, measures_live=live)
    with tempfile.TemporaryDirectory() as folder:
        return tune(
            study,
            open_launcher(study.space, seed=seed),
            budget,
            Path(folder),
            sampler=kind,
            observe=lambda _: None,
        )


def value_of(history: StudyHistory) -> float:
    """Return the best value of a study's search."""
    return max((value for each in searched(history) if (value := worth(each)) is not None), default=0.0)


def searched(history: StudyHistory) -> list[TrialRecord]:
    """Return the records of the baseline and the search."""
    return [each.record for each in history.trials if each.record.role is not Role.CONFIRMATION]


def reached(history: StudyHistory, value: float) -> Reached:
    """Return when the search first measured what meets the SLO and is worth so much."""
    launches, seconds = 0, 0.0
    for record in searched(history):
        launches += record.is_launch
        seconds += record.duration_s
        if (worth(record) or 0.0) >= value:
            return Reached(launches, seconds / 60)
    return Reached(inf, inf)


def worth(record: TrialRecord) -> float | None:
    """Return what a candidate was measured to be worth, None if it misses its SLO or was not whole."""
    misses = record.verdict is None or record.verdict.decision is Decision.MISSED
    return None if misses or record.stops or not record.objectives else record.objectives[0]


def middle(found: Sequence[Reached]) -> Reached:
    """Return the medians."""
    return Reached(median(each.launches for each in found), median(each.minutes for each in found))


if __name__ == "__main__":
    main(*sys.argv[1:])
