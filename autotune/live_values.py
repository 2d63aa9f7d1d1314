"""Further candidates on an engine that serves already: they differ from its own in a flag it can change.

In: the measuring of the candidate that the engine was launched for, and orders. Out: `TrialRecord`s without a
launch. Talks to the engine, between load points only. Invariants: what was launched stands, whatever happens
here; a value that no load can tell from the launched one is not measured; a flag is set back after each,
unless the engine does not do as told any more.
"""

from dataclasses import dataclass, field, replace

from autotune.engine.dialect import EffectiveFlags, LiveFlag
from autotune.errors import LoadError
from autotune.failure import EngineError, LiveRefusedError
from autotune.measuring import Measuring
from autotune.order import LiveValue, TimeIsUpError, TrialOrder
from autotune.record import Outcome, TrialRecord

MOST = 2
"""How many further values are measured on an engine: a third tells less than a launch elsewhere."""


@dataclass
class LiveValues:
    """What is measured live on one engine.

    `host`: the measuring of its own candidate, which took `load_s`. `is_simulated`: as in the record.
    """

    host: Measuring
    load_s: float
    is_simulated: bool
    records: list[TrialRecord] = field(default_factory=list)

    def measure(self) -> None:
        """Measure the first `MOST` of the ordered candidates that tell something, while there is time.

        One that goes wrong is INVALID, since nobody knows whether it is to blame, and the last one. One that
        the time did not suffice for leaves nothing.
        """
        for order in self.host.order.then:
            if len(self.records) == MOST or self.host.time.left_s < self.load_s:
                return
            if order.live is None or (flag := self._telling(order.live)) is None:
                continue
            began_s = self._now_s()
            try:
                self.records.append(self._measured(order, order.live, flag))
            except TimeIsUpError:
                return
            except (LiveRefusedError, LoadError, EngineError) as error:
                spoilt = self._record(order, Outcome.INVALID, began_s)
                self.records.append(spoilt.model_copy(update={"reason": str(error)}))
                return

    def _telling(self, live: LiveValue) -> LiveFlag | None:
        """Return the flag to change, None if it cannot be, or if its limit is never reached."""
        flag = self.host.engine.live_flags.get(live.flag)
        if flag is None or not flag.minimum <= live.value < flag.maximum:
            return None
        is_same = flag.part_of(live.value) == flag.part_of(flag.maximum)
        return None if is_same or live.value >= self.host.peak_in_flight else flag

    def _measured(self, order: TrialOrder, live: LiveValue, flag: LiveFlag) -> TrialRecord:
        engine, began_s = self.host.engine, self._now_s()
        measuring = replace(
            self.host,
            order=order,
            on_phase=lambda phase: self.host.on_phase(f"{phase}, {live.flag} {live.value}"),
            measurements={},
            points={},
        )
        engine.flush_cache()  # it waits until a load that was stopped has left
        effective = engine.set_live(live.flag, live.value)
        measuring.measure_points()
        engine.flush_cache()
        engine.set_live(live.flag, flag.maximum)
        record = self._record(order, Outcome.MEASURED, began_s, effective)
        return measuring.with_result(record.model_copy(update={"points": tuple(measuring.points.values())}))

    def _record(
        self, order: TrialOrder, outcome: Outcome, began_s: float, effective: EffectiveFlags | None = None
    ) -> TrialRecord:
        return TrialRecord(
            outcome=outcome,
            role=order.role,
            candidate=order.candidate.to_dict(),
            is_simulated=self.is_simulated,
            began_s=began_s,
            durations_s={"load": self._now_s() - began_s},
            effective=effective,
            measured_live_on=order.number,
            nodes=order.nodes,
            slots=order.slots,
        )

    def _now_s(self) -> float:
        return self.host.time.clock.now_s()
