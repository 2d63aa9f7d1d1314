"""Latency and throughput against the offered load, of the baseline and its rival, with the ceilings. Pure.

In: a `StudyHistory`. Out: one chart a statistic, over all launches of either candidate.
"""

from collections.abc import Sequence

from autotune.load.arrivals import LoadPoint
from autotune.metrics import Metric
from autotune.report.chart import Axis, Chart, Look, Plot, Series, key_of, load_text, statistic_text, unit_of
from autotune.report.language import say
from autotune.report.plots.pair import Named, pair_of
from autotune.report.seen import Measurements
from autotune.slo import Quantity, Slo

_SHOWN = (
    (Metric.TTFT, "p95"),
    (Metric.TTFT, "p50"),
    (Metric.TPOT, "p95"),
    (Metric.ITL, "p99"),
    (Metric.E2E, "p95"),
    (Metric.OUTPUT_THROUGHPUT, None),
)


def load_plot(measurements: Measurements) -> Plot | None:
    """Return the curves, None without a measured candidate."""
    slo = measurements.history.study.slo
    pair = pair_of(measurements.history)
    kinds = dict.fromkeys(
        [*((each.quantity.metric, each.quantity.statistic) for each in slo.ceilings), *_SHOWN]
    )
    charts = [_chart(measurements, pair, metric, statistic) for metric, statistic in kinds]
    drawn = tuple(chart for chart in charts if any(each.look is Look.LINE for each in chart.series))
    note = say(
        "Bars are the range over all launches of a candidate and their intervals; dashes are ceilings."
    )
    return Plot("load", say("Latency against load"), note, drawn) if drawn else None


def _chart(measurements: Measurements, pair: Sequence[Named], metric: Metric, statistic: str | None) -> Chart:
    slo = measurements.history.study.slo
    curves = [_curve(measurements, named, metric, statistic) for named in pair]
    name = statistic_text(Quantity(metric=metric, statistic=statistic, load=slo.load[0].label))
    return Chart(
        key=key_of(metric, statistic),
        name=name,
        x=load_axis(slo),
        y=Axis(name, unit_of(metric)),
        series=(*(curve for curve in curves if curve), *_ceilings(slo, metric, statistic)),
    )


def load_axis(slo: Slo) -> Axis:
    """Return the axis of the load points: numbers if they are of one kind, else their names."""
    points = slo.load
    if all(point.concurrency is not None for point in points):
        return Axis(say("concurrency (requests in flight)"))
    if all(point.rate is not None for point in points):
        return Axis(say("offered rate"), "req/s")
    return Axis(say("load point"), labels=tuple(load_text(point.label) for point in points))


def _place(slo: Slo, point: LoadPoint) -> float:
    if load_axis(slo).labels:
        return float(slo.load.index(point))
    return float(point.concurrency or point.rate or 0)


def _curve(measurements: Measurements, named: Named, metric: Metric, statistic: str | None) -> Series | None:
    slo = measurements.history.study.slo
    found = []
    for point in sorted(slo.load, key=lambda point: _place(slo, point)):
        seen = measurements.of(named.trial, Quantity(metric=metric, statistic=statistic, load=point.label))
        if seen is not None:
            found.append((_place(slo, point), seen))
    if not found:
        return None
    return Series(
        name=named.name,
        look=Look.LINE,
        x=[place for place, _ in found],
        y=[seen.value for _, seen in found],
        colour=named.colour,
        symbol="circle" if named.colour else "star",
        trials=[named.trial.number] * len(found),
        y_low=[seen.low for _, seen in found],
        y_high=[seen.high for _, seen in found],
    )


def _ceilings(slo: Slo, metric: Metric, statistic: str | None) -> list[Series]:
    places = {point.label: _place(slo, point) for point in slo.load}
    return [
        Series(name=each.text, look=Look.LIMIT, x=[places[each.quantity.load]], y=[each.limit], colour=3)
        for each in slo.ceilings
        if (each.quantity.metric, each.quantity.statistic) == (metric, statistic)
    ]
