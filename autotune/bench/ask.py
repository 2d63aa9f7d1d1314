"""What the user asked of a bench, from the words of the command line to points.

In: `Options`. Out: a `Plan`: points to be measured, or a range to be searched; or a ConfigError that names
the option. Reads the workload, datasets and traces. Invariant: whatever can be refused is refused before the
first request is sent.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from autotune.bench.points import (
    LENGTHS,
    Amount,
    BenchPoint,
    Sweep,
    article,
    climb,
    concurrency_ladder,
    fitting,
    length_sweep,
    rate_ladder,
)
from autotune.bench.promise import read_slo, slo_points
from autotune.bench.run import Asked
from autotune.bench.search import Range
from autotune.bench.target import Target
from autotune.document import read_document
from autotune.errors import ConfigError
from autotune.load.arrivals import LoadPoint
from autotune.load.trace import read_trace, trace_rate_rps
from autotune.load.workload import Wire, Workload, offer
from autotune.slo import Slo, parse_ceiling
from autotune.stalls import StallLimit

DEFAULT_CONCURRENCIES = (1, 8, 32)
_SEARCH = re.compile(r"(?P<kind>concurrency|rate)(?::(?P<low>[\d.]+)-(?P<high>[\d.]+))?")
_SEARCHED = {"concurrency": (1.0, 512.0), "rate": (0.25, 64.0)}
_SAID_BY_SLO = {
    **{name: f"--{name}" for name in ("concurrency", "rate", "lengths", "search", "protocol", "workload")},
    **{name: f"--{name}" for name in ("requests", "arrivals", "burstiness", "trace", "steps")},
    "ramp_s": "--ramp",
    "duration_s": "--duration",
    "ceilings": "--ceiling",
}
_MAY_END_EARLY = (
    "answers may be shorter than asked: ignore_eos is not sent, since this server is not known to be an "
    "SGLang or a vLLM and may refuse it; --ignore-eos sends it"
)
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Options:
    """The words of the command line; None or empty where nothing was said."""

    concurrency: str | None = None
    rate: str | None = None
    steps: str | None = None
    lengths: str | None = None
    search: str | None = None
    protocol: str | None = None
    workload: Path | None = None
    slo: Path | None = None
    input_tokens: int = 1024
    output_tokens: int = 256
    endpoint: str | None = None
    tokenizer: Path | None = None
    ignore_eos: bool | None = None
    requests: int | None = None
    duration_s: float | None = None
    arrivals: str | None = None
    burstiness: float | None = None
    ramp_s: float | None = None
    trace: Path | None = None
    ceilings: tuple[str, ...] = ()
    stall_below_tps: float = 1.0
    stall_longer_than_s: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """What is to be done. `where` is None unless a search was asked; `notes` tell of points left out."""

    workload: Workload
    points: tuple[BenchPoint, ...]
    asked: Asked
    amount: Amount
    arrivals: dict[str, object] = field(default_factory=dict)
    where: Range | None = None
    notes: tuple[str, ...] = ()


def plan_of(options: Options, target: Target) -> Plan:
    """Return what was asked.

    Raises:
        ConfigError: an option cannot be understood, or contradicts another.
    """
    try:
        return _plan(options, target)
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors()
        )
        raise ConfigError(f"bench: {details}") from error


def _plan(options: Options, target: Target) -> Plan:
    amount = Amount(options.requests, options.duration_s, options.ramp_s)
    if options.requests is not None and options.duration_s is not None:
        raise ConfigError("give either --requests or --duration")
    slo = _slo(options)
    workload, arrivals = _workload(options, target, slo), _arrivals(options)
    asked = _points(options, workload, amount, arrivals) if slo is None else slo_points(slo, workload)
    points, told = fitting(asked, target.context_tokens)
    if slo is not None and told:
        raise ConfigError("\n".join(["the SLO cannot be kept by this model", *told]))
    where = _range(options)
    if where is None and not points:
        raise ConfigError("\n".join(["there is nothing to measure", *told]))
    stall = StallLimit(options.stall_below_tps, options.stall_longer_than_s)
    if not workload.ignore_eos and options.ignore_eos is None and not target.is_engine:
        told.append(_MAY_END_EARLY)
    plan = Plan(
        workload, tuple(points), Asked(_ceilings(options), stall), amount, arrivals, where, tuple(told)
    )
    _try_out(plan)
    return plan


def _slo(options: Options) -> Slo | None:
    """Return the SLO to be verified, None if none is: it says everything that other options say."""
    if options.slo is None:
        return None
    said_twice = [option for name, option in _SAID_BY_SLO.items() if getattr(options, name)]
    if said_twice:
        raise ConfigError(f"--slo says the load and the ceilings; leave out {', '.join(said_twice)}")
    return read_slo(options.slo)


def _workload(options: Options, target: Target, slo: Slo | None) -> Workload:
    said: dict[str, Any] = {"seed": options.seed}
    if slo is not None:
        said = slo.workload.model_dump(by_alias=True)
    elif options.workload is not None:
        given = read_document(options.workload).to_model(Workload)
        said = given.model_dump(by_alias=True)
    else:
        said |= {"input_tokens": options.input_tokens, "output_tokens": options.output_tokens}
        said |= {"endpoint": target.wire, "ignore_eos": target.is_engine}
    if options.endpoint is not None:
        said["endpoint"] = _one_of("--endpoint", options.endpoint, tuple(Wire))
    if options.tokenizer is not None:
        said["tokenizer"] = options.tokenizer
    if options.ignore_eos is not None:
        said["ignore_eos"] = options.ignore_eos
    return Workload.model_validate(said)


def _arrivals(options: Options) -> dict[str, object]:
    asked = {"arrivals": options.arrivals, "burstiness": options.burstiness, "trace": options.trace}
    return {name: value for name, value in asked.items() if value is not None}


def _points(
    options: Options, workload: Workload, amount: Amount, arrivals: dict[str, object]
) -> list[BenchPoint]:
    if options.protocol is not None:
        _one_of("--protocol", options.protocol, ("article",))
        return article(workload, amount)
    points = []
    if options.lengths is not None:
        lengths = LENGTHS if options.lengths == "all" else _numbers("--lengths", options.lengths, int)
        points += length_sweep(workload, lengths, amount)
    if options.concurrency is not None:
        levels = _numbers("--concurrency", options.concurrency, int)
        points += concurrency_ladder(workload, levels, amount)
    if options.rate is not None:
        points += rate_ladder(workload, _numbers("--rate", options.rate, float), amount, arrivals)
    elif options.trace is not None and options.search is None:
        points.append(_replay(options.trace, workload, amount))
    if options.steps is not None:
        steps = _numbers("--steps", options.steps, float)
        points.append(climb(workload, steps, amount, arrivals))
    if not points and options.search is None:
        points = concurrency_ladder(workload, DEFAULT_CONCURRENCIES, amount)
    return points


def _replay(trace: Path, workload: Workload, amount: Amount) -> BenchPoint:
    """Return a trace at its own speed, all of it unless told otherwise."""
    rows = read_trace(trace)
    rate = trace_rate_rps(rows)
    length: dict[str, object] = {"requests": min(amount.requests or len(rows), len(rows))}
    if amount.duration_s is not None:
        length = {"duration_s": amount.duration_s}
    load = LoadPoint.model_validate({"rate": rate, "trace": trace, **length})
    return BenchPoint(Sweep.RATE, rate, workload, load)


def _range(options: Options) -> Range | None:
    if options.search is None:
        return None
    found = _SEARCH.fullmatch(options.search)
    if found is None:
        raise ConfigError(f"--search {options.search!r}: write it like concurrency:1-512 or rate:0.5-32")
    if not options.ceilings:
        raise ConfigError("--search needs a --ceiling to keep, such as 'ttft p95 < 10s'")
    low, high = _SEARCHED[found["kind"]]
    if found["low"] is not None:
        low, high = float(found["low"]), float(found["high"])
    if not 0 < low <= high:
        raise ConfigError(f"--search {options.search!r}: from a low load, above 0, to a higher one")
    return Range(low, high, is_whole=found["kind"] == "concurrency")


def _ceilings(options: Options) -> tuple[str, ...]:
    for text in options.ceilings:
        try:
            parse_ceiling(f"{text} at concurrency 1")
        except ValueError as error:
            form = "without 'at ...': it holds at every point"
            raise ConfigError(f"--ceiling {text!r}: {error} ({form})") from error
    return options.ceilings


def _try_out(plan: Plan) -> None:
    """Make the first request of every point, so that an unusable dataset, tokenizer or trace shows now."""
    for point in plan.points:
        offer(point.workload, point.load, salt=0)


def _numbers(option: str, text: str, kind: Callable[[str], _Number]) -> list[_Number]:
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: write numbers with commas between them") from None
    if any(number <= 0 for number in numbers):
        raise ConfigError(f"{option} {text!r}: numbers are above 0")
    return numbers


def _one_of(option: str, word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        raise ConfigError(f"{option} {word!r}: there is {', '.join(known)}")
    return word
