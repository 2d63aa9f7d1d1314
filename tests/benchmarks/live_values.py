"""What live values are worth: python -m tests.benchmarks.live_values [SEEDS [SAMPLER...]]

A space in which the limit of running requests decides whether the SLO is met, simulated with start-ups of
about 1 and 15 minutes, on the same seeds: without live values; with at most two a launch, beside what may
deserve it, as for a sampler without a model; and chosen by what they promise for their time, if it has one.
Prints after how many launches and minutes of the search (virtual time) the first candidate was measured that
does not miss the SLO and is worth 95 and 98 % of the best value that half of all these studies came to:
medians, and how many studies came there. "never": fewer than half did within the budget.

Seen with ten seeds of gp, in minutes to 98 %: against no live values, two a launch take 0.43 of the time and
those by promise 0.36 with start-ups of 15 minutes, and 0.64 and 0.79 with those of 1 minute. There the first
engine seems to be kept for too many values: all promise the same until three are known.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isinf
from pathlib import Path
from statistics import median

from autotune.engine.launchers import open_launcher
from autotune.record import Role, TrialRecord
from autotune.search.budget import Budget
from autotune.search.live_plan import LivePlanner
from autotune.search.sampler import SamplerKind
from autotune.search.study_history import StudyHistory
from autotune.simulator.profile import read_profile
from autotune.slo import Decision, Slo
from autotune.space import SearchSpace
from autotune.study import Study
from autotune.tuner import tune

LAUNCHES = 16
FIRST_SEED = 3000
"""Space, SLO and rules were chosen on the seeds below."""
NEAR = (0.95, 0.98)
PROFILE = "llama-8b-1xh100"
PROCESS_S = {"1 min": 20.0, "15 min": 850.0}
"""How long the engine's process takes to start, for each start-up."""
SPACE = {
    "version": "0.5.23",
    "model": "m",
    "launcher": "simulated",
    "profile": PROFILE,
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


class Live(StrEnum):
    """How live values are chosen."""

    NONE = "none"
    FEW = "two a launch"
    PROMISE = "by promise"


@dataclass(frozen=True)
class Reached:
    """After how many launches and minutes, infinite if never."""

    launches: float
    minutes: float

    def __str__(self) -> str:
        return "never" if isinf(self.launches) else f"{self.launches:.0f} launches, {self.minutes:.0f} min"


def main(seeds: str = "10", *samplers: str) -> None:
    """Print one line for every start-up, rule and sampler."""
    for kind in (SamplerKind(name) for name in samplers or ("tpe", "gp")):
        for start, process_s in PROCESS_S.items():
            studies = {
                live: [
                    history(kind, seed, live=live, process_s=process_s)
                    for seed in range(FIRST_SEED, FIRST_SEED + int(seeds))
                ]
                for live in Live
            }
            best = median(value_of(each) for group in studies.values() for each in group)
            print(f"{kind}, start-up of {start}: half of the studies came to {best:,.0f} tok/s")
            for live, group in studies.items():
                columns = (column([reached(each, near * best) for each in group], near) for near in NEAR)
                print(f"  {live:>12}: {' | '.join(columns)}", flush=True)


def column(found: Sequence[Reached], near: float) -> str:
    """Return the medians, and how many came there at all."""
    hits = sum(not isinf(each.launches) for each in found)
    return f"{near:.0%} after {middle(found)!s:>22} ({hits} of {len(found)})"


def history(
    kind: SamplerKind,
    seed: int,
    *,
    live: Live,
    launches: int = LAUNCHES,
    process_s: float | None = None,
) -> StudyHistory:
    """Return a study of so many launches; `process_s`: how long an engine's process takes to start."""
    budget = Budget(launches=launches, finalists=1, measures_live=live is not Live.NONE)
    with tempfile.TemporaryDirectory() as folder, chosen(live):
        space = space_of(Path(folder), process_s)
        study = Study(name="live", space=space, slo=Slo.model_validate(SLO), seed=seed)
        launcher = open_launcher(study.space, seed=seed)
        runs = Path(folder) / "runs"
        return tune(study, launcher, budget, runs, sampler=kind, observe=lambda _: None)


def space_of(folder: Path, process_s: float | None) -> SearchSpace:
    """Return the space, with a profile of its own for another start-up."""
    if process_s is None:
        return SearchSpace.model_validate(SPACE)
    profile = read_profile(PROFILE)
    start_up = profile.start_up.model_copy(update={"process_s": process_s})
    file = folder / "profile.yaml"
    file.write_text(profile.model_copy(update={"start_up": start_up}).model_dump_json())
    return SearchSpace.model_validate({**SPACE, "profile": str(file)})


@contextmanager
def chosen(live: Live) -> Iterator[None]:
    """Let nobody tell what a live value promises, unless it is asked for."""
    appraise = LivePlanner._appraise
    if live is Live.FEW:
        LivePlanner._appraise = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        LivePlanner._appraise = appraise  # type: ignore[method-assign]


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
