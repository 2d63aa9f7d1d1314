"""Runs an engine as processes of this machine, one for each rank, and leaves nothing of it behind.

In: a launch plan whose nodes are all this machine. Out: a running engine, its logs in the trial's folder.
Talks to the operating system and to the engine's control pages. Whatever happens inside the context, at its
end no process of the trial lives and its ports can be bound again, or an InfrastructureError says what holds.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.http_api import NoAnswerError
from autotune.engine.launcher import Clock, HttpAddress
from autotune.engine.plan import LaunchPlan
from autotune.engine.process_launch import Launch, MonotonicClock, Patience, held_ports
from autotune.engine.process_tree import described, is_local, kill_until_gone, living, marked, names_of
from autotune.errors import InfrastructureError
from autotune.failure import EngineError, EngineFailure, StartPhase


class ProcessLauncher:
    """Starts engines on this machine."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._clock = MonotonicClock()

    @property
    def clock(self) -> Clock:
        """Real time."""
        return self._clock

    @property
    def is_simulated(self) -> bool:
        """Processes are measured."""
        return False

    @contextmanager
    def launch(
        self, plan: LaunchPlan, folder: Path, on_phase: Callable[[StartPhase], None]
    ) -> Iterator["ProcessEngine"]:
        """Start the planned engine, wait until it is ready, and stop it when the context ends.

        Raises:
            EngineError: the engine failed to become ready.
            InfrastructureError: a node is another machine, a port is held, or something survived.
        """
        _refuse_other_machines(plan)
        _refuse_held_ports(plan)
        launch = Launch(plan, folder, on_phase, self._clock, self._patience)
        try:
            launch.start()
            launch.await_ready()
            yield ProcessEngine(launch)
        finally:
            with _signals_held():
                launch.stop()

    def remove_leftovers(self, study: str) -> tuple[str, ...]:
        """Kill what a dead controller of the study left running; return what that was.

        Raises:
            InfrastructureError: something cannot be killed.
        """

        def find() -> list[psutil.Process]:
            return living(marked(lambda mark: mark.study == study and mark.is_orphaned))

        names = tuple(described(process) for process in find())
        left = kill_until_gone(find, self._patience.release_s)
        if left:
            raise InfrastructureError(f"leftovers of {study} cannot be killed: {names_of(left)}")
        return names


class ProcessEngine:
    """A running engine. Not to be used after its context has ended."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._effective = launch.effective()
        self._address = HttpAddress(launch.plan.base_url, launch.vocabulary_size())

    @property
    def effective(self) -> EffectiveFlags:
        """The flags read back from the engine."""
        return self._effective

    @property
    def phases_s(self) -> dict[StartPhase, float]:
        """Seconds spent in each start phase that was seen."""
        return self._launch.phases_s()

    @property
    def address(self) -> HttpAddress:
        """Where to send load."""
        return self._address

    def flush_cache(self) -> None:
        """Empty the prefix cache, waiting some seconds for requests that are still being ended.

        Raises:
            EngineError: the engine is busy or gone.
        """
        try:
            self._launch.api.flush_cache(self._launch.patience.flush_s)
        except NoAnswerError as error:
            raise EngineError(self._launch.failure_behind(error)) from error

    def failure(self) -> EngineFailure | None:
        """Return why the engine died, None while all its ranks live and none logged a cause to die."""
        return self._launch.failure()


def _refuse_other_machines(plan: LaunchPlan) -> None:
    for rank in plan.ranks:
        if not is_local(rank.node.address):
            raise InfrastructureError(
                f"{rank.node.name} ({rank.node.address}) is not this machine; "
                "launcher: process starts engines on this machine only"
            )


def _refuse_held_ports(plan: LaunchPlan) -> None:
    held = held_ports(plan)
    if held:
        raise InfrastructureError(f"before the launch, {'; '.join(held)}")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep Ctrl-C, SIGTERM and a hang-up from interrupting the clean-up; they take effect after it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted by them
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, disposition in before.items():
            signal.signal(number, disposition or signal.SIG_DFL)
        for late in dict.fromkeys(arrived):
            signal.raise_signal(late)
