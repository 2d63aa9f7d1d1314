"""What a measured point says: figures, ceilings, the client's view of itself. Pure.

In: a `BenchPoint` and its `LoadResult`. Out: a `BenchRow`, as it stands in the JSON file; a
`BenchReport` of all.
"""

from dataclasses import asdict
from typing import Any

from autotune.bench.points import BenchPoint, Sweep
from autotune.breakdown import Breakdown, break_down
from autotune.document import Frozen
from autotune.load.arrivals import LoadPoint
from autotune.load.health import invalid_reason
from autotune.load.workload import Workload
from autotune.metrics import Measurement, Metric, measure
from autotune.request import LoadResult, OfferedLoad
from autotune.slo import Decision, Slo, judge, parse_ceiling
from autotune.stalls import StallLimit


class BenchCeiling(Frozen):
    """A ceiling at one point."""

    text: str
    decision: Decision
    value: float | None
    limit: float
    margin_ratio: float


class BenchRow(Frozen):
    """One point, measured. `invalid`: why the client, and not the server, spoilt it; None if it did not.

    `asked_input_tokens`: the prompt tokens that were made, of the requests that the server counted; the
    server's count less this is a chat template's or a gateway's doing.
    """

    sweep: Sweep
    x: float
    label: str
    workload: Workload
    load: LoadPoint
    figures: Breakdown
    asked_input_tokens: int
    ceilings: tuple[BenchCeiling, ...]
    client: dict[str, Any] | None
    invalid: str | None

    @property
    def template_tokens(self) -> float:
        """Prompt tokens per request that the server counted beyond those that were made."""
        return (self.figures.input_tokens - self.asked_input_tokens) / max(self.figures.sent, 1)


class SearchResult(Frozen):
    """The largest load that kept the ceilings and the smallest that missed; None if none did.

    `was_spoilt`: at the latter the client, and not the server, was at its end. `is_undecided`: at the former
    a ceiling was kept by its value, but by too few requests to say so.
    """

    kind: str
    kept: float | None
    missed: float | None
    was_spoilt: bool = False
    is_undecided: bool = False


class BenchReport(Frozen):
    """All points of one call."""

    url: str
    model: str
    version: str
    began: str
    rows: tuple[BenchRow, ...]
    search: SearchResult | None = None
    notes: tuple[str, ...] = ()
    is_simulated: bool = False

    @property
    def has_missed(self) -> bool:
        """Whether a ceiling was missed, or the client spoilt a point that has ceilings.

        What is undecided after one measurement counts by its value.
        Those of a search are there to be missed at some point; it misses if no load keeps them.
        """
        swept = [row for row in self.rows if row.sweep is not Sweep.SEARCH]
        return any(map(_misses, swept)) or (self.search is not None and self.search.kept is None)


def _misses(row: BenchRow) -> bool:
    if row.invalid is not None:
        return bool(row.ceilings)
    return any(each.decision is Decision.MISSED or each.margin_ratio < 0 for each in row.ceilings)


def row_of(
    point: BenchPoint, offered: OfferedLoad, result: LoadResult, ceilings: tuple[str, ...], stall: StallLimit
) -> BenchRow:
    """Return what a point's result says."""
    measurement = measure(result.records, concurrency=point.load.concurrency)
    asked = {request.index: request.input_tokens for request in offered.requests[: _most_index(result) + 1]}
    return BenchRow(
        sweep=point.sweep,
        x=point.x,
        label=point.label,
        workload=point.workload,
        load=point.load,
        figures=break_down(measurement, stall, request_limits_s(ceilings, point.load.label) or None),
        asked_input_tokens=sum(asked[record.index] for record in result.records),
        ceilings=judged(point, measurement, ceilings),
        client=None if result.client is None else asdict(result.client),
        invalid=invalid_reason(result, offered),
    )


def judged(point: BenchPoint, measurement: Measurement, texts: tuple[str, ...]) -> tuple[BenchCeiling, ...]:
    """Return how a point stands to its ceilings, decided as a study decides them."""
    label = point.load.label
    slo = Slo.model_validate(
        {
            "workload": point.workload,
            "load": [point.load],
            "ceilings": [f"{text} at {label}" for text in texts],
            "objective": f"maximise output_throughput at {label}",
        }
    )
    return tuple(
        BenchCeiling(
            text=text,
            decision=verdict.decision,
            value=verdict.value,
            limit=verdict.limit,
            margin_ratio=verdict.margin_ratio,
        )
        for text, verdict in zip(texts, judge(slo, {label: measurement}).ceilings, strict=True)
    )


def request_limits_s(texts: tuple[str, ...], label: str) -> dict[Metric, float]:
    """Return what the ceilings allow one request: their limits on ttft, tpot and e2e, for goodput."""
    ceilings = [parse_ceiling(f"{text} at {label}") for text in texts]
    per_request = (Metric.TTFT, Metric.TPOT, Metric.E2E)
    return {
        each["quantity"].metric: each["limit"]
        for each in ceilings
        if each["quantity"].metric in per_request and not each["is_floor"]
    }


def _most_index(result: LoadResult) -> int:
    return max((record.index for record in result.records), default=-1)
