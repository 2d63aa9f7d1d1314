"""One launch of an engine as containers, from the first look at its nodes to the proof that nothing is left.

In: a launch plan and open nodes. Out: ranks for a `LaunchWatch`; then nothing. `launcher.py` gives it its
lifetime. Talks to Docker engines, to all nodes at once. Only containers that carry this launch's own labels,
its controller's token among them, are ever touched.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from autotune.engine.docker.container import container_plans
from autotune.engine.docker.faults import NodeError, UnreachableError
from autotune.engine.docker.link_watch import LinkWatch
from autotune.engine.docker.node import DockerNode, FoundImage
from autotune.engine.docker.pull_log import PullLog
from autotune.engine.docker.rank import ContainerRank, Endurance
from autotune.engine.docker.survey import Question, Survey, driver_problem, survey
from autotune.engine.http_api import NoAnswerError
from autotune.engine.launch_watch import LaunchWatch, Patience
from autotune.engine.phase_budgets import PhaseBudget
from autotune.engine.plan import LaunchPlan
from autotune.errors import InfrastructureError
from autotune.failure import FailureKind

RANGE_PORTS = 8
"""SGLang takes the rendezvous port and up to six behind it (0.5.23, server_args.py:814)."""
RANGES = 16
_BETWEEN_TRIES_S = 0.5

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class DockerPatience:
    """How long the docker launcher waits for what.

    `watch`: as for any launcher. `reunion_s`: for a node that is out of reach when it is to be cleaned.
    """

    watch: Patience = field(default_factory=Patience)
    endurance: Endurance = field(default_factory=Endurance)
    reunion_s: float = 30.0
    memory_mib: int = 1024


@dataclass(frozen=True)
class Readiness:
    """What was found before a launch: the plan with its ports, the image, the driver, what is in /dev/shm."""

    plan: LaunchPlan
    image: FoundImage
    driver: str | None
    segments: Mapping[str, tuple[str, ...]]


class Pull:
    """Follows one node's pull, which also ends if it stands still (`node.py`)."""

    def __init__(self, node: str, log: PullLog, budget: PhaseBudget | None) -> None:
        self._node = node
        self._log = log
        self._budget = budget
        self._began_s = time.monotonic()

    def __call__(self, step: Mapping[str, Any]) -> None:
        """Take in one step.

        Raises:
            NodeError: the pull takes too long.
        """
        self._log(step)
        line = self._budget and self._budget.overrun(time.monotonic() - self._began_s)
        if line:
            raise NodeError(self._node, line, FailureKind.IMAGE_MISSING)


def on_all(nodes: Sequence[DockerNode], work: Callable[[int, DockerNode], _Result]) -> list[_Result]:
    """Do something on every node at once, and wait for all; the first error is raised then."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        jobs = [pool.submit(work, index, node) for index, node in enumerate(nodes)]
    return [job.result() for job in jobs]


def prepare(
    plan: LaunchPlan,
    nodes: Sequence[DockerNode],
    *,
    folder: Path,
    controller: str,
    turn: int,
    patience: DockerPatience,
    budget: PhaseBudget | None = None,
) -> Readiness:
    """Make sure that every node has the image and room; choose ports to meet at that are free on rank 0.

    How a pull goes on is told in `folder/pull-NODE.log`; one that overruns the `budget` is given up.
    `turn` counts the launches: each begins to look for ports where the last one did not.

    Raises:
        NodeError: a node has no image, no working driver, or no free port or GPU memory.
    """
    containers = container_plans(plan, controller)

    def look(index: int, node: DockerNode) -> tuple[FoundImage, Survey]:
        container = containers[index]
        pull = Pull(node.node.name, PullLog(folder / f"pull-{node.node.name}.log"), budget)
        image = node.require_image(container.image, pull=plan.container.pull, on_progress=pull)
        question = Question(
            ports=(plan.port,),
            ranges=tuple(_port_ranges(plan, turn)) if index == 0 else (),
            most_mib=patience.memory_mib,
            facts={"peers": [f"{plan.host}:{plan.rendezvous_port}"] if index else []},
        )
        return image, survey(node, container, question)

    found = on_all(nodes, look)
    images, surveys = [image for image, _ in found], [seen for _, seen in found]
    _refuse_different(images, nodes, plan)
    _refuse_taken(surveys)
    first = surveys[0].first_free
    if first is None and len(nodes) > 1:
        raise _no_range(plan, surveys[0])
    return Readiness(
        plan=plan.meeting_at(first) if first is not None and len(nodes) > 1 else plan,
        image=images[0],
        driver=", ".join(sorted({seen.gpus["driver"] for seen in surveys if seen.gpus.get("driver")}))
        or None,
        segments={seen.node: seen.segments for seen in surveys},
    )


class ContainerLaunch:
    """An engine's containers."""

    def __init__(
        self,
        watch: LaunchWatch,
        nodes: Sequence[DockerNode],
        segments: Mapping[str, tuple[str, ...]],
        *,
        folder: Path,
        controller: str,
        patience: DockerPatience,
    ) -> None:
        self._watch = watch
        self._nodes = nodes
        self._segments = segments
        self._folder = folder
        self._patience = patience
        self._plans = container_plans(watch.plan, controller)
        self._ranks: list[ContainerRank] = []

    # ---- start

    def start(self) -> None:
        """Start every rank at once.

        Raises:
            NodeError: a container cannot be made or started.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._watch.begin()
        containers = on_all(self._nodes, lambda index, node: node.create(self._plans[index]))
        on_all(self._nodes, lambda index, node: node.start(containers[index]))
        self._ranks = [self._rank(index, containers[index]) for index in range(len(self._nodes))]
        for rank in self._ranks:
            rank.start()
        self._watch.use(self._ranks)

    def _rank(self, index: int, container: str) -> ContainerRank:
        plan = self._watch.plan
        log = self._folder / f"engine-rank{index}.log"
        log.write_bytes(b"")
        return ContainerRank(
            plan.ranks[index],
            self._nodes[index],
            container,
            watch=self._watch.log_watch(log),
            log=log,
            endurance=self._patience.endurance,
            link=self._link(index, container) if index else None,
        )

    def _link(self, index: int, container: str) -> LinkWatch:
        """Watch the way to a port at which nobody listens, so that no busy engine is in it."""
        plan = self._watch.plan
        return LinkWatch(self._nodes[index], container, plan.host, plan.rendezvous_port + RANGE_PORTS - 1)

    # ---- stop

    def stop(self) -> None:
        """End everything, politely first, and prove that it is gone.

        Raises:
            InfrastructureError: a node is not clean; it is named, and who holds what.
        """
        is_well = self._watch.is_well
        if is_well:
            with suppress(NoAnswerError):  # it is about to be stopped anyway
                self._watch.api.abort_all()
        self._watch.api.close()
        with suppress(NodeError):  # what cannot be asked is killed, and the proof will say if that failed
            self._ask_to_stop(is_well=is_well)
        problems = [text for found in on_all(self._nodes, self._clean) for text in found]
        if problems:
            raise InfrastructureError(f"after the engine ended, {'; '.join(problems)}")

    def _ask_to_stop(self, *, is_well: bool) -> None:
        """Rank 0 goes first: the others ignore SIGTERM until it has told them (SGLang, engine.py:1262)."""
        if any(not rank.is_alive or rank.outer_cause for rank in self._ranks):
            return  # a torn engine has nothing to finish
        watch = self._patience.watch
        for rank in self._ranks:
            rank.node.signal(rank.container, "SIGTERM")
            rank.await_end(watch.stop_s if is_well and rank.plan.rank == 0 else watch.stop_loading_s)

    def _clean(self, index: int, node: DockerNode) -> list[str]:
        """Remove what this launch made on a node; return what is wrong there."""
        give_up_s = time.monotonic() + self._patience.reunion_s
        try:
            while True:
                try:
                    self._remove(index, node)
                    return self._left(index, node)
                except UnreachableError:
                    if time.monotonic() >= give_up_s:
                        raise
                time.sleep(_BETWEEN_TRIES_S)
        except NodeError as error:
            return [f"{error} (its container {self._plans[index].name} may still run)"]
        finally:
            for rank in self._ranks[index : index + 1]:
                rank.stop()

    def _remove(self, index: int, node: DockerNode) -> None:
        for rank in self._ranks[index : index + 1]:
            node.signal(rank.container, "SIGKILL")
            rank.await_end(self._patience.endurance.log_s)
            rank.settle()
        for found in node.find(dict(self._plans[index].labels)):
            node.remove(found.id)

    def _left(self, index: int, node: DockerNode) -> list[str]:
        """Look for what is left on a node, waiting for what needs time to go."""
        plan = self._plans[index]
        left = [f"container {each.name} is left" for each in node.find(dict(plan.labels))]
        meeting = range(self._watch.plan.rendezvous_port, self._watch.plan.rendezvous_port + RANGE_PORTS)
        question = Question(
            ports=(self._watch.plan.port, *(meeting if index == 0 and len(self._nodes) > 1 else ())),
            most_mib=self._patience.memory_mib,
            patience_s=self._patience.watch.release_s,
            segments_before=self._segments[node.node.name],
        )
        problems = (*left, *survey(node, plan, question).problems)
        return [f"{node.node.name}: {text}" for text in problems]


def _port_ranges(plan: LaunchPlan, turn: int) -> Iterator[tuple[int, int]]:
    """Return the ranges to look through, those of the last launches at the end."""
    for step in range(RANGES):
        yield plan.rendezvous_port + (turn + step) % RANGES * RANGE_PORTS, RANGE_PORTS


def _refuse_different(images: Sequence[FoundImage], nodes: Sequence[DockerNode], plan: LaunchPlan) -> None:
    for node, image in zip(nodes, images, strict=True):
        if image.id != images[0].id:
            message = f"its image {plan.image} ({image.digest}) is not that of rank 0 ({images[0].digest})"
            raise NodeError(node.node.name, message, FailureKind.IMAGE_MISSING)


def _refuse_taken(surveys: Sequence[Survey]) -> None:
    for seen in surveys:
        driver = driver_problem(seen)
        if driver is not None:
            raise driver
        for peer in (peer for peer, is_reached in seen.facts["reached"].items() if not is_reached):
            message = f"no way to {peer}, where the ranks meet"
            raise NodeError(seen.node, message, FailureKind.NODE_LOST)
        if seen.problems:
            kind = FailureKind.PORT_BUSY if seen.held else FailureKind.GPU_MEMORY_HELD
            raise NodeError(seen.node, f"before the launch, {'; '.join(seen.problems)}", kind)


def _no_range(plan: LaunchPlan, seen: Survey) -> NodeError:
    last = plan.rendezvous_port + RANGES * RANGE_PORTS - 1
    message = f"no {RANGE_PORTS} ports in a row are free from {plan.rendezvous_port} to {last}"
    return NodeError(seen.node, message, FailureKind.PORT_BUSY)
