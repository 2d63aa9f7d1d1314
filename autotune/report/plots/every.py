"""Every plot of a report in its order; the page, the pictures and their tables all begin here.

In: a `StudyHistory`. Out: plots. Reads raw records and may run the twin.
"""

from autotune.report.chart import Plot
from autotune.report.plots.distributions import distribution_plot
from autotune.report.plots.flags import importance_plot, slices_plot
from autotune.report.plots.load_curves import load_plot
from autotune.report.plots.plane import plane_plot
from autotune.report.plots.progress import progress_plot, timeline_plot
from autotune.report.seen import Measurements


def every_plot(measurements: Measurements) -> tuple[Plot, ...]:
    """Return the plots of a study, those left out that would be empty."""
    history = measurements.history
    importance = importance_plot(measurements)
    order = importance.charts[0].y.labels if importance.charts else ()
    found = (
        plane_plot(measurements),
        load_plot(measurements),
        distribution_plot(measurements),
        importance,
        slices_plot(measurements, order),
        progress_plot(history),
        timeline_plot(history),
    )
    return tuple(plot for plot in found if plot is not None)
