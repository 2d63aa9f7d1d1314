"""Whether a load that runs can still be worth more than the best so far, by a model's course of it. Pure.

In: a `Course`, which a model expects of a closed loop, and the first requests of the load itself. Out: the
most that the whole load can be worth, and whether that is too little. A closed loop sends its next request
when one has ended, so that the times of sending are its progress.
Invariant: what was seen counts as long as it took; what is to come counts as the model's, at the pace seen,
less all that the pace may be wrong by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.request import RequestRecord

LEAST_SHARE = 1 / 3
"""Before so many of its requests a load is not given up; its pace over the opening wave says nothing."""
_STRETCHES = 6
_STANDARD_ERRORS = 3.0
_COURSE_ERROR = 0.05
"""How far the model may bend off its pace: the form error of its step times (`search.twin`), whose level the
pace corrects."""
_LEAST_REST = 0.1


@dataclass(frozen=True, eq=False)
class Course:
    """A model's course of a closed loop, and what must be beaten; a throughput, of which more is better.

    `sent_s`: when it sends its requests, in order, all of them. `worth`: the throughput that it has then, per
    second, over the window of `metrics.measure`. `to_beat`: the best so far, in the same unit.
    `noise_ratio`: by what share of it two launches of one candidate may differ.
    """

    sent_s: NDArray[np.float64]
    worth: float
    to_beat: float
    noise_ratio: float

    def most(self, seen: Sequence[RequestRecord], *, concurrency: int) -> float | None:
        """Return the most that the whole load can be worth, by its first requests; None if too few tell."""
        count = len(seen)
        if count < max(LEAST_SHARE * len(self.sent_s), 2 * concurrency) or count >= len(self.sent_s):
            return None
        sent_s = np.sort([record.scheduled_s for record in seen])
        stretches = np.linspace(concurrency, count - 1, _STRETCHES + 1).astype(int)
        took_s, expected_s = np.diff(sent_s[stretches]), np.diff(self.sent_s[stretches])
        if not (expected_s > 0).all():
            return None
        pace = float(took_s.sum() / expected_s.sum())
        left = max(1 - _error(took_s / expected_s, expected_s, pace), _LEAST_REST)
        rest_s = float(self.sent_s[-1] - self.sent_s[count - 1]) * pace * left
        whole_s = float(took_s.sum()) + rest_s
        return self.worth * float(self.sent_s[-1] - self.sent_s[concurrency]) / whole_s

    def is_too_little(self, worth: float) -> bool:
        """Whether it lies below the best so far by more than the noise."""
        return worth < self.to_beat * (1 - self.noise_ratio)


def _error(paces: NDArray[np.float64], weights: NDArray[np.float64], pace: float) -> float:
    """Return by what share the pace may be too slow: its standard errors, or its drift if that is more."""
    spread = np.sqrt(np.average((paces - pace) ** 2, weights=weights) / (len(paces) - 1))
    half = len(paces) // 2
    early = np.average(paces[:half], weights=weights[:half])
    late = np.average(paces[half:], weights=weights[half:])
    return float(max(_STANDARD_ERRORS * spread, abs(late - early)) / pace) + _COURSE_ERROR
