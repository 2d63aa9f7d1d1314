"""The launcher that a study asks for.

In: a study's search space, and what its earlier launches took. Out: a `Launcher`.
"""

from collections.abc import Iterable, Mapping

from autotune.engine.dialects import dialect_of
from autotune.engine.launcher import Launcher
from autotune.engine.simulated import SimulatedLauncher
from autotune.errors import ConfigError, parse_choice
from autotune.simulator.profile import read_profile
from autotune.space import LauncherKind, SearchSpace


def parse_launcher(name: str) -> LauncherKind:
    """Return the launcher of that name.

    Raises:
        ConfigError: there is none.
    """
    return parse_choice(LauncherKind, "--launcher", name)


def open_launcher(space: SearchSpace, *, seed: int, learnt: Iterable[Mapping[str, float]] = ()) -> Launcher:
    """Return the launcher of the space; `learnt`: the start phases' seconds of the study's earlier launches.

    Raises:
        ConfigError: the simulated launcher lacks a profile, or the docker launcher an image.
    """
    match space.launcher:
        case LauncherKind.SIMULATED:
            if space.profile is None:
                raise ConfigError("the simulated launcher needs a 'profile' in the search space")
            return SimulatedLauncher(read_profile(space.profile), seed)
        case LauncherKind.PROCESS:
            from autotune.engine.process import ProcessLauncher  # noqa: PLC0415 - httpx takes 0.3 s

            program = dialect_of(space.engine).preload_program if space.preload else None
            return ProcessLauncher(preload_program=program)
        case LauncherKind.DOCKER:
            if space.image is None:
                raise ConfigError("launcher 'docker' needs an 'image' in the search space")
            from autotune.engine.docker.launcher import DockerLauncher  # noqa: PLC0415 - docker-py takes 0.2 s

            return DockerLauncher(space.all_nodes, learnt=learnt)
