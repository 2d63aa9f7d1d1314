"""What engines' own decode lines add to the twin's calibration: python -m tests.benchmarks.log_lines

The committed H100 studies. The twin is fitted to the first launches of one study: to nothing but their pools,
to their records, to the decode steps of their logs, or to both; then it predicts every other launch of all
studies that served. A row is the mean and the median error of throughput, and the mean of p95 TTFT.

Seen: after one launch, lines bring the mean error of throughput from 4.3 to 3.0 % (tpot), 4.9 to 3.0 %
(peers-random) and 3.8 to 3.7 % (chat); after three, by which the records tell most of it, from 3.6 to 2.7 %
(peers-random), and nothing changes in the other two. p95 TTFT gets better by up to a point and worse by a
tenth of one. Without any records (loads that were stopped, engines that died) lines alone bring 4.7 to 3.5
% and 3.4 to 2.0 %; those of chat, at 25 and 50 requests, make it worse (4.9 to 5.3 %): they tell little of
the 128 that are predicted. Lines that weighed three times as much were no better after three launches, and
of chat worse.
"""

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from autotune.metrics import Metric
from autotune.record import Outcome
from autotune.search.calibration.case import Case, Statistic
from autotune.search.calibration.evidence import Evidence, evidence_of
from autotune.search.calibration.fit import calibrate
from autotune.search.calibration.pool import fit_memory
from autotune.search.confirmation import NumberedTrial
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.rehearsal import rehearse
from tests.benchmarks.h100_study import RUNS, STUDIES, first_launches

FITTED = ("h100-llama-8b-tpot", "h100-llama-8b-peers-random", "h100-llama-8b-chat")
COUNTS = (1, 3)
TOLD: tuple[Statistic, ...] = ((Metric.OUTPUT_THROUGHPUT, ""), (Metric.TTFT, "p95"))


def main() -> None:
    histories = {name: read_history(RUNS / name) for name in STUDIES}
    print(f"{'fitted to':36}{'records':>8}{'lines':>6}{'tok/s':>8}{'median':>8}{'TTFT p95':>10}")
    for name in FITTED:
        for count in COUNTS:
            fitted_to = first_launches(histories[name])[:count]
            evidence = logged_evidence(histories[name], fitted_to)
            others = [
                case
                for history in histories.values()
                for case in cases_of(history, () if history is not histories[name] else fitted_to)
            ]
            for row in rows(evidence, others):
                print(f"{f'{name}: {count}':36}{row}")


def logged_evidence(history: StudyHistory, trials: Sequence[NumberedTrial]) -> Evidence:
    """Return what the trials showed, their logs being unpacked for as long as that takes."""
    with TemporaryDirectory() as folder, tarfile.open(history.folder / "logs.tar.xz") as logs:
        logs.extractall(folder, filter="data")
        return evidence_of(history.study.space, history.study.slo, trials, folder=Path(folder))


def cases_of(history: StudyHistory, known: Sequence[NumberedTrial]) -> Iterator[Case]:
    """Yield the loads of every measured launch but the known ones."""
    numbers = {trial.number for trial in known}
    for trial in history.trials:
        if trial.record.outcome is Outcome.MEASURED and trial.number not in numbers:
            yield from evidence_of(history.study.space, history.study.slo, [trial]).cases


def rows(evidence: Evidence, others: Sequence[Case]) -> Iterator[str]:
    """Yield a row for each part of the evidence and for all of it."""
    believed = fit_memory(read_profile("llama-8b-1xh100"), evidence.pools)
    lines = sum(group.lines for group in evidence.steps)
    for cases, steps in (
        ((), ()),
        (evidence.cases, ()),
        ((), evidence.steps),
        (evidence.cases, evidence.steps),
    ):
        off = errors(calibrate(believed, cases, steps).profile, others)
        counts = f"{len(cases):>8}{lines if steps else 0:>6}"
        yield f"{counts}{off[:, 0].mean():>8.1%}{np.median(off[:, 0]):>8.1%}{off[:, 1].mean():>10.1%}"


def errors(profile: Profile, cases: Sequence[Case]) -> np.ndarray:
    """Return the relative errors of throughput and p95 TTFT, without their signs, a row a load."""
    found = []
    for case in cases:
        rehearsal = rehearse(profile, case.argv, [case.load])
        if rehearsal is None:
            raise AssertionError(f"{case.label} was measured, so it starts")
        served = rehearsal.schedules[0].replay(profile.step, profile.experts)
        off = dict(zip(case.shown, np.expm1(case.expected(served) - case.logs).tolist(), strict=True))
        found.append([abs(off[key]) for key in TOLD])
    return np.array(found)


if __name__ == "__main__":
    main()
