"""Runs an engine as processes of this machine, one for each rank, and leaves nothing of it behind.

In: a launch plan whose nodes are all this machine. Out: a running engine, its logs in the trial's folder.
Talks to the operating system and to the engine's control pages. Whatever happens inside the context, at its
end no process of the trial lives and its ports and GPUs are free, or an InfrastructureError says what holds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from autotune.engine.gpu_memory import driver_of, held_gpus
from autotune.engine.launch_watch import LaunchWatch, MonotonicClock, Patience, WatchedEngine
from autotune.engine.launcher import Clock
from autotune.engine.phase_budgets import PhaseBudgets
from autotune.engine.plan import LaunchPlan
from autotune.engine.preloaded import Preloading
from autotune.engine.process_launch import Launch, StartProcess, held_ports, spawn
from autotune.engine.process_tree import described, is_local, kill_until_gone, living, marked, names_of
from autotune.errors import InfrastructureError
from autotune.failure import StartPhase
from autotune.uninterrupted import signals_held


class ProcessLauncher:
    """Starts engines on this machine."""

    def __init__(self, patience: Patience | None = None, *, preload_program: Path | None = None) -> None:
        """With a dialect's `preload_program` the engine is imported once, and each launch forked from it."""
        self._patience = patience or Patience()
        self._start_process: StartProcess = (
            spawn if preload_program is None else Preloading(preload_program).start
        )
        self._clock = MonotonicClock()
        self._budgets = PhaseBudgets(self._patience.phases)

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
    ) -> Iterator[WatchedEngine]:
        """Start the planned engine, wait until it is ready, and stop it when the context ends.

        Raises:
            EngineError: the engine failed to become ready.
            InfrastructureError: a node is another machine, a port or a GPU is held, or something survived.
        """
        _refuse_other_machines(plan)
        _refuse_what_is_held(plan)
        watch = LaunchWatch(plan, on_phase, self._clock, self._patience, self._budgets)
        launch = Launch(watch, folder, self._patience, self._start_process)
        try:
            launch.start()
            watch.await_ready()
            yield WatchedEngine(watch, self._patience, driver=driver_of(plan))
        finally:
            with signals_held():
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


def _refuse_other_machines(plan: LaunchPlan) -> None:
    for rank in plan.ranks:
        if not is_local(rank.node.address):
            raise InfrastructureError(
                f"{rank.node.name} ({rank.node.address}) is not this machine; "
                "launcher: process starts engines on this machine only"
            )


def _refuse_what_is_held(plan: LaunchPlan) -> None:
    held = [*held_ports(plan), *held_gpus(plan)]
    if held:
        raise InfrastructureError(f"before the launch, {'; '.join(held)}")
