"""The seam between a trial and whatever runs its engine: launchers, running engines and their failures.

A launcher takes a `LaunchPlan` and gives a `RunningEngine` inside a context manager that tears everything
down on any exception. Two implementations: `process.py` (real servers) and `simulated.py` (virtual time).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autotune.engine.dialect import EffectiveFlags, LiveFlag
from autotune.engine.plan import LaunchPlan
from autotune.failure import EngineFailure, StartPhase
from autotune.request import Endpoint


@dataclass(frozen=True)
class HttpAddress:
    """A server to be loaded over HTTP; prompts are drawn from token ids below `vocabulary_size`."""

    base_url: str
    vocabulary_size: int


class RunningEngine(Protocol):
    """An engine that is ready to serve, until its context manager ends."""

    @property
    def effective(self) -> EffectiveFlags:
        """The flags read back from the engine."""
        ...

    @property
    def phases_s(self) -> dict[StartPhase, float]:
        """Seconds spent in each start phase that was seen."""
        ...

    @property
    def address(self) -> HttpAddress | Endpoint:
        """Where to send load: a URL, or (in virtual time) the endpoint itself."""
        ...

    def flush_cache(self) -> None:
        """Empty the prefix cache; the engine must be idle.

        Raises:
            EngineError: the engine refused or is gone.
        """
        ...

    def abort_requests(self) -> None:
        """Drop every request that a load has left queued or running; `flush_cache` waits until all are gone.

        Raises:
            EngineError: the engine is gone.
        """
        ...

    @property
    def live_flags(self) -> Mapping[str, LiveFlag]:
        """The flags that `set_live` changes on this engine, with their bounds."""
        ...

    def set_live(self, name: str, value: int) -> EffectiveFlags:
        """Set one of `live_flags` while the engine is idle; return what it runs with from now on.

        Raises:
            LiveRefusedError: it cannot be set so, or was not.
            EngineError: the engine is gone.
        """
        ...

    def failure(self) -> EngineFailure | None:
        """Return why the engine died or hangs, None while it is healthy; cheap enough to poll."""
        ...


class Clock(Protocol):
    """Seconds that pass for a study: monotonic for real engines, virtual for simulated ones."""

    def now_s(self) -> float:
        """Return seconds since an arbitrary start."""
        ...

    def idle_until(self, moment_s: float) -> None:
        """Let nothing happen until a moment; time that passes by itself needs no help."""
        ...


class Launcher(Protocol):
    """Starts engines. Leaves nothing behind: no process, no port, no file outside the trial's folder."""

    @property
    def clock(self) -> Clock:
        """The clock its engines live on."""
        ...

    @property
    def is_simulated(self) -> bool:
        """Whether the numbers come from a model instead of a measurement."""
        ...

    def remove_leftovers(self, study: str) -> tuple[str, ...]:
        """Remove what an earlier controller of this study left running; return a name for each.

        Raises:
            InfrastructureError: something of this study cannot be removed.
        """
        ...

    def launch(
        self, plan: LaunchPlan, folder: Path, on_phase: Callable[[StartPhase], None]
    ) -> AbstractContextManager[RunningEngine]:
        """Start the planned engine, wait until it is ready, and stop it when the context ends.

        Logs go to `folder/engine-rank<N>.log`. `on_phase` is called as each start phase begins.

        Raises:
            EngineError: the engine failed to become ready.
            InfrastructureError: the node cannot run any engine (port held by a stranger, leftovers).
        """
        ...
