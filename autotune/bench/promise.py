"""An SLO file as something to bench: its workload, its load points, and the ceilings of each. Reads the file.

In: `slo.yaml`. Out: an `Slo` whose files (dataset, tokenizer, traces) are found beside it, and `BenchPoint`s.
Invariant: every ceiling of the file is judged at its own load point, and at no other.
"""

from pathlib import Path

from autotune.bench.points import BenchPoint, Sweep
from autotune.document import read_document
from autotune.load.workload import Workload
from autotune.slo import Slo


def read_slo(path: Path) -> Slo:
    """Return the SLO of a file; the paths in it are relative to its folder.

    Raises:
        ConfigError: with every problem that was found.
    """
    slo, folder = read_document(path).to_model(Slo), path.parent
    named = {"dataset": slo.workload.dataset, "tokenizer": slo.workload.tokenizer}
    whole = {key: folder / file for key, file in named.items() if file is not None}
    load = tuple(
        point if point.trace is None else point.model_copy(update={"trace": folder / point.trace})
        for point in slo.load
    )
    return slo.model_copy(update={"workload": slo.workload.model_copy(update=whole), "load": load})


def slo_points(slo: Slo, workload: Workload) -> list[BenchPoint]:
    """Return a point for each load of the SLO; the workload is the SLO's or a variant of it."""
    points = []
    for load in slo.load:
        is_closed = load.concurrency is not None
        sweep = Sweep.CONCURRENCY if is_closed else Sweep.RATE
        ceilings = tuple(
            ceiling.text.rpartition(" at ")[0]
            for ceiling in slo.ceilings
            if ceiling.quantity.load == load.label
        )
        points.append(BenchPoint(sweep, load.concurrency or load.rate or 0.0, workload, load, ceilings))
    return points
