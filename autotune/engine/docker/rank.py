"""One rank in its container while it lives: asked for its state again and again, its log copied.

In: a started container. Out: what a `LaunchWatch` wants to know of a rank. Talks to the Docker engine in two
threads, so that a node that does not answer holds nobody up. Invariant: no answer is never taken for an end;
a node is called lost only after it was silent for as long as `Endurance` says.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from autotune.engine.docker.faults import GoneError, NodeError, UnreachableError
from autotune.engine.docker.link_watch import LinkWatch
from autotune.engine.docker.log_copy import LogCopy
from autotune.engine.docker.node import ContainerState, DockerNode
from autotune.engine.log_watch import LogWatch, Verdict
from autotune.engine.plan import RankPlan
from autotune.failure import FailureKind


@dataclass(frozen=True)
class Endurance:
    """How long a node may be silent. `refused_s`: its machine answers and its Docker engine does not.

    A Docker engine is back 1.5 to 2 s after it was killed, and its containers may have gone on meanwhile.
    """

    poll_s: float = 0.25
    refused_s: float = 4.0
    silent_s: float = 8.0
    log_s: float = 3.0


class ContainerRank:
    """One rank. Watched between `start` and `stop`."""

    def __init__(
        self,
        plan: RankPlan,
        node: DockerNode,
        container: str,
        *,
        watch: LogWatch,
        log: Path,
        endurance: Endurance,
        link: LinkWatch | None = None,
    ) -> None:
        self.plan = plan
        self.watch = watch
        self.node = node
        self.container = container
        self._endurance = endurance
        self._link = link
        self._is_cut = False
        self._state: ContainerState | None = None
        self._is_gone = False
        self._silence: tuple[float, UnreachableError] | None = None
        self._asked = 0
        self._answered = 0
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._is_urgent = threading.Event()
        self._poller = threading.Thread(target=self._poll, name=f"state of {plan.name}", daemon=True)
        self._log = LogCopy(node.connection, container, log, lambda: self.is_alive)

    def start(self) -> None:
        """Begin to watch."""
        self._poller.start()
        self._log.start()

    def stop(self) -> None:
        """Take in the rest of the log, and stop watching."""
        self._log.finish(self._endurance.log_s)
        self._stopped.set()
        self._is_urgent.set()
        self._poller.join()

    # ---- what a LaunchWatch asks

    @property
    def exit_code(self) -> int | None:
        """How it ended."""
        return None if self._state is None else self._state.exit_code

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return not self._is_gone and (self._state is None or self._state.is_running)

    @property
    def outer_cause(self) -> Verdict | None:
        """Why it ended or is lost, where Docker knows better than the log."""
        if self._is_gone:
            return Verdict(f"container {self.plan.name} was removed by somebody", FailureKind.CRASHED)
        lost = self._lost()
        if lost is not None:
            return lost
        if self._link is not None and self._is_cut:
            line = f"{self.plan.node.name} does not reach {self._link.peer} any more"
            return Verdict(line, FailureKind.NODE_LOST)
        state = self._state
        if state is not None and not state.is_running and state.was_out_of_memory:
            line = f"the kernel killed a process of {self.plan.name}: its memory limit is reached"
            return Verdict(line, FailureKind.CONTAINER_OUT_OF_MEMORY)
        return None

    def settle(self) -> None:
        """Wait for an answer to a question asked from now on, or for the node to count as lost."""
        if self.is_alive:
            self._await_answer()
        if not self.is_alive and not self._is_gone:
            self._log.await_end(self._endurance.log_s)

    def _await_answer(self) -> None:
        with self._changed:
            asked = self._asked
            self._is_urgent.set()
            self._changed.wait_for(
                lambda: self._answered > asked or self._lost() is not None or self._is_gone,
                self._most_silent_s,
            )

    def await_end(self, patience_s: float) -> bool:
        """Wait until it has ended or is lost; return whether it has."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_alive or self._lost() is not None, patience_s)
        return not self.is_alive

    # ---- in the poller's thread

    @property
    def _most_silent_s(self) -> float:
        return self._endurance.silent_s + 2 * self._endurance.refused_s

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self._asked += 1
            self._ask(self._asked)
            self._is_urgent.wait(self._endurance.poll_s)
            self._is_urgent.clear()

    def _ask(self, number: int) -> None:
        try:
            state = self.node.state(self.container)
            self._is_cut = self._link is not None and state.is_running and self._link.is_cut()
        except GoneError:
            self._take(is_gone=True)
        except UnreachableError as error:
            with self._changed:
                since_s = time.monotonic() if self._silence is None else self._silence[0]
                self._silence = (since_s, error)
                self._changed.notify_all()
        except NodeError:
            return  # the engine answers, and is in trouble: ask again
        else:
            self._take(state=state, number=number)

    def _take(self, *, state: ContainerState | None = None, is_gone: bool = False, number: int = 0) -> None:
        was_silent = self._silence is not None
        with self._changed:
            self._state = state or self._state
            self._is_gone = is_gone
            self._answered = number
            self._silence = None
            self._changed.notify_all()
        if was_silent:
            self._log.reconnect()

    def _lost(self) -> Verdict | None:
        if self._silence is None:
            return None
        since_s, error = self._silence
        most_s = self._endurance.refused_s if error.is_refused else self._endurance.silent_s
        silent_s = time.monotonic() - since_s
        if silent_s < most_s or error.kind is None:
            return None
        return Verdict(f"lost for {silent_s:.1f} s: {error}", error.kind)
