"""What would stop a study, looked for before its first launch; no engine is started.

In: a study that was read without errors. Out: problems, all at once. Talks to this machine: programs, paths,
ports, disk.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from autotune.engine.dialects import dialect_of
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.errors import Problem
from autotune.space import Candidate, LauncherKind, SearchSpace
from autotune.study import Study

DISK_NEEDED_BYTES = 1 << 30
"""A night's raw records and logs; a load point of 400 requests takes well under 1 MB."""


def preflight(study: Study, folder: Path = Path()) -> tuple[Problem, ...]:
    """Return what is wrong with this machine for this study."""
    space = study.space
    baseline = Candidate.of(space.baseline)
    plan = plan_launch(space, baseline, study=study.name, trial="check")
    return (
        *_baseline_problems(space, baseline),
        *_launcher_problems(space, plan),
        *_environment_problems(space),
        *_disk_problems(folder),
    )


def _baseline_problems(space: SearchSpace, baseline: Candidate) -> Iterator[Problem]:
    reason = dialect_of(space.engine).invalid_reason(space, baseline)
    if reason is not None:
        yield Problem(f"the engine would refuse the baseline: {reason}", key="baseline")


def _launcher_problems(space: SearchSpace, plan: LaunchPlan) -> Iterator[Problem]:
    match space.launcher:
        case LauncherKind.SIMULATED:
            return
        case LauncherKind.DOCKER:
            yield Problem(
                "launcher 'docker' is not in this version yet",
                key="launcher",
                remedy="Use --launcher simulated, or --launcher process on one machine.",
            )
        case LauncherKind.PROCESS:
            yield from _process_problems(space, plan)


def _process_problems(space: SearchSpace, plan: LaunchPlan) -> Iterator[Problem]:
    program = plan.ranks[0].argv[0]
    if shutil.which(program) is None:
        yield Problem(
            f"no program {program!r} on the PATH",
            key="command",
            remedy="Give 'command' in the search space, or activate the engine's environment.",
        )
    if space.model.startswith((".", "/")) and not Path(space.model).is_dir():
        yield Problem(f"no folder {space.model}", key="model", remedy="Give the model's folder.")
    for key, port in (("port", plan.port), ("rendezvous_port", plan.rendezvous_port)):
        if not _is_free(port):
            yield Problem(
                f"port {port} is taken", key=key, remedy=f"Give another '{key}', or stop what holds it."
            )


def _environment_problems(space: SearchSpace) -> Iterator[Problem]:
    for name in space.environment_from:
        if space.launcher is not LauncherKind.SIMULATED and name not in os.environ:
            yield Problem(f"{name} is not set", key="environment_from", remedy=f"export {name}=...")


def _disk_problems(folder: Path) -> Iterator[Problem]:
    free = shutil.disk_usage(folder).free
    if free < DISK_NEEDED_BYTES:
        yield Problem(f"only {free >> 20} MiB free where the results go", remedy="Free 1 GiB.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
