"""How much of the budget is left, and whether a launch still fits into it. Pure.

In: what the user allowed (launches, seconds) and the durations of the trials so far. Out: yes or no.
Invariant: no launch of the search begins that by the earlier ones would not end in time, the whole
confirmation included; one that takes longer is cut short before it eats the confirmation's time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from autotune.errors import ConfigError
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial
from autotune.slo import Decision


@dataclass(frozen=True)
class Budget:
    """What the user allows.

    `launches`: of the search, the baseline's included. `study_s`: seconds of the study's clock over all
    calls; `call_s`: of this call. `finalists` and `rounds` size the confirmation, which takes time but no
    launches of the search, unless that left some (`search.rounds`). `precision`: further rounds follow until
    the gain is known to plus or minus this share, as far as time allows; None: none do for that reason.
    `least_gain`: the search ends once a further launch promises less than this share of the best value so far
    (`search.stopping`); None: never for that reason.
    `stops_early`: a load point of the search ends while it runs, once it is decided or lost.
    `measures_live`: further candidates are measured on the engine of one that was launched, where it can
    change a flag while it runs.
    """

    launches: int | None = None
    study_s: float | None = None
    call_s: float | None = None
    finalists: int = 3
    rounds: int = 2
    precision: float | None = None
    least_gain: float | None = None
    stops_early: bool = True
    measures_live: bool = True

    @property
    def confirmation_launches(self) -> int:
        """How many launches a full confirmation takes."""
        return (self.finalists + 1) * self.rounds


def parse_share(option: str, text: str, *, words: str = "a share such as 2%") -> float:
    """Return the share that a text such as `2%` or `0.02` stands for, above 0 and below 1.

    `words`: what else may be written, for the message.

    Raises:
        ConfigError: it is none; `option` is named.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ConfigError(f"{option} {text!r}: write {words}")
    return share


def parse_least_gain(text: str) -> float | None:
    """Return the share that a launch of the search must promise, None for `off`.

    Raises:
        ConfigError: it is neither a share nor `off`.
    """
    if text == "off":
        return None
    return parse_share("--least-gain", text, words="a share such as 1%, or off")


def seconds_until(text: str) -> float:
    """Return the seconds from now until a time of day such as 07:00, of tomorrow if it has passed.

    Raises:
        ConfigError: it is none.
    """
    try:
        moment = datetime.strptime(text, "%H:%M").astimezone().time()
    except ValueError:
        raise ConfigError(f"--until {text!r}: write a time of day such as 07:00") from None
    now = datetime.now().astimezone()
    end = now.replace(hour=moment.hour, minute=moment.minute, second=0, microsecond=0)
    if end <= now:
        end += timedelta(days=1)
    return (end - now).total_seconds()


def allowance_s(budget: Budget, trials: Sequence[NumberedTrial]) -> float | None:
    """Return the seconds that this call may take after the trials of earlier calls, None if unlimited."""
    limits = [] if budget.call_s is None else [budget.call_s]
    if budget.study_s is not None:
        spent_s = sum(trial.record.duration_s / trial.record.slots for trial in trials)
        limits.append(budget.study_s - spent_s)
    return min(limits, default=None)


def launches_used(trials: Sequence[NumberedTrial]) -> int:
    """Return how many launches of the search were spent.

    What cost no launch (also because it was measured live), was cut off, or was lost to a node is free.
    """
    return sum(
        trial.record.role is not Role.CONFIRMATION
        and trial.record.outcome is not Outcome.INTERRUPTED
        and not trial.record.is_lost_to_node
        and trial.record.is_launch
        for trial in trials
    )


def launches_unspent(budget: Budget, trials: Sequence[NumberedTrial]) -> int | None:
    """Return how many launches the search left, None where they are not limited."""
    return None if budget.launches is None else max(budget.launches - launches_used(trials), 0)


def expected_trial_s(records: Sequence[TrialRecord]) -> float:
    """Return how long a trial may take: the 80th percentile of the measured ones.

    Before the first measured one the longest that was launched in vain; 0 if there is none either.
    """
    return _measured_trial_s(records) or max((record.duration_s for record in records), default=0.0)


def reserve_s(budget: Budget, trials: Sequence[NumberedTrial], *, slots: int = 1) -> float:
    """Return the seconds that the search leaves to the confirmation; 0 while nothing was measured.

    Slots run rounds side by side, each of them whole. Every launch of a confirmation measures every load
    point whole, so that those of the search that missed a ceiling, skipped the rest or stopped early say
    nothing about it.
    """
    in_a_row = (budget.finalists + 1) * -(-budget.rounds // slots)
    records = [trial.record for trial in trials]
    whole = [record for record in records if record.role is not Role.SEARCH or _is_whole(record)]
    return in_a_row * (_measured_trial_s(whole) or _measured_trial_s(records))


def teardown_s(trials: Sequence[NumberedTrial]) -> float:
    """Return how long an engine may take to go once its time is up."""
    return max((trial.record.durations_s.get("teardown", 0.0) for trial in trials), default=0.0)


def has_launches(budget: Budget, trials: Sequence[NumberedTrial], *, running: int = 0) -> bool:
    """Whether a launch of the search, or of the baseline, is left beside those that run."""
    return budget.launches is None or launches_used(trials) + running < budget.launches


def fits(trials: Sequence[NumberedTrial], left_s: float | None, *, reserved_s: float = 0.0) -> bool:
    """Whether one more launch ends in time, with so many seconds left after it."""
    if left_s is None:
        return True
    return left_s > 0 and expected_trial_s([trial.record for trial in trials]) + reserved_s <= left_s


def _is_whole(record: TrialRecord) -> bool:
    has_missed = record.verdict is not None and record.verdict.decision is Decision.MISSED
    return not has_missed and not record.stops


def _measured_trial_s(records: Sequence[TrialRecord]) -> float:
    """Return the 80th percentile of the trials that were measured to their end, 0 without any."""
    durations = [
        record.duration_s
        for record in records
        if record.outcome is Outcome.MEASURED and record.is_launch and record.same_as is None
    ]
    return float(np.percentile(durations, 80)) if durations else 0.0
