"""What SGLang's /set_internal_state does to a simulated engine.

In: a parsed body, a scheduler, what it was launched with. Out: whether each rank did it. Shared by the HTTP
server and the simulated launcher. Invariant: the limit is that of one rank, in the body and in what the
information page tells, and the scheduler, whose ranks count as one, runs with their sum.
"""

import math
from collections.abc import Mapping

from autotune.simulator.scheduler import Scheduler
from autotune.simulator.startup import Ready

_KEY = "pp_max_micro_batch_size"


class StateBodyError(ValueError):
    """A body that the endpoint does not take."""


def set_internal_state(scheduler: Scheduler, ready: Ready, body: object) -> list[bool]:
    """Change the running limit if the body asks for nothing else, from 1 to the launched one.

    Digits in a text count as a number.

    Raises:
        StateBodyError: the body or a value is not what the endpoint takes.
    """
    limit = _asked(body).get(_KEY)
    ranks = ready.flags.dp
    is_done = limit is not None and 1 <= limit <= ready.capacity.running_limit
    if limit is not None and is_done:
        scheduler.running_limit = int(limit) * ranks
    return [is_done] * ranks


def rank_limit(scheduler: Scheduler, ready: Ready) -> int:
    """Return how many requests a rank runs at most right now."""
    return scheduler.running_limit // ready.flags.dp


def _asked(body: object) -> Mapping[str, float]:
    """Return the known change that a body asks for, nothing if there is another one beside it."""
    changes = body.get("server_args") if isinstance(body, dict) else None
    if not isinstance(changes, dict):
        raise StateBodyError("Field required: server_args")
    try:
        values = {str(name): float(value) for name, value in changes.items()}
    except (TypeError, ValueError) as error:
        raise StateBodyError(f"Input should be a valid number: {error}") from None
    return values if set(values) == {_KEY} and math.isfinite(values[_KEY]) else {}
