"""The twin: what the simulator expects of a candidate, before a GPU second is spent on it.

In: a study whose space names a profile, its trials as they end, their engines' logs. Out: predictions of
objectives, ceilings and memory for the sampler (`gp.prior.Prior`), in virtual time, without noise. Runs the
simulated scheduler.
Invariants: the profile's constants are fitted again to everything that was measured, and predictions widen by
what the fit leaves open; memory that does not suffice does not hide what the candidate would do if it did,
since the profile's reserves are its least certain numbers; the simulated launcher has no twin, which would
be the truth itself and make every simulated study look better than a real one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from autotune.load.workload import offer
from autotune.metrics import Measurement, Metric, measure
from autotune.record import TrialRecord
from autotune.search.calibration.case import Statistic, statistics
from autotune.search.calibration.evidence import Evidence, argv_of, evidence_of
from autotune.search.calibration.fit import NOISE, Calibration, calibrate
from autotune.search.calibration.pool import fit_memory
from autotune.search.calibration.steps import LoggedSteps, StepGroup
from autotune.search.confirmation import NumberedTrial
from autotune.search.gp.prior import Prediction
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.rehearsal import Rehearsal, rehearse
from autotune.simulator.replay import Schedule, Served
from autotune.simulator.startup import Ready
from autotune.slo import Course, Slo, violations
from autotune.slo.ceiling import Quantity
from autotune.space import Candidate, LauncherKind, SearchSpace
from autotune.study import Study

_ROOM_ERROR_GIB = 2.0
"""Standard error of the profile's reserves: they are bounded by launches that ran and some that did not."""
_NO_ROOM = -3.0
"""The room of what cannot start even without any reserve."""
_CAPTURED_SHARE = 0.7
"""The part of a chunk's activations that is needed at the start, whatever the load (simulator/startup.py)."""
_FORM_ERROR = 0.05
"""How far off the best constants leave a prediction: the form of the step times is a model too."""
_STALE_OPEN, _STALE_CLOSED = 0.1, 0.4
"""A schedule is simulated again once its load takes that much more or less time (logarithm) than when it was.
In a closed loop tokens decide who runs, and times only where a request comes back late."""
_LAUNCH_NOISE = 0.02
"""Launches of one candidate on an H100 differed by 0.3 to 1.6 % in throughput (runs/h100-llama-8b-*)."""
_DRAWS = 4
_MANY_CASES = 8
"""From so many cases on, the constants are fitted again only if the newest contradict them."""
_CONTRADICTION = 2.0
_SAME_POOL = 0.003
_LEAST = 1e-9
_RATES = frozenset({Metric.OUTPUT_THROUGHPUT, Metric.TOTAL_THROUGHPUT, Metric.REQUEST_THROUGHPUT})


def twin_of(study: Study, folder: Path | None = None) -> "Twin | None":
    """Return the study's twin, None without a profile or if every launch is simulated.

    `folder`: the study's, whose engines' logs it reads; None: it learns from records alone.
    """
    space = study.space
    if space.profile is None or space.launcher is LauncherKind.SIMULATED:
        return None
    return Twin(read_profile(space.profile), space, study.slo, folder=folder)


class Twin:
    """The simulator as a prior that learns."""

    def __init__(self, profile: Profile, space: SearchSpace, slo: Slo, *, folder: Path | None = None) -> None:
        self._profile = profile
        self._folder = folder
        self._space = space
        self._slo = slo
        self._loads = [(point, offer(slo.workload, point, salt=0)) for point in slo.load]
        self._trials: dict[int, NumberedTrial] = {}
        self._known: dict[Candidate, _Rehearsed | None] = {}
        self._predictions: dict[Candidate, Prediction] = {}
        self._draws: list[Profile] = []
        self._accept(calibrate(profile, ()))

    @property
    def calibration(self) -> Calibration:
        """The constants as of the last trial, with what they leave unexplained."""
        return self._calibration

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """Fit the constants to what the study's trials showed, if any are new."""
        fresh = [
            each
            for each in trials
            if each.number not in self._trials and each.state.is_finished() and "record" in each.user_attrs
        ]
        for each in fresh:
            record = TrialRecord.model_validate_json(each.user_attrs["record"])
            self._trials[each.number] = NumberedTrial(each.number, record)
        if fresh:
            known = self._trials.values()
            self.learn_from(evidence_of(self._space, self._slo, known, folder=self._folder))

    def learn_from(self, evidence: Evidence) -> None:
        """Fit the constants to this, which holds everything that was seen so far."""
        fitted = fit_memory(self._profile, evidence.pools)
        believed = self._calibration.profile.memory
        if abs(np.log(_pool_size(fitted) / _pool_size(self._calibration.profile))) < _SAME_POOL:
            fitted = fitted.model_copy(update={"memory": believed})
        known = len(self._calibration.cases) + len(self._calibration.unstarted)
        is_new = len(evidence.cases) > known or evidence.steps != self._calibration.steps
        if fitted.memory == believed and (not is_new or self._explains(evidence)):
            return
        self._accept(calibrate(fitted, evidence.cases, evidence.steps, start=self._calibration))

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        """Return what the simulator expects; the values are None if nothing can be served."""
        candidate = Candidate.of(params)
        if candidate not in self._predictions:
            self._predictions[candidate] = self._predicted(candidate)
        return self._predictions[candidate]

    def courses(self, candidate: Candidate, to_beat: float) -> dict[str, Course]:
        """Return what is expected of the load that the only objective is of, by its label.

        Only of a throughput under a closed loop of counted requests: an open loop's is what is offered. Empty
        without one, and if nothing can be served.
        """
        goal = self._slo.goals[0]
        point, load = next(each for each in self._loads if each[0].label == goal.quantity.load)
        is_told = goal.direction == "maximise" and goal.quantity.metric in _RATES and point.concurrency
        if len(self._slo.goals) > 1 or not is_told or point.requests is None:
            return {}
        rehearsal = rehearse(self._calibration.profile, argv_of(self._space, candidate), [load])
        if rehearsal is None:
            return {}
        (result,) = rehearsal.results
        worth = measure(result.records, concurrency=point.concurrency).rate(goal.quantity.metric)
        sent_s = np.sort([record.scheduled_s for record in result.records])
        return {point.label: Course(sent_s, worth, to_beat, _LAUNCH_NOISE)}

    def _accept(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._draws = calibration.draws(_DRAWS, np.random.default_rng(0))
        self._predictions = {}

    def _explains(self, evidence: Evidence) -> bool:
        """Whether many launches are explained, and those that the fit has not seen as well as the others."""
        known = len(self._calibration.cases) + len(self._calibration.unstarted)
        if known < _MANY_CASES:
            return False
        profile = self._calibration.profile
        for case in evidence.cases[known:]:
            rehearsal = rehearse(profile, case.argv, [case.load])
            if rehearsal is None:
                continue
            off = case.expected(rehearsal.schedules[0].replay(profile.step, profile.experts)) - case.logs
            if np.sqrt(np.mean(off**2)) > _CONTRADICTION * self._calibration.noise:
                return False
        return self._explains_steps([each for each in evidence.steps if each not in self._calibration.steps])

    def _explains_steps(self, fresh: Sequence[StepGroup]) -> bool:
        profile = self._calibration.profile
        off = LoggedSteps(fresh, least_noise=NOISE).residuals(profile.step, profile.experts)
        return not fresh or bool(np.sqrt(np.mean(off**2)) <= _CONTRADICTION * self._calibration.noise)

    def _predicted(self, candidate: Candidate) -> Prediction:
        profile = self._calibration.profile
        rehearsed = self._known.get(candidate)
        if rehearsed is None or rehearsed.is_stale(profile):
            rehearsed = self._known[candidate] = self._rehearsed(profile, candidate)
        if rehearsed is None:
            return Prediction(None, {}, _NO_ROOM)
        changes = rehearsed.changes(profile)
        drawn = np.array([list(rehearsed.changes(each).values()) for each in self._draws])
        spread = float(np.sqrt(np.mean(np.var(np.log(drawn), axis=0)))) if drawn.size else 0.0
        values = rehearsed.values
        return Prediction(
            values=None
            if values is None
            else tuple(
                value * changes[goal.quantity] for value, goal in zip(values, self._slo.goals, strict=True)
            ),
            constraints=self._constraints(rehearsed, changes),
            room=rehearsed.room,
            error=float(np.hypot(spread, _FORM_ERROR)),
        )

    def _constraints(self, rehearsed: "_Rehearsed", changes: Mapping[Quantity, float]) -> dict[str, float]:
        """Return the violations, moved by what has changed since they were simulated."""
        moved = {}
        for ceiling in self._slo.ceilings:
            side = -1.0 if ceiling.is_floor else 1.0
            value = ceiling.limit * (1 + side * rehearsed.violations[ceiling.text])
            moved[ceiling.text] = -ceiling.margin_ratio(value * changes[ceiling.quantity])
        return moved

    def _rehearsed(self, profile: Profile, candidate: Candidate) -> "_Rehearsed | None":
        rehearsal = rehearse(profile, argv_of(self._space, candidate), [load for _, load in self._loads])
        if rehearsal is None:
            return None
        measurements = {
            point.label: measure(result.records, concurrency=point.concurrency)
            for (point, _), result in zip(self._loads, rehearsal.results, strict=True)
        }
        values, violated = told(self._slo, measurements)
        return _Rehearsed(
            profile=profile,
            schedules=dict(zip(measurements, rehearsal.schedules, strict=True)),
            quantities=(
                *(goal.quantity for goal in self._slo.goals),
                *(ceiling.quantity for ceiling in self._slo.ceilings),
            ),
            values=values,
            violations=violated,
            room=_room(self._profile, rehearsal),
        )


class _Rehearsed:
    """What a candidate did when it was simulated, and the schedules to bring that up to date with."""

    def __init__(
        self,
        *,
        profile: Profile,
        schedules: Mapping[str, Schedule],
        quantities: Sequence[Quantity],
        values: tuple[float, ...] | None,
        violations: Mapping[str, float],
        room: float,
    ) -> None:
        self.values = values
        self.violations = violations
        self.room = room
        self._profile = profile
        self._schedules = schedules
        self._quantities = tuple(dict.fromkeys(quantities))
        self._busy_s = {label: self._served(label, profile).busy_s for label in schedules}
        self._at_first = self._statistics(profile)

    def is_stale(self, profile: Profile) -> bool:
        """Whether it must be simulated again: the pool is another, or time has moved a lot."""
        if profile.memory != self._profile.memory:
            return True
        if profile is self._profile:
            return False
        return any(
            abs(np.log(max(self._served(label, profile).busy_s, _LEAST) / max(busy_s, _LEAST)))
            > (_STALE_OPEN if self._schedules[label].concurrency is None else _STALE_CLOSED)
            for label, busy_s in self._busy_s.items()
        )

    def changes(self, profile: Profile) -> dict[Quantity, float]:
        """Return the factor on each quantity between the constants it was simulated with and these."""
        if profile is self._profile:
            return dict.fromkeys(self._quantities, 1.0)
        now = self._statistics(profile)
        return {
            quantity: now[quantity] / before if before > _LEAST and now[quantity] > _LEAST else 1.0
            for quantity, before in self._at_first.items()
        }

    def _served(self, label: str, profile: Profile) -> Served:
        return self._schedules[label].replay(profile.step, profile.experts)

    def _statistics(self, profile: Profile) -> dict[Quantity, float]:
        """Return what moves as each quantity does; 1 for what no constant moves."""
        found = dict.fromkeys(self._quantities, 1.0)
        for label in self._schedules:
            moving = {each: _statistic(each) for each in self._quantities if each.load == label}
            wanted = {each: known for each, known in moving.items() if known is not None}
            if wanted:
                values = statistics(self._served(label, profile), wanted.values())
                found |= zip(wanted, values.tolist(), strict=True)
        return found


def told(
    slo: Slo, measurements: Mapping[str, Measurement]
) -> tuple[tuple[float, ...] | None, dict[str, float]]:
    """Return values (None if an objective has none) and violations, as they would be told of a trial."""
    found = [
        goal.quantity.of(measurements[goal.quantity.load], slo.request_limits_s(goal.quantity.load))
        for goal in slo.goals
    ]
    values = tuple(value for value in found if value is not None)
    return (values if len(values) == len(found) else None), violations(slo, measurements)


def _statistic(quantity: Quantity) -> Statistic | None:
    """Return what moves as the quantity does; None for the share of errors, which no constant moves."""
    match quantity.metric:
        case Metric.ERROR_RATIO:
            return None
        case Metric.GOODPUT:
            return (Metric.REQUEST_THROUGHPUT, "")
        case Metric.ITL:
            return (Metric.TPOT, "mean")
        case metric if metric in _RATES:
            return (metric, "")
        case metric:
            return (metric, quantity.statistic or "mean")


def _pool_size(profile: Profile) -> float:
    return max(profile.memory.free_gib * 0.9 - profile.memory.weights_gib, _LEAST)


def _room(profile: Profile, rehearsal: Rehearsal) -> float:
    """Return what is left of the GPU's memory, less all reserves, in standard errors."""
    ready: Ready = rehearsal.ready
    has, flags = profile.memory, ready.flags
    chunk = flags.chunk_tokens or flags.max_prefill_tokens
    active = max(_CAPTURED_SHARE * chunk, rehearsal.largest_pass_tokens / flags.dp)
    reserve_gib = has.fixed_reserve_gib + has.graph_reserve_gib * flags.decode_graph_max_batch
    reserve_gib += has.chunk_reserve_gib * active / 1024
    return (ready.capacity.available_gib - reserve_gib) / _ROOM_ERROR_GIB
