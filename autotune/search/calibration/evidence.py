"""What a study's records say that a calibration can use.

In: a study and its finished trials and, where its folder is given, the logs of their engines. Out: `Case`s,
`PoolFact`s and `StepGroup`s. Reads the steps of each log once. Invariant: only what was really measured
counts; numbers that were taken over from another trial say nothing new, nor do the pool and the log of an
engine that several were measured on. A launch that died or was stopped, whose requests tell nothing, still
has its log.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

from autotune.engine.dialects import dialect_of
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import offer
from autotune.record import Outcome
from autotune.request import OfferedLoad
from autotune.search.calibration.case import Case, shown_by
from autotune.search.calibration.pool import PoolFact
from autotune.search.calibration.steps import StepGroup, grouped
from autotune.search.confirmation import NumberedTrial
from autotune.slo import Slo
from autotune.space import Candidate, SearchSpace

_MOST_STEPS = 5000
"""Logged intervals that are read of one launch: a day of decoding."""
_WEIGHTS = re.compile(r"Load weight end\..*mem usage=([\d.]+) GB")


@dataclass(frozen=True)
class Evidence:
    """What launches showed of step times and of memory."""

    cases: tuple[Case, ...]
    pools: tuple[PoolFact, ...]
    steps: tuple[StepGroup, ...] = ()


def evidence_of(
    space: SearchSpace, slo: Slo, trials: Iterable[NumberedTrial], *, folder: Path | None = None
) -> Evidence:
    """Return what the trials' launches showed; `folder`: the study's, with the engines' logs."""
    measured = [trial for trial in trials if trial.record.same_as is None]
    launched = [trial for trial in measured if trial.record.measured_live_on is None]
    sound = [trial for trial in launched if not trial.record.is_lost_to_node]
    pools = (_pool_fact(space, trial, folder) for trial in launched)
    return Evidence(
        cases=tuple(case for trial in measured for case in _cases(space, slo, trial)),
        pools=tuple(fact for fact in pools if fact is not None),
        steps=tuple(group for trial in sound for group in _logged_steps(space, trial.number, folder)),
    )


def argv_of(space: SearchSpace, candidate: Candidate) -> tuple[str, ...]:
    """Return the command line of a candidate's rank 0."""
    return dialect_of(space.engine).argv(
        space, candidate, rank=0, port=space.port, rendezvous_port=space.rendezvous_port
    )


def _cases(space: SearchSpace, slo: Slo, trial: NumberedTrial) -> Iterable[Case]:
    record = trial.record
    if record.outcome is not Outcome.MEASURED:
        return
    argv = argv_of(space, record.to_candidate())
    for point in slo.load:
        measured = record.point(point.label)
        shown = {} if measured is None else shown_by(measured.summary)
        if measured is not None and shown:
            load = _sent(slo, point, measured.summary.sent)
            yield Case(f"trial {trial.number}, {point.label}", trial.number, argv, load, shown)


def _sent(slo: Slo, point: LoadPoint, sent: int) -> OfferedLoad:
    """Return the load as far as it was sent: a verdict may have come before its end."""
    load = offer(slo.workload, point, salt=0)
    return replace(load, requests=tuple(load.requests[:sent])) if sent < len(load.requests) else load


def _pool_fact(space: SearchSpace, trial: NumberedTrial, folder: Path | None) -> PoolFact | None:
    record = trial.record
    argv = argv_of(space, record.to_candidate())
    if record.failure is not None and record.failure.minimum_mem_fraction is not None:
        return PoolFact(argv, minimum_mem_fraction=record.failure.minimum_mem_fraction)
    if record.effective is None or record.effective.kv_tokens is None:
        return None
    fraction = record.effective.flags.get("mem-fraction-static")
    told = float(fraction) if isinstance(fraction, int | float) else None
    return PoolFact(
        argv,
        tokens=record.effective.kv_tokens,
        mem_fraction=told,
        weights_gib=None if folder is None else _logged_weights_gib(_log_of(folder, trial.number)),
    )


def _log_of(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:04d}" / "engine-rank0.log"


def _logged_weights_gib(log: Path) -> float | None:
    """Return what the weights took of one card by the log of rank 0, None if it does not tell."""
    if not log.exists():
        return None
    with log.open(encoding="utf-8", errors="replace") as lines:
        return next((float(found[1]) for line in lines if (found := _WEIGHTS.search(line))), None)


def _logged_steps(space: SearchSpace, number: int, folder: Path | None) -> tuple[StepGroup, ...]:
    log = None if folder is None else _log_of(folder, number)
    return _read_steps(space.engine, number, log, log.stat().st_size) if log and log.exists() else ()


@lru_cache(maxsize=256)
def _read_steps(engine: str, number: int, log: Path, _size_bytes: int) -> tuple[StepGroup, ...]:
    """Return what a log says; it is read again if it has grown, by values that were measured live."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return grouped(number, islice(dialect_of(engine).decode_steps(lines), _MOST_STEPS))
