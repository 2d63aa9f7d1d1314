"""What would help where nothing meets the SLO: looser limits, more samples, more nodes. Pure.

In: a `StudyHistory` and its nearest candidate. Out: sentences. Invariant: each rests on what was measured and
says so; where nothing was measured that could tell, it says that.
"""

import math
from collections.abc import Iterator, Mapping

from autotune.metrics import Metric
from autotune.report.findings import measured, verdict_of
from autotune.report.undecided import remedy_text
from autotune.report.units import metric_value
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Ceiling, CeilingVerdict, Decision

_RATES = (
    Metric.OUTPUT_THROUGHPUT,
    Metric.TOTAL_THROUGHPUT,
    Metric.REQUEST_THROUGHPUT,
    Metric.GOODPUT,
)


def remedies(history: StudyHistory, trial: NumberedTrial) -> Iterator[str]:
    """Yield what would make the candidate meet the SLO; nothing if it was not judged."""
    verdict = verdict_of(history, trial)
    judged = verdict.ceilings if verdict else ()
    missed = [each for each in judged if each.margin_ratio < 0]
    yield from _looser_limits(history, missed)
    for each in judged:
        if each.decision is Decision.UNDECIDED and each.margin_ratio >= 0:
            yield remedy_text(history.study.slo, each)
    if missed:
        worst = min(missed, key=lambda each: each.margin_ratio)
        yield f"More nodes: {_more_nodes(history, trial, worst)}"


def _looser_limits(history: StudyHistory, missed: list[CeilingVerdict]) -> Iterator[str]:
    """Yield the limits that the candidate keeps, and how many others keep them."""
    limits: dict[str, float] = {}
    for each in missed:
        limit = _limit_kept(_ceiling(history, each), each)
        if limit is None:
            yield f"No looser limit helps against the failed requests under {each.ceiling}."
            return
        limits[each.ceiling] = limit
    if not limits:
        return
    everyone = measured(history)
    passing = sum(_would_pass(history, trial, limits) for trial in everyone)
    texts = [_limit_text(_ceiling(history, each), limits[each.ceiling]) for each in missed]
    yield (
        f"With {' and '.join(texts)}, {passing} of {len(everyone)} measured candidates would pass, "
        "by the values measured so far."
    )


def _limit_kept(ceiling: Ceiling, judged: CeilingVerdict) -> float | None:
    """Return the next limit of two digits that the value keeps, None if the value is not what missed."""
    value = judged.value
    if value is None or value == 0 or _keeps(ceiling, value, ceiling.limit):
        return None
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    steps = math.floor(value / unit + 1e-9) if ceiling.is_floor else math.ceil(value / unit - 1e-9)
    return steps * unit


def _would_pass(history: StudyHistory, trial: NumberedTrial, limits: Mapping[str, float]) -> bool:
    verdict = verdict_of(history, trial)
    return verdict is not None and all(
        _keeps(_ceiling(history, each), each.value, limits[each.ceiling])
        if each.ceiling in limits
        else each.margin_ratio >= 0
        for each in verdict.ceilings
    )


def _keeps(ceiling: Ceiling, value: float | None, limit: float) -> bool:
    if value is None:
        return False
    slack = abs(limit) * 1e-9  # what a limit loses when it is written with two digits
    return value >= limit - slack if ceiling.is_floor else value <= limit + slack


def _limit_text(ceiling: Ceiling, limit: float) -> str:
    quantity = ceiling.quantity
    name = " ".join(filter(None, (quantity.metric, quantity.statistic)))
    sign = ">" if ceiling.is_floor else "<"
    return f"{name} {sign} {metric_value(quantity.metric, limit)} at {quantity.load}"


def _more_nodes(history: StudyHistory, trial: NumberedTrial, worst: CeilingVerdict) -> str:
    """Return how many such services keep the ceiling together, as far as that was measured."""
    ceiling = _ceiling(history, worst)
    if ceiling.is_floor and ceiling.quantity.metric in _RATES and worst.value:
        count = math.ceil(ceiling.limit / worst.value)
        return f"{_services(history, count)}, each under this load, give it together."
    lighter = _lighter_load(trial, ceiling)
    if lighter is None:
        return "how many cannot be told, as no lighter load was measured under which it keeps this limit."
    load, value = lighter
    count = math.ceil(_level(ceiling.quantity.load) / _level(load))
    seen = metric_value(ceiling.quantity.metric, value)
    return f"at {load} it has {seen}; {_services(history, count)} that share the load would keep the limit."


def _lighter_load(trial: NumberedTrial, ceiling: Ceiling) -> tuple[str, float] | None:
    """Return the heaviest load below the ceiling's own that keeps its limit, with the value there."""
    quantity = ceiling.quantity
    kind = quantity.load.split()[0]
    found = []
    for point in trial.record.points:
        value = point.summary.value(quantity.metric, quantity.statistic)
        is_lighter = point.load.startswith(f"{kind} ") and _level(point.load) < _level(quantity.load)
        if is_lighter and value is not None and _keeps(ceiling, value, ceiling.limit):
            found.append((point.load, value))
    return max(found, key=lambda each: _level(each[0]), default=None)


def _services(history: StudyHistory, count: int) -> str:
    nodes = count * len(history.study.space.nodes)
    return f"{count} such services ({nodes} nodes)"


def _level(load: str) -> float:
    return float(load.split()[1])


def _ceiling(history: StudyHistory, judged: CeilingVerdict) -> Ceiling:
    return next(each for each in history.study.slo.ceilings if each.text == judged.ceiling)
