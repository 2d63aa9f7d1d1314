"""Runs a small simulated study and kills itself with SIGKILL at a given moment: RUNS ROLE PHASE.

PHASE `told` is the moment after a trial of that role was told; any other is the beginning of that phase.
"""

import os
import signal
import sys
from pathlib import Path

from autotune.engine.launchers import open_launcher
from autotune.search.budget import Budget
from autotune.tuner import Event, PhaseBegan, TrialEnded, tune
from tests.support.trials import STUDY

BUDGET = Budget(launches=4, finalists=1, rounds=2)


def main(folder: Path, role: str, phase: str) -> None:
    def observe(event: Event) -> None:
        match event:
            case PhaseBegan(trial=trial, phase=begun):
                print(trial.number, trial.role, begun, flush=True)
                if (trial.role, begun) == (role, phase):
                    os.kill(os.getpid(), signal.SIGKILL)
            case TrialEnded(trial=trial) if (trial.role, phase) == (role, "told"):
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                pass

    tune(STUDY, open_launcher(STUDY.space, seed=0), BUDGET, folder, observe=observe)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
