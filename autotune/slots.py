"""Where trials run: slots, each a group of nodes with a launcher of its own that runs one trial at a time.

In: trials to run. Out: those that end, in the order in which they do on the study's clock. Talks to threads,
one for each running trial, if there are several slots of real engines; else all happens in the caller's own.
Invariants: a slot runs one trial at a time; when the context has ended, however it did, nothing runs any
more; a slot in quarantine runs nothing.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from autotune.engine.launcher import Launcher
from autotune.errors import InfrastructureError
from autotune.record import TrialRecord
from autotune.search.confirmation import Turn
from autotune.search.ledger import AskedTrial
from autotune.study import Study
from autotune.uninterrupted import signals_held

Records: TypeAlias = tuple[TrialRecord, ...]
"""What `trial.run_trial` returns: that of the trial, then those of what was measured live on its engine."""


@dataclass
class Slot:
    """One place for an engine.

    `nodes`: their names, none if the study has one slot only; `study`: as it is on these nodes; `asked`: the
    trial that runs here, begun at `began_s`; `quarantine`: why no more trial does.
    """

    nodes: tuple[str, ...]
    study: Study
    launcher: Launcher
    asked: AskedTrial | None = None
    began_s: float = 0.0
    job: "Future[Records] | None" = None
    quarantine: str | None = None

    @property
    def now_s(self) -> float:
        """The moment on its launcher's clock."""
        return self.launcher.clock.now_s()

    def take(self) -> Records:
        """Return the record of the trial that has ended, and those of what was measured live; be free.

        Raises:
            BaseException: what ended the trial instead; the slot is not free then.
        """
        assert self.job is not None  # noqa: S101 - it was begun
        records = self.job.result()
        self.asked, self.job = None, None
        return records


class Slots:
    """All slots of a study, open within its context."""

    def __init__(self, study: Study, launchers: Sequence[Launcher]) -> None:
        spaces = study.space.slots
        names = [tuple(node.name for node in space.nodes) for space in spaces]
        self._all = [
            Slot(nodes if len(spaces) > 1 else (), study.model_copy(update={"space": space}), launcher)
            for nodes, space, launcher in zip(names, spaces, launchers, strict=True)
        ]
        has_threads = len(spaces) > 1 and not launchers[0].is_simulated
        self._pool = ThreadPoolExecutor(len(spaces), "slot") if has_threads else None
        self._is_called_off = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Call off what still runs, and wait until it has cleaned up."""
        self._is_called_off.set()
        if self._pool is not None:
            with signals_held():
                self._pool.shutdown()

    @property
    def is_simulated(self) -> bool:
        """Whether engines are simulated."""
        return self._all[0].launcher.is_simulated

    @property
    def usable(self) -> list[Slot]:
        """The slots that are not in quarantine."""
        return [slot for slot in self._all if slot.quarantine is None]

    @property
    def free(self) -> list[Slot]:
        """The usable slots that run nothing."""
        return [slot for slot in self.usable if slot.asked is None]

    @property
    def busy(self) -> list[Slot]:
        """The slots that run a trial."""
        return [slot for slot in self._all if slot.asked is not None]

    @property
    def running(self) -> list[AskedTrial]:
        """The trials that run."""
        return [slot.asked for slot in self._all if slot.asked is not None]

    @property
    def unfinished(self) -> list[tuple[AskedTrial, float]]:
        """The trials that were not taken, and how long each has run."""
        return [(slot.asked, slot.now_s - slot.began_s) for slot in self._all if slot.asked is not None]

    @property
    def now_s(self) -> float:
        """The study's time: a simulated slot that is busy is ahead of it already."""
        return max(slot.now_s for slot in self.free or self._all)

    @property
    def quarantined(self) -> dict[str, str]:
        """Why slots are out of use, by their nodes."""
        return {" ".join(slot.nodes): slot.quarantine for slot in self._all if slot.quarantine is not None}

    def is_called_off(self) -> bool:
        """Whether all trials are to end."""
        return self._is_called_off.is_set()

    def turn_of(self, slot: Slot) -> Turn:
        """Return whose turn it is to launch something afresh."""
        usable = tuple(each.nodes for each in self.usable)
        return Turn(slot.nodes, usable, frozenset(each.nodes for each in self.busy))

    def begin(self, slot: Slot, asked: AskedTrial, work: Callable[[], Records]) -> None:
        """Run a trial on a free slot.

        Raises:
            BaseException: what ended it, if it runs in this thread and no node is to blame.
        """
        slot.launcher.clock.idle_until(self.now_s)
        slot.asked, slot.began_s = asked, slot.now_s
        slot.job = _done(work) if self._pool is None else self._pool.submit(work)

    def next_ended(self) -> tuple[Slot, AskedTrial, float]:
        """Wait for the next trial to end; return its slot, the trial, and the seconds it took."""
        jobs = {slot.job: slot for slot in self.busy if slot.job is not None}
        ended = wait(jobs, return_when=FIRST_COMPLETED).done
        slot = min((jobs[job] for job in ended), key=lambda slot: slot.now_s)
        assert slot.asked is not None  # noqa: S101 - it was busy
        return slot, slot.asked, slot.now_s - slot.began_s

    def put_in_quarantine(self, slot: Slot, error: InfrastructureError) -> None:
        """Use a slot no more.

        Raises:
            InfrastructureError: it was the last one.
        """
        if len(self._all) == 1:
            raise error
        slot.quarantine = str(error)
        if not self.usable:
            reasons = "\n".join(f"    {nodes}: {reason}" for nodes, reason in self.quarantined.items())
            raise InfrastructureError(f"no node is left that serves this study\n{reasons}") from error


def _done(work: Callable[[], Records]) -> "Future[Records]":
    """Run a trial at once, in this thread, which Ctrl-C interrupts; blame on a node is kept for later."""
    job: Future[Records] = Future()
    try:
        job.set_result(work())
    except InfrastructureError as error:
        job.set_exception(error)
    return job
