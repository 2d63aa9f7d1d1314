"""What would stop a study, looked for before its first launch; no engine is started.

In: a study that was read without errors. Out: problems, all at once. Talks to this machine (programs, the
interpreter behind the launch command, paths, ports, disk), and for the docker launcher to its nodes.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from autotune.engine.dialects import dialect_of
from autotune.engine.installed import installed_engine
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.errors import Problem
from autotune.space import Candidate, LauncherKind, SearchSpace
from autotune.study import Study

DISK_NEEDED_BYTES = 1 << 30
"""A night's raw records and logs; a load point of 400 requests takes well under 1 MB."""


def preflight(study: Study, folder: Path) -> tuple[Problem, ...]:
    """Return what is wrong with this machine for this study, whose results go into `folder`."""
    space = study.space
    baseline = Candidate.of(space.baseline)
    plans = [plan_launch(slot, baseline, study=study.name, trial="check") for slot in space.slots]
    return (
        *_candidate_problems(space),
        *_launcher_problems(space, plans),
        *_environment_problems(space),
        *_disk_problems(folder),
    )


def _candidate_problems(space: SearchSpace) -> Iterator[Problem]:
    """Look for one candidate that can run; none among many random ones makes a search that never begins."""
    from autotune.search.feasibility import infeasible_reason  # noqa: PLC0415 - Optuna takes 0.5 s
    from autotune.search.sampler import UNIFORM_DRAWS, draw  # noqa: PLC0415 - as above

    candidate = draw(space, accepts=lambda drawn: infeasible_reason(space, drawn) is None)
    if (reason := infeasible_reason(space, candidate)) is not None:
        yield Problem(
            f"none of {UNIFORM_DRAWS} random candidates can run; of the last one: {reason}",
            key="tune",
            remedy="Loosen 'require' or change the ranges under 'tune' so that they meet.",
        )


def _launcher_problems(space: SearchSpace, plans: Sequence[LaunchPlan]) -> Iterator[Problem]:
    plan = plans[0]
    if space.launcher is LauncherKind.DOCKER and plan.image is not None:
        from autotune.engine.docker.check import docker_problems  # noqa: PLC0415 - docker-py takes 0.2 s

        yield from docker_problems(list(zip(space.slots, plans, strict=True)))
    if space.launcher is LauncherKind.PROCESS:
        yield from _remote_nodes(space)
        yield from _program_problems(space, plan)
        yield from _port_problems(plan)


def _remote_nodes(space: SearchSpace) -> Iterator[Problem]:
    for index, node in enumerate(space.nodes):
        if not _is_free(0, node.address):
            yield Problem(
                f"{node.address} is no address of this machine, and processes are launched on this one only",
                key=f"nodes.{index}.address",
                remedy="Use launcher docker for other machines, or leave the address out.",
            )


def _program_problems(space: SearchSpace, plan: LaunchPlan) -> Iterator[Problem]:
    program = plan.ranks[0].argv[0]
    if shutil.which(program) is None:
        yield Problem(
            f"no program {program!r} on the PATH",
            key="command",
            remedy="Give 'command' in the search space, or activate the engine's environment.",
        )
    else:
        yield from _engine_problems(space)
    if space.model.startswith((".", "/")) and not Path(space.model).is_dir():
        yield Problem(f"no folder {space.model}", key="model", remedy="Give the model's folder.")


def _engine_problems(space: SearchSpace) -> Iterator[Problem]:
    """Yield what is wrong with the engine that the command would run: missing, or of another version."""
    command = space.command or dialect_of(space.engine).command
    try:
        found = installed_engine(space.engine, command, {**os.environ, **space.environment})
    except (OSError, subprocess.SubprocessError) as error:
        yield Problem(f"{command[0]} does not run: {error}", key="command", remedy="Try it in a shell.")
        return
    if found is None:
        return
    if not found.is_importable:
        yield Problem(
            f"{found.interpreter} has no package {found.package!r}",
            key="command",
            remedy="Install it there, or name an interpreter that has it in 'command'.",
        )
    if found.package == space.engine and (found.version or space.version).split("+")[0] != space.version:
        yield Problem(
            f"{found.interpreter} has {space.engine} {found.version}, not {space.version}",
            key="version",
            remedy=f'Write version: "{found.version}", or install the other one.',
        )


def _port_problems(plan: LaunchPlan) -> Iterator[Problem]:
    """Yield the taken ports: each rank serves on one of its own; only several nodes have to meet."""
    needed = [("port", plan.port + rank.rank) for rank in plan.ranks]
    if len(plan.ranks) > 1:
        needed.append(("rendezvous_port", plan.rendezvous_port))
    for key, port in needed:
        if not _is_free(port):
            yield Problem(
                f"port {port} is taken", key=key, remedy=f"Give another '{key}', or stop what holds it."
            )


def _environment_problems(space: SearchSpace) -> Iterator[Problem]:
    for name in space.environment_from:
        if space.launcher is not LauncherKind.SIMULATED and name not in os.environ:
            yield Problem(f"{name} is not set", key="environment_from", remedy=f"export {name}=...")


def _disk_problems(folder: Path) -> Iterator[Problem]:
    """Look at the disk of the folder, or of where it will be made."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < DISK_NEEDED_BYTES:
        yield Problem(f"only {free >> 20} MiB free in {place}, where the results go", remedy="Free 1 GiB.")


def _is_free(port: int, address: str = "") -> bool:
    """Whether this machine can serve there; with port 0, whether the address is its own."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
