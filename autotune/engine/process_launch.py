"""One launch of an engine as local processes, from its first process to the proof that nothing is left.

In: a launch plan. Out: processes for a `LaunchWatch`; then nothing. `process.py` gives it its lifetime.
Talks to the operating system and to the engine's control pages; only marked processes are ever killed.
"""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from autotune.engine.docker.accelerators import visible_devices
from autotune.engine.gpu_memory import held_gpus
from autotune.engine.http_api import NoAnswerError
from autotune.engine.launch_watch import LaunchWatch, Patience
from autotune.engine.log_watch import LogWatch, Verdict
from autotune.engine.plan import LaunchPlan, RankPlan
from autotune.engine.process_tree import (
    KEEP_ENVIRONMENT,
    MARK_VARIABLE,
    Mark,
    descendants,
    kill_until_gone,
    living,
    marked,
    names_of,
    port_holder,
)
from autotune.errors import InfrastructureError


class EngineProcess(Protocol):
    """What is needed of a rank's first process; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def poll(self) -> int | None:
        """Return how it ended, None while it lives."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not in `timeout` seconds.
        """
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


class StartProcess(Protocol):
    """Starts a rank's command with its output in `log`; `mark` is what its processes will carry."""

    def __call__(
        self, argv: Sequence[str], environment: Mapping[str, str], mark: Mark, log: IO[bytes]
    ) -> EngineProcess:
        """Start it.

        Raises:
            InfrastructureError: the command cannot be started.
        """
        ...


def spawn(argv: Sequence[str], environment: Mapping[str, str], mark: Mark, log: IO[bytes]) -> EngineProcess:
    """Start a rank as a child of this process.

    Raises:
        InfrastructureError: the command cannot be started.
    """
    try:
        return subprocess.Popen(  # noqa: S603 - argv comes from the user's own search space
            argv,
            env={**environment, MARK_VARIABLE: str(mark)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise InfrastructureError(f"{argv[0]!r} cannot be started: {error.strerror}") from error


@dataclass
class _Rank:
    plan: RankPlan
    process: EngineProcess
    watch: LogWatch

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    @property
    def is_alive(self) -> bool:
        return self.exit_code is None

    @property
    def outer_cause(self) -> Verdict | None:
        """Processes end for reasons that stand in their logs."""
        return None

    def settle(self) -> None:
        """Nothing is between a process and its log."""


class Launch:
    """An engine's processes and their logs."""

    def __init__(
        self, watch: LaunchWatch, folder: Path, patience: Patience, start_process: StartProcess
    ) -> None:
        self._watch = watch
        self._plan = watch.plan
        self._patience = patience
        self._folder = folder
        self._start_process = start_process
        labels = dict(watch.plan.labels)
        self._mark = Mark.of(labels["autotune.study"], labels["autotune.trial"])
        self._ranks: list[_Rank] = []

    def start(self) -> None:
        """Start every rank.

        Raises:
            InfrastructureError: the command cannot be started.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._watch.begin()
        self._watch.use(self._ranks)
        for rank in self._plan.ranks:
            self._ranks.append(self._start_rank(rank))

    def _start_rank(self, rank: RankPlan) -> _Rank:
        log = self._folder / f"engine-rank{rank.rank}.log"
        environment = {
            **os.environ,
            **KEEP_ENVIRONMENT,
            **visible_devices(rank.node),
            **dict(rank.environment),
        }
        with log.open("wb") as output:
            process = self._start_process(rank.argv, environment, self._mark, output)
        return _Rank(rank, process, self._watch.log_watch(log))

    def stop(self) -> None:
        """End everything, politely first.

        Raises:
            InfrastructureError: a process, a port or memory of a GPU survived.
        """
        family = [child for rank in self._ranks for child in descendants(rank.process.pid)]
        if self._watch.is_well:
            with suppress(NoAnswerError):  # it is about to be stopped anyway
                self._watch.api.abort_all()
        self._watch.api.close()
        self._ask_to_stop()

        def survivors() -> list[psutil.Process]:
            return living({*family, *marked(lambda mark: mark == self._mark)})

        left = kill_until_gone(survivors, self._patience.release_s)
        for rank in self._ranks:
            self._reap(rank)
        self._prove_gone(left)

    def _ask_to_stop(self) -> None:
        """Rank 0 goes first: the others ignore SIGTERM until it has told them (SGLang, engine.py:1262)."""
        is_well = self._watch.is_well
        patience_s = self._patience.stop_s if is_well else self._patience.stop_loading_s
        for rank in self._ranks:
            if rank.is_alive:
                rank.process.terminate()
                with suppress(subprocess.TimeoutExpired):  # then it is killed
                    rank.process.wait(patience_s)

    def _reap(self, rank: _Rank) -> None:
        rank.process.kill()
        with suppress(subprocess.TimeoutExpired):  # unkillable: the proof will say so
            rank.process.wait(self._patience.stop_loading_s)

    def _prove_gone(self, left: list[psutil.Process]) -> None:
        left = living(left)
        if left:
            raise InfrastructureError(f"processes survived SIGKILL: {names_of(left)}")
        give_up_s = time.monotonic() + self._patience.release_s
        while held := [*held_ports(self._plan), *held_gpus(self._plan)]:
            if time.monotonic() >= give_up_s:
                raise InfrastructureError(f"after the engine ended, {'; '.join(held)}")
            time.sleep(self._patience.poll_s)


def held_ports(plan: LaunchPlan) -> list[str]:
    """Return who holds what the plan needs: a serving port for each rank, one port to meet at."""
    needed = [(rank.node.address, plan.port + rank.rank) for rank in plan.ranks]
    if len(plan.ranks) > 1:
        needed.append((plan.host, plan.rendezvous_port))
    holders = [(port, port_holder(address, port)) for address, port in needed]
    return [f"port {port} is held by {holder}" for port, holder in holders if holder is not None]
