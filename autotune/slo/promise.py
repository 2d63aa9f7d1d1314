"""The promise to users: workload, load points, ceilings, objectives. Pure.

In: `slo/*.yaml`. Out: `Slo`. Invariant: every ceiling and objective refers to a load point of the file.
"""

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from autotune.document import Frozen, KeyPath, Misplaced, refuse
from autotune.errors import did_you_mean
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload
from autotune.metrics import Metric
from autotune.slo.ceiling import Ceiling, Objective


class Slo(Frozen):
    """Workload, load points, ceilings and one or several objectives."""

    workload: Workload
    load: tuple[LoadPoint, ...] = Field(min_length=1)
    ceilings: tuple[Ceiling, ...] = ()
    objective: Objective | None = None
    objectives: tuple[Objective, ...] = ()

    @model_validator(mode="after")
    def _parts_refer_to_each_other(self) -> Self:
        refuse([*self._misplaced_objectives(), *self._repeated_loads(), *self._unknown_loads()])
        return self

    def _misplaced_objectives(self) -> Iterator[Misplaced]:
        if (self.objective is None) == (not self.objectives):
            key = "objectives" if self.objectives else "objective"
            remedy = "Write it like 'objective: maximise output_throughput at concurrency 50'."
            message = "give either objective (one line) or objectives (a list)"
            yield Misplaced(message, at=(key,), remedy=remedy)
        quantities = [objective.quantity for objective in self.objectives]
        for index, quantity in enumerate(quantities):
            if quantity in quantities[:index]:
                message = f"a second objective on {quantity}"
                yield Misplaced(message, at=("objectives", index), remedy="Keep one of them.")

    def _repeated_loads(self) -> Iterator[Misplaced]:
        labels = [point.label for point in self.load]
        for index, label in enumerate(labels):
            if label in labels[:index]:
                yield Misplaced(f"two load points are both {label!r}", at=("load", index))

    def _unknown_loads(self) -> Iterator[Misplaced]:
        labels = [point.label for point in self.load]
        lines: list[tuple[KeyPath, Ceiling | Objective]] = [
            *((("ceilings", index), ceiling) for index, ceiling in enumerate(self.ceilings)),
            *((("objectives", index), objective) for index, objective in enumerate(self.objectives)),
        ]
        if self.objective is not None:
            lines.append((("objective",), self.objective))
        for at, line in lines:
            load = line.quantity.load
            if load not in labels:
                remedy = did_you_mean(load, labels) or f"There are {', '.join(labels)}."
                yield Misplaced(f"{line.text!r} names no load point of this file", at=at, remedy=remedy)

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives, at least one."""
        return self.objectives if self.objective is None else (self.objective,)

    def request_limits_s(self, load: str) -> dict[Metric, float]:
        """Return the per-request ceilings at a load point, which define its goodput."""
        return {
            ceiling.quantity.metric: ceiling.limit
            for ceiling in self.ceilings
            if ceiling.quantity.load == load
            and ceiling.quantity.metric in (Metric.TTFT, Metric.TPOT, Metric.E2E)
        }
