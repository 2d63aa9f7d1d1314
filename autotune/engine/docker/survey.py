"""Looks at nodes with short-lived containers of the engine's own image: is there room, is nothing left.

In: a rank's container plan and what to ask. Out: `Survey`. Talks to Docker engines. The container carries the
study's labels, so that one whose controller was killed is found like any other leftover, and it is removed
whatever happens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

from autotune.engine.docker.accelerators import Devices
from autotune.engine.docker.container import RANK_LABEL, ContainerPlan
from autotune.engine.docker.faults import NodeError
from autotune.engine.docker.node import DockerNode, probe_output
from autotune.failure import FailureKind
from autotune.uninterrupted import signals_held

PROBE_RANK = "probe"


@dataclass(frozen=True)
class Question:
    """What to ask a node. `patience_s`: how long ports and GPU memory may take to become free."""

    ports: tuple[int, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    most_mib: int = 1024
    patience_s: float = 0.0
    segments_before: tuple[str, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """What a node showed. `first_free`: the first port of the first range that is free."""

    node: str
    held: Mapping[str, str]
    first_free: int | None
    gpus: Mapping[str, Any]
    segments: tuple[str, ...]
    leaked: tuple[str, ...]
    facts: Mapping[str, Any]

    @property
    def problems(self) -> tuple[str, ...]:
        """Return why no engine can start here, naming who is in the way."""
        ports = (f"port {port} is held by {holder}" for port, holder in self.held.items())
        holders = ", ".join(self.gpus.get("holders", [])) or "an unknown process"
        gpus = (
            f"{mib} MiB of GPU {index} are in use, by {holders}"
            for index, mib in self.gpus.get("above", {}).items()
        )
        return (*ports, *gpus)


def survey(node: DockerNode, plan: ContainerPlan, question: Question) -> Survey:
    """Ask a node.

    Raises:
        NodeError: the container cannot be run there, by its engine's words.
    """
    answer = _answer(node, plan, question)
    return Survey(
        node=node.node.name,
        held=answer["held"],
        first_free=answer["first_free"],
        gpus=answer["gpus"],
        segments=tuple(answer["segments"]),
        leaked=tuple(answer.get("leaked", ())),
        facts=answer.get("facts", {}),
    )


def _answer(node: DockerNode, plan: ContainerPlan, question: Question) -> Mapping[str, Any]:
    source = resources.files("autotune.engine.docker").joinpath("probe.py").read_text()
    asked = {
        "ports": question.ports,
        "ranges": question.ranges,
        "memory_query": plan.devices.memory_query,
        "most_mib": question.most_mib + plan.devices.reserved_mib,
        "patience_s": question.patience_s,
        "segments_before": question.segments_before,
        "facts": dict(question.facts),
    }
    container = node.create_probe(
        _probe_plan(plan),
        ("python3", "-IS", "-c", source, json.dumps(asked)),  # -S: an engine's site-packages cost seconds
        pid_mode="host",  # to name who holds what
        cap_add=["SYS_PTRACE"],
    )
    try:
        node.start(container)
        code = node.wait(container)
        output = node.output(container)
    finally:
        with signals_held():
            node.remove(container)
    try:
        return probe_output(output)
    except ValueError as error:
        message = f"image {plan.image} cannot look at its node: python3 ended with {code}: {output[-300:]}"
        raise NodeError(node.node.name, message) from error


def _probe_plan(plan: ContainerPlan) -> ContainerPlan:
    """Return the rank's container with nothing in it that could fail or hold memory."""
    labels = (*((key, value) for key, value in plan.labels if key != RANK_LABEL), (RANK_LABEL, PROBE_RANK))
    devices = plan.devices if plan.devices.memory_query else Devices()
    settings = plan.settings.model_copy(
        update={"ulimits": {}, "devices": (), "capabilities": (), "memory": None, "shm_size": "64m"}
    )
    return replace(plan, name=f"{plan.name}-probe", labels=labels, devices=devices, settings=settings)


def driver_problem(found: Survey) -> NodeError | None:
    """Return the failure of a GPU driver that does not tell its memory, None if all is well."""
    why = found.gpus.get("unknown")
    if why is None:
        return None
    return NodeError(found.node, f"the GPU driver does not answer: {why}", FailureKind.DRIVER_ERROR)
