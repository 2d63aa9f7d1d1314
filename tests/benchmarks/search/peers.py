"""The samplers that need torch: Optuna's GPSampler, and BoTorch by optuna-integration.

In: nothing. Out: methods; their packages are installed into an environment of their own, which is put last on
the path, so that everything else stays what it is. They run as Optuna's documentation has it, through
`study.ask`: a crash is a failed trial, which neither of them looks at, and a candidate may come again.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import FrozenTrial, TrialState

from autotune.search.sampler import SpaceDomain
from autotune.space import Candidate
from tests.benchmarks.environments import environment, pip
from tests.benchmarks.search.methods import Method
from tests.benchmarks.search.problem import Launch, Problem, launch

NAMES = ("optuna GP", "BoTorch")
_PACKAGES = ("torch==2.13.0", "botorch==0.18.1", "optuna-integration==5.0.0")
_START_UP_TRIALS = 8


def peers() -> dict[str, Method]:
    """Return the methods by name.

    Raises:
        UnavailableError: they cannot be installed.
    """
    site = next(environment("search", pip(*_PACKAGES)).glob("lib/python3*/site-packages"))
    if str(site) not in sys.path:
        sys.path.append(str(site))
    warnings.simplefilter("ignore")  # both call themselves experimental, and say what they round
    importlib.import_module("torch").set_num_threads(1)
    return dict(zip(NAMES, (_asked(_gp), _asked(_botorch)), strict=True))


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=_START_UP_TRIALS)


def _botorch(seed: int) -> BaseSampler:
    make: Any = importlib.import_module("optuna_integration").BoTorchSampler
    sampler: BaseSampler = make(seed=seed, n_startup_trials=_START_UP_TRIALS, constraints_func=_violations_of)
    return sampler


def _violations_of(trial: FrozenTrial) -> list[float]:
    return list(trial.constraints.values())


def _asked(make: Callable[[int], BaseSampler]) -> Method:
    def run(problem: Problem, seed: int) -> Iterator[Launch]:
        domain, generator = SpaceDomain(problem.space, lambda _: True), np.random.default_rng(seed)
        study = optuna.create_study(direction="maximize", sampler=make(seed))
        study.enqueue_trial(problem.baseline.to_dict())
        while True:
            trial = study.ask(dict(domain.distributions))
            made = launch(problem, Candidate.of(domain.complete(trial.params)), generator)
            yield made
            for key, excess in made.excess.items():
                trial.set_constraint(key, float(np.expm1(excess)))
            state = TrialState.FAIL if made.value is None else TrialState.COMPLETE
            study.tell(trial, made.value, state=state)

    return run
