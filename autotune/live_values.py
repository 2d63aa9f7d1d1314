"""Further candidates on an engine that serves already: they differ from its own in a flag it can change.

In: the measuring of the candidate that the engine was launched for, and orders. Out: `TrialRecord`s without a
launch. Talks to the engine, between load points only. Invariants: what was launched stands, whatever happens
here; a value that no load can tell from the launched one is not measured; a flag is set back after each,
unless the engine does not do as told any more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from autotune.engine.dialect import EffectiveFlags
from autotune.errors import LoadError
from autotune.failure import EngineError, LiveRefusedError
from autotune.measuring import Measuring
from autotune.order import LiveValue, TimeIsUpError, TrialOrder
from autotune.record import Outcome, TrialRecord

NextLive: TypeAlias = Callable[[Sequence[TrialRecord], Sequence[TrialOrder]], TrialOrder | None]
"""Which of some orders is measured next, given the records of this engine so far; None: none of them."""


@dataclass
class LiveValues:
    """What is measured live on one engine.

    `host`: the measuring of its own candidate, of which `record` is known so far. `choose`: who says what is
    next.
    """

    host: Measuring
    record: TrialRecord
    choose: NextLive
    records: list[TrialRecord] = field(default_factory=list)

    def measure(self) -> None:
        """Measure those of the ordered candidates that are chosen and tell something, while there is time.

        One that goes wrong is INVALID, since nobody knows whether it is to blame, and the last one. One that
        the time did not suffice for leaves nothing.
        """
        left = [order for order in self.host.order.then if order.live and self._tells(order.live)]
        while (order := self._next(left)) is not None:
            left.remove(order)
            began_s = self._now_s()
            try:
                self.records.append(self._measured(order))
            except TimeIsUpError:
                return
            except (LiveRefusedError, LoadError, EngineError) as error:
                spoilt = self._record(order, Outcome.INVALID, began_s)
                self.records.append(spoilt.model_copy(update={"reason": str(error)}))
                return

    def _next(self, left: Sequence[TrialOrder]) -> TrialOrder | None:
        """Return what is measured next, None if nothing is, or the time would not suffice."""
        if not left or self.host.time.left_s < self.record.durations_s["load"]:
            return None
        return self.choose((self.record, *self.records), left)

    def _tells(self, live: LiveValue) -> bool:
        """Whether the flag can be set so, and the load can tell: not a limit that is never reached."""
        flag = self.host.engine.live_flags.get(live.flag)
        if flag is None or not flag.minimum <= live.value < flag.maximum:
            return False
        is_same = flag.part_of(live.value) == flag.part_of(flag.maximum)
        return not is_same and live.value < self.host.peak_in_flight

    def _measured(self, order: TrialOrder) -> TrialRecord:
        engine, live, began_s = self.host.engine, order.live, self._now_s()
        assert live is not None  # noqa: S101 - it tells something
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
        engine.set_live(live.flag, engine.live_flags[live.flag].maximum)
        record = self._record(order, Outcome.MEASURED, began_s, effective)
        return measuring.with_result(record.model_copy(update={"points": tuple(measuring.points.values())}))

    def _record(
        self, order: TrialOrder, outcome: Outcome, began_s: float, effective: EffectiveFlags | None = None
    ) -> TrialRecord:
        return TrialRecord(
            outcome=outcome,
            role=order.role,
            candidate=order.candidate.to_dict(),
            is_simulated=self.record.is_simulated,
            began_s=began_s,
            durations_s={"load": self._now_s() - began_s},
            effective=effective,
            measured_live_on=order.number,
            nodes=order.nodes,
            slots=order.slots,
        )

    def _now_s(self) -> float:
        return self.host.time.clock.now_s()
