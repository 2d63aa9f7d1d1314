"""What on a study's Docker nodes would stop it, before the first launch: all problems, with remedies.

In: the search space of every slot and its baseline's plan. Out: problems. Talks to all nodes at once, with
one short-lived container on each in which the engine's own image looks around; no engine is started and
nothing is pulled.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from autotune.engine.docker.container import ContainerPlan, container_plans
from autotune.engine.docker.controller import Controller
from autotune.engine.docker.faults import NodeError, UnreachableError
from autotune.engine.docker.launch import RANGE_PORTS, RANGES
from autotune.engine.docker.node import DockerNode, FoundImage
from autotune.engine.docker.survey import Question, Survey, driver_problem, survey
from autotune.engine.plan import LaunchPlan
from autotune.errors import Problem
from autotune.failure import FailureKind
from autotune.space import Node, SearchSpace

_MOST_SKEW_S = 1.0
_LEAST_SHM_BYTES = 1 << 30
_INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
_REMEDIES: Mapping[FailureKind | None, str] = {
    FailureKind.BIND_SOURCE_MISSING: "Make the folder on that node, or correct 'mounts'.",
    FailureKind.DRIVER_ERROR: "See that nvidia-smi works there, in a container of this image too.",
    FailureKind.DISK_FULL: "docker system prune there, or enlarge the disk of its data folder.",
    FailureKind.NAME_TAKEN: "autotune clean STUDY, or remove that container by hand.",
    FailureKind.GPU_MEMORY_HELD: "Stop what holds it.",
    FailureKind.PORT_BUSY: "Give another 'port' or 'rendezvous_port', or stop what holds it.",
}


@dataclass(frozen=True)
class _Look:
    """What was found on one node; what could not be found out is None."""

    problems: tuple[Problem, ...]
    image: FoundImage | None = None
    seen: Survey | None = None


def docker_problems(engines: Sequence[tuple[SearchSpace, LaunchPlan]]) -> tuple[Problem, ...]:
    """Return what is wrong with the nodes of the plans, of which there is one for each slot."""
    here = str(Controller.here())
    asked = [(space, plan, each) for space, plan in engines for each in container_plans(plan, here)]
    with ThreadPoolExecutor(len(asked)) as pool:
        looks = list(pool.map(lambda each: _look(*each), asked))
    containers = [container for _, _, container in asked]
    return (
        *(problem for look in looks for problem in look.problems),
        *_different_images(looks, containers),
        *_different_models(engines[0][0], looks),
    )


def _look(space: SearchSpace, plan: LaunchPlan, container: ContainerPlan) -> _Look:
    node = container.node
    try:
        with DockerNode(node) as opened:
            asked = datetime.now(UTC)
            clock = tuple(_clock_problems(node, opened.information(), asked, datetime.now(UTC)))
            image = opened.image(container.image)
            if image is None:
                return _Look((*clock, _no_image(node, container.image)))
            seen = survey(opened, container, _question(space, plan, node))
    except NodeError as error:
        return _Look((_problem_of(node, error),))
    return _Look((*clock, *_seen_problems(space, plan, node, seen)), image, seen)


def _question(space: SearchSpace, plan: LaunchPlan, node: Node) -> Question:
    is_first = node == plan.ranks[0].node
    meeting_point = f"{plan.ranks[0].node.address}:{plan.rendezvous_port}"
    return Question(
        ports=(plan.port,),
        ranges=tuple((plan.rendezvous_port + turn * RANGE_PORTS, RANGE_PORTS) for turn in range(RANGES)),
        facts={
            "folders": [space.model] if space.model.startswith("/") else [],
            "peers": [] if is_first else [meeting_point],
        },
    )


def _problem_of(node: Node, error: NodeError) -> Problem:
    if isinstance(error, UnreachableError):
        remedy = f"Try: docker -H {node.docker} version"
        if node.docker.startswith("ssh://"):
            remedy = f"Try: ssh {node.docker.removeprefix('ssh://').partition('/')[0]} docker version"
        return Problem(str(error), key="nodes", remedy=remedy)
    return Problem(str(error), key="nodes", remedy=_REMEDIES.get(error.kind))


def _no_image(node: Node, image: str) -> Problem:
    message = f"{node.name}: no image {image}"
    return Problem(message, key="image", remedy=f"docker -H {node.docker} pull {image}")


def _clock_problems(
    node: Node, information: Mapping[str, Any], asked: datetime, answered: datetime
) -> Iterator[Problem]:
    """Compare a node's clock with ours between the question and the answer, which may take long."""
    shown = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", str(information["SystemTime"])))
    skew_s = (shown - min(max(shown, asked), answered)).total_seconds()
    if abs(skew_s) > _MOST_SKEW_S:
        yield Problem(f"{node.name}: its clock is {skew_s:+.1f} s off ours", key="nodes", remedy="Start NTP.")


def _seen_problems(space: SearchSpace, plan: LaunchPlan, node: Node, seen: Survey) -> Iterator[Problem]:
    driver = driver_problem(seen)
    if driver is not None:
        yield _problem_of(node, driver)
    for text in seen.problems:
        kind = FailureKind.PORT_BUSY if text.startswith("port ") else FailureKind.GPU_MEMORY_HELD
        yield Problem(f"{node.name}: {text}", key="nodes", remedy=_REMEDIES[kind])
    if len(plan.ranks) > 1 and seen.first_free is None:
        message = f"{node.name}: no {RANGE_PORTS} ports in a row are free from {plan.rendezvous_port} on"
        yield Problem(message, key="rendezvous_port", remedy=_REMEDIES[FailureKind.PORT_BUSY])
    wanted = len(node.gpu_ids) or node.gpus
    if seen.gpus.get("count", wanted) < wanted:
        message = f"{node.name}: {seen.gpus['count']} GPUs instead of {wanted}"
        yield Problem(message, key="nodes", remedy="Correct 'gpus', or see what nvidia-smi says there.")
    yield from _fact_problems(space, node, seen.facts)


def _fact_problems(space: SearchSpace, node: Node, facts: Mapping[str, Any]) -> Iterator[Problem]:
    for variable in _INTERFACE_VARIABLES:
        for name in _missing_interfaces(space.environment.get(variable, ""), facts["interfaces"]):
            message = f"{node.name}: no interface {name}; there are {', '.join(facts['interfaces'])}"
            yield Problem(message, key=f"environment.{variable}", remedy="Name one that all nodes have.")
    for peer, is_reached in facts["reached"].items():
        if not is_reached:
            message = f"{node.name}: no way to {peer}, where the ranks meet"
            yield Problem(
                message, key="nodes", remedy="Correct 'address', or open the firewall between them."
            )
    for folder, files in facts["folders"].items():
        if not files:
            message = f"{node.name}: the container sees no files in {folder}"
            yield Problem(message, key="model", remedy="Mount the model's folder: 'mounts'.")
    if space.container.ipc == "host" and facts["shm_bytes"] < _LEAST_SHM_BYTES:
        message = f"{node.name}: /dev/shm has {facts['shm_bytes'] >> 20} MiB"
        yield Problem(message, key="container.ipc", remedy="Use ipc: private, or enlarge it.")


def _missing_interfaces(wanted: str, there: Sequence[str]) -> list[str]:
    """Return the names that match no interface; NCCL takes prefixes, `=` means exactly, `^` all but."""
    if wanted.startswith("^"):
        return []
    is_exact = wanted.startswith("=")
    names = [name for name in wanted.removeprefix("=").split(",") if name]
    return [
        name
        for name in names
        if not any(each == name if is_exact else each.startswith(name) for each in there)
    ]


def _different_images(looks: Sequence[_Look], containers: Sequence[ContainerPlan]) -> Iterator[Problem]:
    found = [(look.image, each.node) for look, each in zip(looks, containers, strict=True) if look.image]
    for image, node in found[1:]:
        if image.id != found[0][0].id:
            message = (
                f"{node.name}: its image {containers[0].image} is another than that of {found[0][1].name}"
            )
            yield Problem(message, key="image", remedy="Name it by digest, or pull it again on both.")


def _different_models(space: SearchSpace, looks: Sequence[_Look]) -> Iterator[Problem]:
    seen = [look.seen for look in looks if look.seen is not None and look.seen.facts["folders"]]
    for each in seen[1:]:
        if each.facts["folders"] != seen[0].facts["folders"]:
            message = f"{each.node}: {space.model} holds other files than on {seen[0].node}"
            yield Problem(message, key="model", remedy="Copy the model again; sizes differ or files lack.")
