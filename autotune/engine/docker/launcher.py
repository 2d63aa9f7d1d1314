"""Runs one engine over the Docker engines of any number of nodes, and leaves nothing of it behind.

In: a launch plan, rank r for node r. Out: a running engine, every rank's log in the trial's folder. Talks to
the nodes' Docker engines and to the control pages of rank 0. Whatever happens inside the context, at its end
no container of the trial exists and its ports and GPU memory are free, or an InfrastructureError says why.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from autotune.engine.docker.container import CONTROLLER_LABEL, STUDY_LABEL, TRIAL_LABEL
from autotune.engine.docker.controller import Controller
from autotune.engine.docker.launch import ContainerLaunch, DockerPatience, on_all, prepare
from autotune.engine.docker.node import DockerNode, FoundContainer
from autotune.engine.launch_watch import LaunchWatch, MonotonicClock, WatchedEngine
from autotune.engine.launcher import Clock
from autotune.engine.phase_budgets import PhaseBudgets
from autotune.engine.plan import LaunchPlan
from autotune.failure import StartPhase
from autotune.space import Node
from autotune.uninterrupted import signals_held


class DockerLauncher:
    """Starts engines on Docker nodes: `nodes` are all that a study may use, a plan names some of them.

    `learnt`: the seconds of each start phase of earlier launches, from which phases get their limits.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        patience: DockerPatience | None = None,
        *,
        learnt: Iterable[Mapping[str, float]] = (),
    ) -> None:
        self._nodes = tuple(nodes)
        self._patience = patience or DockerPatience()
        self._clock = MonotonicClock()
        self._budgets = PhaseBudgets(self._patience.watch.phases)
        for phases_s in learnt:
            self._budgets.learn({StartPhase(name): spent_s for name, spent_s in phases_s.items()})
        self._controller = Controller.here()
        self._launches = 0
        self._running: Counter[str] = Counter()

    @property
    def clock(self) -> Clock:
        """Real time."""
        return self._clock

    @property
    def is_simulated(self) -> bool:
        """Containers are measured."""
        return False

    @contextmanager
    def launch(
        self, plan: LaunchPlan, folder: Path, on_phase: Callable[[StartPhase], None]
    ) -> Iterator[WatchedEngine]:
        """Start the planned engine, wait until it is ready, and stop it when the context ends.

        Raises:
            EngineError: the engine failed to become ready.
            InfrastructureError: a node cannot run any engine, or is not clean afterwards.
        """
        token = str(self._controller)
        with open_nodes([rank.node for rank in plan.ranks]) as nodes:
            began = {StartPhase.IMAGE: self._clock.now_s()}
            on_phase(StartPhase.IMAGE)
            ready = prepare(
                plan,
                nodes,
                folder=folder,
                controller=token,
                turn=self._launches,
                patience=self._patience,
                budget=self._budgets.of(StartPhase.IMAGE),
            )
            self._launches += 1
            watch = LaunchWatch(
                ready.plan, on_phase, self._clock, self._patience.watch, self._budgets, began=began
            )
            launch = ContainerLaunch(
                watch, nodes, ready.segments, folder=folder, controller=token, patience=self._patience
            )
            trial = dict(plan.labels)[TRIAL_LABEL]
            self._running[trial] += 1
            try:
                launch.start()
                watch.await_ready()
                yield WatchedEngine(
                    watch, self._patience.watch, image_digest=ready.image.digest, driver=ready.driver
                )
            finally:
                with signals_held():
                    self._running[trial] -= 1
                    launch.stop()

    def remove_leftovers(self, study: str) -> tuple[str, ...]:
        """Remove the containers that a dead controller of the study left on any node; return their names.

        Those of a controller that lives, or that ran on another machine, stay; of this controller what no
        running launch needs goes, such as that on a node which was out of reach when its launch ended.

        Raises:
            InfrastructureError: a node is out of reach, or something cannot be removed.
        """

        def remove(_: int, node: DockerNode) -> list[str]:
            left = [each for each in node.find({STUDY_LABEL: study}) if self._is_orphaned(each)]
            for each in left:
                node.remove(each.id)
            return [f"{node.node.name}: {each.name}" for each in left]

        with open_nodes(self._nodes) as nodes:
            return tuple(name for names in on_all(nodes, remove) for name in names)

    def _is_orphaned(self, found: FoundContainer) -> bool:
        controller = Controller.parse(found.labels.get(CONTROLLER_LABEL, ""))
        if controller == self._controller:
            return not self._running[found.labels.get(TRIAL_LABEL, "")]
        return controller is not None and controller.is_dead


@contextmanager
def open_nodes(nodes: Sequence[Node]) -> Iterator[list[DockerNode]]:
    """Connect to all nodes at once; close all connections in the end, also if one cannot be made.

    Raises:
        UnreachableError: a node does not answer.
    """
    with ExitStack() as stack:
        opened = [DockerNode(node) for node in nodes]
        with ThreadPoolExecutor(max(len(opened), 1)) as pool:
            jobs = [pool.submit(stack.enter_context, node) for node in opened]
        for job in jobs:
            job.result()
        yield opened
