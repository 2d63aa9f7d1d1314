"""The twin's predictions of the committed H100 studies, and their time: python -m tests.benchmarks.h100_study

First table: the twin, calibrated on the first three launches of one study, predicts all others of all
studies: throughput, p95 TTFT, tokens of the KV pool, failure to start. Then the seconds of each study's
phases, and the best that the gp sampler, a grid and random search found in the same minutes, launched again:
the gain over the first, with Welch's 95 % interval where one was launched more than once.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from scipy.stats import ttest_ind

from autotune.metrics import Metric
from autotune.record import Outcome
from autotune.search.calibration.case import Case, Statistic
from autotune.search.calibration.evidence import argv_of, evidence_of
from autotune.search.calibration.fit import calibrate
from autotune.search.calibration.pool import fit_memory
from autotune.search.confirmation import NumberedTrial
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.rehearsal import rehearse
from autotune.simulator.startup import StartFailure, plan_start
from autotune.space import Candidate

RUNS = Path("runs")
_PEERS = "h100-llama-8b-peers"
STUDIES = (
    *("h100-llama-8b-tpot", "h100-llama-8b-chat", "h100-llama-8b-edge"),
    *(_PEERS, f"{_PEERS}-random", f"{_PEERS}-grid", f"{_PEERS}-contest"),
)
FITTED_LAUNCHES = 3
_IMPORT_S = 10.0
"""A launch whose first phase is longer waited for the import: a new call began, and no gap is the tuner's."""
_RATE: Statistic = (Metric.OUTPUT_THROUGHPUT, "")
_TTFT: Statistic = (Metric.TTFT, "p95")
Errors: TypeAlias = tuple[float, float, float]


def main() -> None:
    histories = [read_history(RUNS / name) for name in STUDIES]
    profile = fitted(histories[0])
    heads = f"{'tok/s':>8}{'twin':>8}{'error':>8}{'TTFT p95':>10}{'twin':>7}{'error':>8}"
    print(f"{'launch':31}{heads}{'KV tokens':>11}{'error':>8}")
    errors = [error for history in histories for error in predicted(profile, history)]
    off = np.abs(np.array(errors))
    for what, column in zip(("throughput", "p95 TTFT", "KV pool"), off.T, strict=True):
        print(f"{what}, {len(column)} launches: mean error {column.mean():.1%}, worst {column.max():.1%}")
    for history in histories:
        print(accounted(history))
    print(*contest(histories[-1]), sep="\n")


def contest(history: StudyHistory) -> Iterator[str]:
    """Yield a line for each candidate of the last study, whose baseline is what the gp sampler found."""
    rates: defaultdict[Candidate, list[float]] = defaultdict(list)
    for trial in history.trials:
        if trial.record.objectives is not None:
            rates[trial.record.to_candidate()] += trial.record.objectives
    (first, ours), *others = rates.items()
    yield f"{np.mean(ours):.0f} tok/s in {len(ours)} launches: {first}"
    for candidate, found in others:
        gain = np.mean(found) / np.mean(ours) - 1
        told = f"{np.mean(found):.0f} tok/s in {len(found)} launches, {gain:+.1%}"
        if len(found) > 1:
            interval = ttest_ind(found, ours, equal_var=False).confidence_interval(0.95)
            low, high = (side / np.mean(ours) for side in (interval.low, interval.high))
            told += f" [{low:+.1%} .. {high:+.1%}]"
        yield f"{told}: {candidate}"


def first_launches(history: StudyHistory) -> list[NumberedTrial]:
    """Return those that the twin is calibrated on."""
    measured = [trial for trial in history.trials if trial.record.outcome is Outcome.MEASURED]
    return measured[:FITTED_LAUNCHES]


def fitted(history: StudyHistory) -> Profile:
    space, slo = history.study.space, history.study.slo
    evidence = evidence_of(space, slo, first_launches(history))
    believed = read_profile(space.profile or "")
    return calibrate(fit_memory(believed, evidence.pools), evidence.cases).profile


def predicted(profile: Profile, history: StudyHistory) -> Iterator[Errors]:
    """Print a row for each launch that was not fitted to; yield the relative errors of those that served."""
    known = {trial.number for trial in first_launches(history)} if history.study.name == STUDIES[0] else set()
    for trial in history.trials:
        name = f"{history.study.name} {trial.number}"
        if trial.record.outcome is Outcome.FAILED:
            print(f"{name:31}{failure_row(profile, history, trial)}")
        elif trial.record.outcome is Outcome.MEASURED and trial.number not in known:
            (case,) = evidence_of(history.study.space, history.study.slo, [trial]).cases
            row, errors = served_row(profile, trial, case)
            print(f"{name:31}{row}")
            yield errors


def failure_row(profile: Profile, history: StudyHistory, trial: NumberedTrial) -> str:
    argv = argv_of(history.study.space, trial.record.to_candidate())
    fails = isinstance(plan_start(profile, argv, seed=0).outcome, StartFailure)
    kind = "" if trial.record.failure is None else trial.record.failure.kind
    return f"failed ({kind}); the twin says that it {'fails' if fails else 'starts'}"


def served_row(profile: Profile, trial: NumberedTrial, case: Case) -> tuple[str, Errors]:
    rehearsal = rehearse(profile, case.argv, [case.load])
    effective = trial.record.effective
    if rehearsal is None or effective is None or effective.kv_tokens is None:
        raise AssertionError(f"trial {trial.number} served, and the twin says that it cannot start")
    served = rehearsal.schedules[0].replay(profile.step, profile.experts)
    says = dict(zip(case.shown, np.exp(case.expected(served)).tolist(), strict=True))
    rate, ttft = (says[key] / case.shown[key] - 1 for key in (_RATE, _TTFT))
    pool = rehearsal.ready.capacity.pool_tokens / effective.kv_tokens - 1
    row = (
        f"{case.shown[_RATE]:>8.0f}{says[_RATE]:>8.0f}{rate:>+8.1%}"
        f"{case.shown[_TTFT]:>9.2f}s{says[_TTFT]:>6.2f}s{ttft:>+8.1%}{effective.kv_tokens:>11}{pool:>+8.2%}"
    )
    return row, (rate, ttft, pool)


def accounted(history: StudyHistory) -> str:
    """Return one line: the seconds in each phase, and those between trials, which are the tuner's own."""
    spent: defaultdict[str, float] = defaultdict(float)
    records = [trial.record for trial in history.trials]
    for record in records:
        for phase, seconds in record.durations_s.items():
            spent[phase] += seconds
    for before, after in pairwise(records):
        is_whole = Outcome.INTERRUPTED not in (before.outcome, after.outcome)
        if is_whole and after.start_phases_s.get("process", 0) < _IMPORT_S:
            spent["tuner"] += after.began_s - before.began_s - before.duration_s
    total_s = sum(spent.values())
    shares = ", ".join(
        f"{name} {seconds:.0f} s ({seconds / total_s:.0%})"
        for name, seconds in sorted(spent.items(), key=lambda each: -each[1])
    )
    return f"{history.study.name}, {len(records)} launches, {total_s:.0f} s: {shares}"


if __name__ == "__main__":
    main()
