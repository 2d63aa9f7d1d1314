"""Points measured one after another on one server.

In: a `Target` and points, or a range to search. Out: a `BenchReport`; a row is told as soon as it is there.
Talks to the server through the load generator. Invariants: prompts of different points, warm-ups included,
have nothing in common; a point that the client spoilt is measured once more, and stays marked if it is spoilt
again.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from autotune import __version__
from autotune.bench.points import Amount, BenchPoint, Sweep, concurrency_ladder, rate_point
from autotune.bench.rows import BenchReport, BenchRow, SearchResult, row_of
from autotune.bench.search import Range, largest_kept
from autotune.bench.target import Target
from autotune.load.client import HttpEndpoint
from autotune.load.workload import Workload, offer, warm_up
from autotune.request import Endpoint
from autotune.slo import Decision
from autotune.stalls import StallLimit

_TRIES = 2


@dataclass(frozen=True)
class Asked:
    """What holds for every point: ceilings without a load point (`ttft p95 < 10s`), and what a stall is."""

    ceilings: tuple[str, ...] = ()
    stall: StallLimit = field(default_factory=StallLimit)


@dataclass
class Bench:
    """Measures on one server; `rows` are the results so far. `endpoint_of` serves a workload's load."""

    target: Target
    asked: Asked
    endpoint_of: Callable[[Workload], Endpoint]
    on_begin: Callable[[BenchPoint], None]
    on_row: Callable[[BenchRow], None]
    rows: list[BenchRow] = field(default_factory=list)
    _began: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    _salts: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(self, points: Iterable[BenchPoint]) -> None:
        """Measure points in order.

        Raises:
            LoadError: this machine ran out of files, ports or memory.
        """
        for point in points:
            self.measure(point)

    def measure(self, point: BenchPoint) -> BenchRow:
        """Measure one point and keep its row."""
        self.on_begin(point)
        endpoint = self.endpoint_of(point.workload)
        endpoint.run(warm_up(point.workload, point.load, salt=next(self._salts)))
        row = self._row(point, endpoint)
        for _ in range(_TRIES - 1):
            if row.invalid is not None:
                row = self._row(point, endpoint)
        self.rows.append(row)
        self.on_row(row)
        return row

    def search(
        self, workload: Workload, where: Range, amount: Amount, arrivals: dict[str, object]
    ) -> SearchResult:
        """Find the largest concurrency (whole numbers) or rate whose ceilings are kept."""

        def keeps(level: float) -> bool:
            return _keeps(self.measure(_searched(workload, where, level, amount, arrivals)))

        found = largest_kept(keeps, where)
        return SearchResult(
            kind="concurrency" if where.is_whole else "rate",
            kept=found.kept,
            missed=found.missed,
            was_spoilt=any(row.invalid is not None and row.x == found.missed for row in self.rows),
            is_undecided=any(_is_undecided(row) and row.x == found.kept for row in self.rows),
        )

    def report(self, search: SearchResult | None = None, notes: Iterable[str] = ()) -> BenchReport:
        """Return everything measured so far."""
        return BenchReport(
            url=self.target.base_url,
            model=self.target.model,
            version=__version__,
            began=self._began,
            rows=tuple(self.rows),
            search=search,
            notes=tuple(notes),
            is_simulated=self.target.is_simulated,
        )

    def _row(self, point: BenchPoint, endpoint: Endpoint) -> BenchRow:
        self.target.flush()
        offered = offer(point.workload, point.load, salt=next(self._salts))
        result = endpoint.run(offered)
        ceilings = (*self.asked.ceilings, *point.ceilings)
        return row_of(point, offered, result, ceilings, self.asked.stall)


def http_endpoint(
    target: Target, on_progress: Callable[[int], None] | None = None
) -> Callable[[Workload], Endpoint]:
    """Return what loads a server with a workload; `on_progress` is told how many requests are over."""
    return lambda workload: HttpEndpoint(
        target.base_url,
        workload,
        model=target.model,
        vocabulary_size=target.vocabulary_size,
        headers=target.headers,
        on_progress=on_progress,
    )


def _searched(
    workload: Workload, where: Range, level: float, amount: Amount, arrivals: dict[str, object]
) -> BenchPoint:
    if where.is_whole:
        return concurrency_ladder(workload, [int(level)], amount, Sweep.SEARCH)[0]
    return BenchPoint(Sweep.SEARCH, level, workload, rate_point(level, amount, arrivals))


def _keeps(row: BenchRow) -> bool:
    """What is undecided after one measurement counts by its value; a spoilt or failed point keeps nothing."""
    is_kept = all(each.decision is not Decision.MISSED and each.margin_ratio >= 0 for each in row.ceilings)
    return is_kept and row.invalid is None and row.figures.succeeded > 0


def _is_undecided(row: BenchRow) -> bool:
    return any(each.decision is Decision.UNDECIDED for each in row.ceilings)
