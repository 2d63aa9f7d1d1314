"""How TTFT and ITL are distributed over the requests of the baseline and its rival, from the raw records.

In: a `StudyHistory`, whose folder holds the raw files. Out: one chart a metric and load point: the share of
samples up to a latency. Reads the disk. Invariant: what cannot be read is said, never left out in silence.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autotune.errors import StudyError
from autotune.load.arrivals import LoadPoint
from autotune.load.records_file import read_records
from autotune.metrics import Metric, measure
from autotune.report.chart import Axis, Chart, Limit, Look, Plot, Series, key_of, load_text
from autotune.report.language import say
from autotune.report.plots.pair import Named, pair_of
from autotune.report.seen import Measurements

_NAMED = 3
"""Lost files that are named."""
_SHARES = np.unique(
    np.concatenate([np.linspace(0, 1, 81), np.linspace(0.9, 1, 41), np.linspace(0.99, 1, 21)])
)


def distribution_plot(measurements: Measurements) -> Plot | None:
    """Return the distributions; None without a measured candidate."""
    slo = measurements.history.study.slo
    charts: list[Chart] = []
    lost: set[str] = set()
    for point in slo.load:
        for metric in (Metric.TTFT, Metric.ITL):
            chart = _chart(measurements, point, metric, lost)
            if chart.series:
                charts.append(chart)
    if not charts and not lost:
        return None
    note = say("The share of samples that were at most so long, over all launches of a candidate.")
    names = ", ".join(sorted(lost)[:_NAMED])
    gone = say("{count} files of raw records cannot be read: {names}.", count=len(lost), names=names)
    return Plot(
        "distributions", say("Distributions of latency"), f"{note} {gone}" if lost else note, tuple(charts)
    )


def _chart(measurements: Measurements, point: LoadPoint, metric: Metric, lost: set[str]) -> Chart:
    name = say("{what} at {load}", what=metric, load=load_text(point.label))
    return Chart(
        key=key_of(metric, point.label),
        name=name,
        x=Axis(name, "s", is_log=True),
        y=Axis(say("share of samples"), "ratio"),
        series=tuple(_curves(measurements, point, metric, lost)),
        limits=_limits(measurements, point, metric),
    )


def _curves(measurements: Measurements, point: LoadPoint, metric: Metric, lost: set[str]) -> Iterator[Series]:
    for named in pair_of(measurements.history):
        values_s = _values(measurements, named, point, metric, lost)
        if len(values_s):
            yield Series(
                name=named.name,
                look=Look.LINE,
                x=[float(value) for value in np.quantile(values_s, _SHARES)],
                y=[float(share) for share in _SHARES],
                colour=named.colour,
                symbol="none",
            )


def _values(
    measurements: Measurements, named: Named, point: LoadPoint, metric: Metric, lost: set[str]
) -> NDArray[np.float64]:
    """Return the samples above 0 (the axis is logarithmic) of every launch whose raw file is there."""
    found: list[NDArray[np.float64]] = [np.empty(0)]
    for record in measurements.all_launches(named.trial):
        kept = record.point(point.label)
        if kept is None:
            continue
        try:
            result = read_records(measurements.history.folder / kept.file)
        except (OSError, StudyError):
            lost.add(kept.file)
            continue
        found.append(measure(result.records, concurrency=point.concurrency).samples(metric).values)
    values_s = np.concatenate(found)
    return values_s[values_s > 0]


def _limits(measurements: Measurements, point: LoadPoint, metric: Metric) -> tuple[Limit, ...]:
    return tuple(
        Limit(each.text, "x", each.limit)
        for each in measurements.history.study.slo.ceilings
        if each.quantity.load == point.label and each.quantity.metric is metric
    )
