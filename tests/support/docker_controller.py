"""A controller of its own that launches the fake engine on a bed: PREFIX STUDY FOLDER BEHAVIOURS.

Prints each start phase as it begins, and "serving" when the engine is ready; then it waits to be killed.
"""

import sys
from pathlib import Path

from autotune.engine.docker.launcher import DockerLauncher
from autotune.failure import StartPhase
from tests.support.docker_plans import SHORT, plan_of
from tests.testbed.bed import Bed


def main() -> None:
    prefix, study, folder, *behaviours = sys.argv[1:]
    plan = plan_of(Bed(prefix), *behaviours, study=study)
    launcher = DockerLauncher([rank.node for rank in plan.ranks], SHORT)
    with launcher.launch(plan, Path(folder), tell):
        tell(StartPhase.SERVING)
        sys.stdin.read()


def tell(phase: StartPhase) -> None:
    print(phase.value, flush=True)


if __name__ == "__main__":
    main()
