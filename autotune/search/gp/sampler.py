"""An Optuna sampler for few, dear and often failing trials: constrained, crash-aware, with a prior or none.

In: a study's trials, failed ones included. Out: the candidate whose launch promises most. Talks to Optuna.
Invariants: the same seed and trials give the same candidates; a candidate that was tried or is pending is
not proposed again while another one is left; nothing is proposed that the domain does not accept.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeAlias

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from autotune.search.gp.acquisition import log_promise, log_worth
from autotune.search.gp.appraisal import Appraisal
from autotune.search.gp.encoding import Encoding
from autotune.search.gp.history import History, IsCrash, Seen, has_failed, history_of, joint_space
from autotune.search.gp.kernel import Array
from autotune.search.gp.model import Batch, Model
from autotune.search.gp.prior import Prediction, Prior

START_UP_TRIALS = 8
"""How many trials are spread over the space before a model without a prior is asked."""
_RANDOM, _NEAR = 1000, 100
"""Candidates over the whole space, and around each of the best trials."""
_RANDOM_WITH_PRIOR, _NEAR_WITH_PRIOR = 256, 8
"""The same if a prior must predict each: it costs milliseconds a candidate."""
_LAUNCH_NOISE = 0.02
"""By how much launches of one candidate differ in what ceilings are for, as far as a model does not tell."""
_BEST = 5
_OTHERS = 200
"""How many of the most promising are weighed against candidates in question."""
_SPREAD_TRIES = 16
_TRIED = 1e6
"""Subtracted from a logarithm: below everything that was not tried."""

_Ranked: TypeAlias = tuple[dict[str, Any], float | None]
"""A candidate, and how much it is expected to gain, if that is known."""


class Domain(Protocol):
    """What may be launched, beyond what Optuna's distributions say."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Every parameter, conditional ones included."""
        ...

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the candidate as it would be launched: on the grid, without what takes no part."""
        ...

    def accepts(self, params: Mapping[str, Any]) -> bool:
        """Whether a complete candidate is worth a trial."""
        ...


class CrashAwareSampler(BaseSampler):
    """Expected improvement times the chance of feasibility, under a Gaussian process for each quantity.

    Objectives and constraints (`Trial.set_constraint`) are learnt from measured trials only, crashes as a
    quantity of their own from all; `is_crash` tells which trials that are neither complete nor running
    crashed because of their parameters, all failed ones by default. With a `prior` the processes model what
    it gets wrong, and no trial is spent on spreading over the space.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        prior: Prior | None = None,
        domain: Domain | None = None,
        is_crash: IsCrash = has_failed,
    ) -> None:
        self._generator = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._prior = prior
        self._domain = domain
        self._is_crash = is_crash
        self._screened: list[dict[str, Any]] = []
        self._gain: float | None = None

    @property
    def expected_gain(self) -> float | None:
        """How much the last proposal is expected to improve on the best feasible trial, as a share of it.

        The chance that it is feasible counts. None where nothing was feasible, with several objectives, and
        for trials that are spread over the space.
        """
        return self._gain

    def reseed_rng(self) -> None:
        """Forget the seed."""
        self._generator = np.random.default_rng()
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return every parameter with a choice that the domain or an earlier trial has, failed ones too."""
        space = joint_space(study, trial) if self._domain is None else self._domain.distributions
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw evenly: the parameter is new to the study."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the most promising candidate that the domain accepts, nothing if it accepts none."""
        if not search_space:
            return {}
        encoding, history = self._look(study, trial, search_space)
        nothing: _Ranked = ({}, None)
        params, self._gain = next(self._accepted(history, encoding), nothing)
        return params

    def appraise(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        rows: Sequence[Mapping[str, Any]],
        *,
        has_others: bool,
    ) -> Appraisal:
        """Return what tells how these complete candidates compare; from the start, when all promise the same.

        `trial` is left out of what is known or pending. `has_others`: also how they compare with the best
        others that are accepted, those around the first row among them.
        """
        encoding, history = self._look(study, trial, search_space)
        others = self._accepted(history, encoding, rows[:1]) if has_others else iter(())
        seen, pending = self._known(history, encoding)
        return Appraisal(
            encoding,
            history,
            seen=seen,
            pending=pending,
            rows=rows,
            own=self._batch(encoding, rows),
            others=self._batch(encoding, [each for each, _ in islice(others, _OTHERS)]),
            seed=int(self._generator.integers(2**32)),
        )

    def worth_of(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        rows: Sequence[Mapping[str, Any]],
    ) -> list[float] | None:
        """Return what a launch of each complete candidate is believed to be worth (`log_worth`).

        None where trials are still spread over the space, with several objectives, or nothing feasible.
        """
        encoding, history = self._look(study, trial, search_space)
        if not rows or self._spreads(history):
            return None
        worth = log_worth(self._model(history, encoding, self._batch(encoding, rows)), _LAUNCH_NOISE)
        return None if worth is None else worth.tolist()

    def _look(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> tuple[Encoding, History]:
        if self._prior is not None:
            self._prior.learn(study.get_trials(deepcopy=False))
        return Encoding(search_space), history_of(study, trial, set(search_space), self._is_crash)

    def _spreads(self, history: History) -> bool:
        """Whether too little is known for a model."""
        return self._prior is None and len(history.seen) < START_UP_TRIALS

    def _model(self, history: History, encoding: Encoding, pool: Batch) -> Model:
        seen, pending = self._known(history, encoding)
        return Model(history, encoding, seen=seen, pending=pending, pool=pool)

    def _known(self, history: History, encoding: Encoding) -> tuple[Batch, Batch]:
        """Return the trials that were seen, and those that are pending."""
        seen = self._batch(encoding, [each.params for each in history.seen])
        return seen, self._batch(encoding, history.pending)

    def _accepted(
        self, history: History, encoding: Encoding, near: Sequence[Mapping[str, Any]] = ()
    ) -> Iterator[_Ranked]:
        """Yield what the domain accepts, the most promising first; look also near these candidates."""
        ranked = self._ranked(history, encoding, near)
        return (each for each in ranked if self._domain is None or self._domain.accepts(each[0]))

    def _ranked(
        self, history: History, encoding: Encoding, near: Sequence[Mapping[str, Any]]
    ) -> Iterator[_Ranked]:
        """Yield complete candidates, the most promising first and those that were tried last."""
        tried = encoding.units([*(each.params for each in history.seen), *history.pending])
        if self._spreads(history):
            return ((each, None) for each in self._completed(encoding, self._spread(encoding, tried)))
        rows = self._pool(history, encoding, near)
        batch = self._batch(encoding, rows)
        model = self._model(history, encoding, batch)
        promise = log_promise(model, self._generator)
        promise[_is_among(batch.points, encoding.columns(tried))] -= _TRIED
        unit = model.gain_unit()
        gains = [None] * len(rows) if unit is None else list(np.exp(promise) / unit)
        return ((rows[index], gains[index]) for index in np.argsort(-promise, kind="stable"))

    def _spread(self, encoding: Encoding, tried: Array) -> Array:
        """Return random candidates, those far from every trial first."""
        units = encoding.spread(_RANDOM, self._generator)
        if len(tried):
            few = encoding.columns(units[:_SPREAD_TRIES])
            apart = ((few[:, None] - encoding.columns(tried)[None]) ** 2).sum(-1).min(1)
            units[:_SPREAD_TRIES] = units[np.argsort(-apart, kind="stable")]
        return units

    def _pool(
        self, history: History, encoding: Encoding, near: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return candidates over the whole space, around the best trials and near some.

        Those that a prior has predicted are kept for the next time, since they cost nothing any more.
        """
        best = encoding.units([*(each.params for each in _best(history)), *near])
        if self._prior is None:
            return self._drawn(encoding, _RANDOM, best, _NEAR)
        count = 0 if self._screened else _RANDOM_WITH_PRIOR
        self._screened += self._drawn(encoding, count, best, _NEAR_WITH_PRIOR)
        return [each for each in self._screened if encoding.knows(each)]

    def _drawn(self, encoding: Encoding, count: int, best: Array, near: int) -> list[dict[str, Any]]:
        rows = [encoding.spread(count, self._generator)]
        rows += [encoding.around(row, near, self._generator) for row in best]
        return self._completed(encoding, np.vstack(rows))

    def _completed(self, encoding: Encoding, units: Array) -> list[dict[str, Any]]:
        rows = encoding.values(units)
        return rows if self._domain is None else [self._domain.complete(row) for row in rows]

    def _batch(self, encoding: Encoding, rows: Sequence[Mapping[str, Any]]) -> Batch:
        return Batch(encoding.columns(encoding.units(rows)), self._predictions(rows))

    def _predictions(self, rows: Sequence[Mapping[str, Any]]) -> list[Prediction] | None:
        return None if self._prior is None else [self._prior.predict(row) for row in rows]


def _best(history: History) -> list[Seen]:
    """Return the best measured trials, feasible ones first; of several objectives each counts in turn."""
    count = len(history.signs)
    ranked = [
        sorted(history.whole, key=lambda each: (each.is_feasible, (each.values or ())[index]), reverse=True)
        for index in range(count)
    ]
    in_turn = [each for row in zip(*ranked, strict=True) for each in row]
    return list({id(each): each for each in in_turn}.values())[:_BEST]


def _is_among(points: Array, others: Array) -> Any:
    """Whether each point is one of the others."""
    if not len(others):
        return np.zeros(len(points), dtype=bool)
    return (np.abs(points[:, None] - others[None]).max(-1) < 1e-9).any(1)  # noqa: PLR2004 - rounding
