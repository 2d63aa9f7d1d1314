"""Fits a profile's step-time constants to what launches showed, and says how sure it is of them.

In: a profile, `Case`s and `StepGroup`s. Out: a `Calibration`: the constants, their covariance, how far off
each is. Runs the simulated scheduler. Bounded least squares on the logarithms of measured statistics, the
profile itself counting as a measurement of every constant. The schedule of each case is simulated, the
constants are fitted with the schedules held, and both are repeated until they agree. A logged decode step
needs no schedule: it is compared with the constants themselves. Invariant: with nothing to fit to, the
profile stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from autotune.search.calibration.case import Case
from autotune.search.calibration.constants import MOST, SPREAD, Constants
from autotune.search.calibration.steps import LoggedSteps, StepGroup
from autotune.simulator.profile import Profile
from autotune.simulator.rehearsal import rehearse
from autotune.simulator.replay import Schedule

Vector = NDArray[np.float64]

NOISE = 0.05
"""Standard deviation of the logarithm of a measured statistic, before the fit knows better."""
_ROUNDS = 4
_DAMPING = (1.0, 0.5, 0.2)
"""How much of a solution's way is gone: less where its schedules would be others than it was found with."""
_SETTLED = 0.02
_OUTLIER = 1.0
"""Losses above it, in standard errors, count linearly: one odd launch must not bend the rest."""
_UNSTARTED_LOSS = 10.0
_STEP = 1e-4
_MOST_EVALUATIONS = 30


@dataclass(frozen=True)
class Calibration:
    """Fitted constants. `shifts` and `covariance` are in the order of `constants.names`.

    `residuals`: per case the logarithms of expected over measured. `noise`: their usual size, at least what
    was assumed of a measurement. `unstarted`: cases whose launch the simulator holds to be impossible.
    `step_residuals`: the same of each group of logged decode steps.
    """

    profile: Profile
    constants: Constants
    shifts: Vector
    covariance: NDArray[np.float64]
    cases: tuple[Case, ...] = ()
    residuals: tuple[Vector, ...] = ()
    noise: float = NOISE
    unstarted: tuple[Case, ...] = ()
    schedules: tuple[Schedule, ...] = field(default=(), repr=False)
    steps: tuple[StepGroup, ...] = ()
    step_residuals: Vector = field(default_factory=lambda: np.zeros(0))

    @property
    def deviations(self) -> dict[str, float]:
        """The standard error of each constant's shift: relative, for those that are moved by a factor."""
        errors = np.sqrt(np.diag(self.covariance))
        return {name: float(error) for name, error in zip(self.constants.names, errors, strict=True)}

    def draws(self, count: int, generator: np.random.Generator) -> list[Profile]:
        """Return profiles as likely as the data leave them."""
        drawn = generator.multivariate_normal(self.shifts, self.covariance, size=count, method="cholesky")
        bounded = np.clip(drawn, self.constants.low, MOST)
        return [
            self.profile.model_copy(update={"step": self.constants.at(shifts)})
            for shifts in np.asarray(bounded)
        ]


def calibrate(
    profile: Profile,
    cases: Sequence[Case],
    steps: Sequence[StepGroup] = (),
    *,
    start: Calibration | None = None,
) -> Calibration:
    """Return the profile's constants fitted to all this; `start`: an earlier fit of the same profile."""
    constants = Constants.of(profile)
    shifts = np.zeros(len(constants.names)) if start is None else start.shifts
    fit = _Fit(profile, constants, tuple(cases), tuple(steps))
    fit.simulate(shifts)
    for _ in range(_ROUNDS if cases or steps else 0):
        moved = fit.improve(shifts)
        has_settled = np.abs(shifts - moved).max() < _SETTLED
        shifts = moved
        if has_settled:
            break
    return fit.result(shifts)


class _Fit:
    """Cases with the schedules they have under some constants."""

    def __init__(
        self, profile: Profile, constants: Constants, cases: tuple[Case, ...], steps: tuple[StepGroup, ...]
    ) -> None:
        self._profile = profile
        self._constants = constants
        self._cases = cases
        self._steps = steps
        self._logged = LoggedSteps(steps, loads=(case.trial for case in cases), least_noise=NOISE)
        self._schedules: list[tuple[Case, Schedule]] = []

    def simulate(self, shifts: Vector) -> None:
        """Work out who runs when under these constants."""
        profile = self._at(shifts)
        self._schedules = []
        for case in self._cases:
            rehearsal = rehearse(profile, case.argv, [case.load])
            if rehearsal is not None:
                self._schedules.append((case, rehearsal.schedules[0]))

    def improve(self, shifts: Vector) -> Vector:
        """Return constants that explain the cases better, the same ones if none are found; simulate them."""
        schedules, loss, wanted = self._schedules, self._loss(shifts), self._solve(shifts)
        for share in _DAMPING:
            moved = shifts + share * (wanted - shifts)
            self.simulate(moved)
            if self._loss(moved) < loss:
                return np.asarray(moved)
        self._schedules = schedules
        return shifts

    def _solve(self, shifts: Vector) -> Vector:
        """Return the constants that explain the cases best with these schedules."""
        low = self._constants.low
        found = least_squares(
            self._losses,
            np.clip(shifts, low + _STEP, MOST - _STEP),
            bounds=(low, np.full(len(low), MOST)),
            loss="soft_l1",
            f_scale=_OUTLIER,
            max_nfev=_MOST_EVALUATIONS,
        )
        return np.asarray(found.x, dtype=np.float64)

    def result(self, shifts: Vector) -> Calibration:
        """Return the fit, its covariance by the curvature at the solution."""
        residuals = tuple(self._residuals(shifts))
        noise = _noise(residuals, [case for case, _ in self._schedules])
        slopes = np.array(
            [
                (self._losses(shifts + step) - self._losses(shifts - step)) / (2 * _STEP)
                for step in np.eye(len(shifts)) * _STEP
            ]
        ).T
        data, prior = slopes[: -len(shifts)], slopes[-len(shifts) :]
        curvature = data.T @ data * (NOISE / noise) ** 2 + prior.T @ prior
        started = {id(case) for case, _ in self._schedules}
        return Calibration(
            profile=self._at(shifts),
            constants=self._constants,
            shifts=shifts,
            covariance=np.linalg.inv(curvature),
            cases=tuple(case for case, _ in self._schedules),
            residuals=residuals,
            noise=noise,
            unstarted=tuple(case for case in self._cases if id(case) not in started),
            schedules=tuple(schedule for _, schedule in self._schedules),
            steps=self._steps,
            step_residuals=self._logged.residuals(self._constants.at(shifts), self._profile.experts),
        )

    def _at(self, shifts: Vector) -> Profile:
        return self._profile.model_copy(update={"step": self._constants.at(shifts)})

    def _residuals(self, shifts: Vector) -> list[Vector]:
        step, experts = self._constants.at(shifts), self._profile.experts
        return [
            case.expected(schedule.replay(step, experts)) - case.logs for case, schedule in self._schedules
        ]

    def _loss(self, shifts: Vector) -> float:
        """Return what `solve` makes small, by the schedules that these constants really have."""
        missing = len(self._cases) - len(self._schedules)
        squares = (self._losses(shifts) / _OUTLIER) ** 2
        return float((np.sqrt(1 + squares) - 1).sum()) + missing * _UNSTARTED_LOSS

    def _losses(self, shifts: Vector) -> Vector:
        weighted = (
            residuals * case.weights / NOISE
            for residuals, (case, _) in zip(self._residuals(shifts), self._schedules, strict=True)
        )
        logged = self._logged.losses(self._constants.at(shifts), self._profile.experts)
        return np.concatenate((*weighted, logged, shifts / SPREAD))


def _noise(residuals: Sequence[Vector], cases: Sequence[Case]) -> float:
    """Return the usual size of a case's residuals (the median: some are odd), at least the assumed one."""
    sizes = [
        float(np.sqrt(((each * case.weights) ** 2).sum() / (case.weights**2).sum()))
        for each, case in zip(residuals, cases, strict=True)
    ]
    return max([NOISE, *([float(np.median(sizes))] if sizes else [])])
