"""Keeps what the turns of a load computed, as rows of numbers: how a `Schedule` comes about.

In: every turn of a load, then its records. Out: the `Schedule`. Pure. Invariant: the rows are those of single
passes and of runs of decode passes, however the scheduler put passes together into turns.
"""

from array import array
from collections.abc import Sequence

import numpy as np

from autotune.request import RequestRecord
from autotune.simulator.costs import PassLoad
from autotune.simulator.replay import ROUNDING_S, Floats, Passes, Schedule
from autotune.simulator.turn import Turn


class ScheduleRecorder:
    """Sees the turns of one load; `schedule` puts them together with its records."""

    def __init__(self, *, began_s: float, graph_limit: int, attention_groups: int = 1) -> None:
        self._began_s = began_s
        self._graph_limit = graph_limit
        self._attention_groups = attention_groups
        self._rows: list[float] = []
        self._spans: list[float] = []
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}

    def __call__(self, turn: Turn) -> None:
        """Take a turn in."""
        if turn.chunks:
            self._take_chunks(turn)
            return
        load, steps, number = turn.load, len(turn.token_times_s), len(self._spans) // 2
        self._take_pass(load, steps, steps * load.sequences + len(turn.first))
        self._spans += (turn.started_s - self._began_s, turn.ended_s - self._began_s)
        for sequence in turn.first:
            self._first.setdefault(sequence.request.index, number)
        for sequence in turn.finished:
            self._last[sequence.request.index] = number

    def _take_chunks(self, turn: Turn) -> None:
        """Take a run of chunks in, as if each pass had been a turn."""
        started_s = turn.started_s - self._began_s
        for ended_s, load in turn.chunks:
            self._take_pass(load, min(load.sequences, 1), load.sequences)
            self._spans += (started_s, ended_s - self._began_s)
            started_s = ended_s - self._began_s

    def _take_pass(self, load: PassLoad, steps: int, tokens: int) -> None:
        self._rows += (
            load.new_tokens,
            load.token_pairs,
            load.sequences,
            load.context_sum,
            load.longest_context,
            steps,
            tokens,
        )

    def schedule(
        self, records: Sequence[RequestRecord], *, concurrency: int | None, request_s: float
    ) -> Schedule:
        """Return the schedule of the load whose records these are; `request_s` as it was simulated with."""
        good = [each for each in records if each.failure is None]
        spans = np.frombuffer(array("d", self._spans)).reshape(-1, 2)
        columns = np.frombuffer(array("d", self._rows)).reshape(-1, 7).T.copy()
        sent_s = np.array([each.sent_s or 0.0 for each in good])
        after, offset_s = np.full(len(good), -1), sent_s
        if concurrency is not None:
            after = np.searchsorted(spans[:, 1], sent_s, side="right") - 1
            offset_s = sent_s - np.where(after >= 0, spans[after, 1] if len(spans) else 0.0, 0.0)
        return Schedule(
            passes=Passes(self._graph_limit, self._attention_groups, *columns),
            sent_after=after,
            sent_offset_s=offset_s,
            first_pass=np.array([self._first[each.index] for each in good], dtype=np.int64),
            last_pass=np.array([self._last[each.index] for each in good], dtype=np.int64),
            input_tokens=np.array([each.input_tokens for each in good], dtype=np.int64),
            output_tokens=np.array([each.output_tokens for each in good], dtype=np.int64),
            idle=_idle(spans, sent_s + request_s),
            concurrency=concurrency,
        )


def _idle(spans: Floats, arrived_s: Floats) -> tuple[tuple[int, int], ...]:
    """Return each pass that did not begin with the end of the one before, and the request it waited for."""
    if not len(arrived_s):
        return ()
    before = np.concatenate(([0.0], spans[:-1, 1]))
    waited = np.flatnonzero(spans[:, 0] > before + ROUNDING_S)
    return tuple((int(each), int(np.abs(arrived_s - spans[each, 0]).argmin())) for each in waited)
