"""Puts a started engine together: the scheduler of a profile, its flags and its capacity, and its batch log.

In: what `startup.py` worked out, and a seed. Out: a `Scheduler`, and SGLang's log lines for its turns. Shared
by the simulated launcher and the HTTP server, so that both serve with the same engine.
"""

from collections.abc import Callable

from autotune.simulator import log_text
from autotune.simulator.costs import StepCosts
from autotune.simulator.profile import Profile
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.startup import Ready
from autotune.simulator.turn import Turn, TurnKind


def open_scheduler(profile: Profile, ready: Ready, *, seed: int) -> Scheduler:
    """Return the scheduler of a launch; ranks of attention DP count as one, with their summed pools."""
    flags, capacity = ready.flags, ready.capacity
    return Scheduler(
        flags=flags,
        costs=StepCosts(
            profile,
            decode_graph_max_batch=flags.decode_graph_max_batch * flags.dp,
            seed=seed,
            attention_groups=flags.dp,
        ),
        pool_tokens=capacity.pool_tokens * flags.dp,
        running_limit=capacity.running_limit * flags.dp,
        reserves_ignored_eos=profile.reserves_ignored_eos,
        prefill_room_tokens=capacity.prefill_room_tokens * flags.dp,
        seed=seed,
    )


class BatchLog:
    """Writes what SGLang logs while it serves: every prefill, every 40th decode pass, every retraction."""

    def __init__(self, scheduler: Scheduler, write: Callable[[str], None]) -> None:
        self._scheduler = scheduler
        self._write = write
        self._steps = 0
        self._tokens = 0
        self._since_s = scheduler.now_s

    def __call__(self, turn: Turn) -> None:
        """Write the lines of one turn."""
        if turn.retraction is not None:
            self._write(log_text.retraction(turn.retraction))
        if turn.kind in {TurnKind.PREFILL, TurnKind.MIXED}:
            self._write(self._prefill_line(turn))
        elif turn.kind is TurnKind.DECODE:
            self._count_decodes(turn)

    def _prefill_line(self, turn: Turn) -> str:
        scheduler = self._scheduler
        pending = sum(each.length for each in scheduler.waiting)
        if scheduler.chunked is not None:
            pending += scheduler.chunked.to_compute
        return log_text.prefill_batch(
            turn,
            used=scheduler.pool.used,
            capacity=scheduler.pool.capacity,
            running=max(0, len(scheduler.running) - len(turn.first)),
            queued=len(scheduler.waiting),
            pending=pending,
        )

    def _count_decodes(self, turn: Turn) -> None:
        self._steps += len(turn.token_times_s)
        self._tokens += len(turn.token_times_s) * turn.decoded
        if self._steps < self._scheduler.flags.decode_log_interval:
            return
        scheduler = self._scheduler
        line = log_text.decode_batch(
            running=turn.decoded,
            used=scheduler.pool.used,
            capacity=scheduler.pool.capacity,
            queued=len(scheduler.waiting),
            tokens_per_s=self._tokens / max(turn.ended_s - self._since_s, 1e-9),
            has_graph=turn.decoded <= scheduler.flags.decode_graph_max_batch,
        )
        self._write(line)
        self._steps, self._tokens, self._since_s = 0, 0, turn.ended_s
