"""The launcher that a study asks for.

In: a study's search space. Out: a `Launcher`. The docker launcher is not part of this version.
"""

from autotune.engine.launcher import Launcher
from autotune.engine.process import ProcessLauncher
from autotune.engine.simulated import SimulatedLauncher
from autotune.errors import ConfigError
from autotune.simulator.profile import read_profile
from autotune.space import LauncherKind, SearchSpace


def open_launcher(space: SearchSpace, *, seed: int) -> Launcher:
    """Return the launcher of the space.

    Raises:
        ConfigError: this version has no such launcher, or the simulated one lacks a profile.
    """
    match space.launcher:
        case LauncherKind.SIMULATED:
            if space.profile is None:
                raise ConfigError("the simulated launcher needs a 'profile' in the search space")
            return SimulatedLauncher(read_profile(space.profile), seed)
        case LauncherKind.PROCESS:
            return ProcessLauncher()
        case LauncherKind.DOCKER:
            raise ConfigError(
                "launcher 'docker' is not in this version yet; "
                "use --launcher simulated, or --launcher process on one machine"
            )
