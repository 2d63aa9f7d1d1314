"""What candidates promise, to be asked again as trials end, without the storage.

In: a history, candidates that may be measured soon, and the best others. Out: their promises once further
trials are known. Pure. Invariant: it is made by who draws and holds all that it needs, so that another thread
may ask; a prior's predictions are those of then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

from autotune.search.gp.acquisition import log_promise
from autotune.search.gp.encoding import Encoding
from autotune.search.gp.history import History, Seen, seen_of
from autotune.search.gp.kernel import Array
from autotune.search.gp.model import Batch, Model


@dataclass(frozen=True)
class Promises:
    """Logarithms: what each row promises, its chance not to crash, and what the best other one promises."""

    rows: Array
    survival: Array
    other: float


@dataclass(frozen=True)
class Appraisal:
    """`rows` are the candidates in question, complete, `own` as the model sees them; `others` are the rest.

    `history`, `seen` and `pending` as in a `Model`; `seed`: of the weights of several objectives.
    """

    encoding: Encoding
    history: History
    seen: Batch
    pending: Batch
    rows: Sequence[Mapping[str, Any]]
    own: Batch
    others: Batch
    seed: int

    def promises(self, told: Sequence[FrozenTrial] = ()) -> Promises:
        """Return what there is to promise once these trials are told, measured ones of the rows."""
        with threadpool_limits(limits=1, user_api="blas"):
            model = self._model([seen_of(each, self.history.signs) for each in told])
            promise = log_promise(model, np.random.default_rng(self.seed))
            count = len(self.rows)
            other = float(promise[count:].max(initial=-np.inf))
            return Promises(promise[:count], model.log_survival(self.own), other)

    def _model(self, ended: Sequence[Seen]) -> Model:
        at = [self.rows.index(each.params) for each in ended]
        return Model(
            replace(self.history, seen=(*self.history.seen, *ended)),
            self.encoding,
            seen=self.seen.joined(self.own.part(at)),
            pending=self.pending,
            pool=self.own.joined(self.others),
        )
