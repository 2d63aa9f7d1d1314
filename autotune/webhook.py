"""Messages to a webhook: on the first candidate that meets the SLO, when the study stops, when it has ended.

In: the tuner's events and the study's end. Out: JSON with `text`, as Slack and its likes take it, posted from
a thread of its own, in order. Talks HTTP. Invariants: a webhook that fails never stops a study, and is told;
the address is a secret: it is not stored, not printed and not in any error.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http import HTTPStatus
from types import TracebackType
from typing import Self

from autotune.errors import AutotuneError, ConfigError
from autotune.events import Event, Observe, TrialEnded
from autotune.record import Role
from autotune.report.answer import answer_text
from autotune.report.units import metric_value
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Decision
from autotune.study import Study

ATTEMPTS = 3
FIRST_PAUSE_S = 1.0
"""Before the second attempt; it doubles before each further one."""
_TIMEOUT_S = 10.0
_SIMULATED = "SIMULATED "
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class Webhook(AbstractContextManager["Webhook"]):
    """The messages of one `tune` call, none at all without an address; `tell` shows what did not arrive.

    Leaving the context waits for the messages that are on their way, at most about half a minute for each.

    Raises:
        ConfigError: the address is none of HTTP.
    """

    def __init__(
        self,
        address: str | None,
        study: Study,
        tell: Callable[[str], None],
        *,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        if address is not None:
            _check(address)
        self._address = address
        self._study = study
        self._tell = tell
        self._pause_s = pause_s
        self._has_feasible = False
        self._is_simulated = False
        self._has_begun = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="webhook")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._has_begun:
            self._send("stopped", f"{self._mark}{self._study.name} has stopped{_reason(error)}.")
        self._pool.shutdown(wait=True)

    def catch_up(self, trials: Iterable[NumberedTrial]) -> None:
        """Take in what earlier calls of the same study did, and told."""
        for trial in trials:
            self._take_in(trial)

    def beside(self, observe: Observe) -> Observe:
        """Return an observer of the tuner's events that tells this webhook, too."""

        def both(event: Event) -> None:
            self._has_begun = True
            observe(event)
            if isinstance(event, TrialEnded):
                trial = event.trial.ended(event.record)
                if self._take_in(trial):
                    self._send("first_feasible", self._feasible_text(trial), trial=trial.number)

        return both

    def finish(self, history: StudyHistory) -> None:
        """Tell the answer."""
        answer = history.answer
        self._send(
            "finished",
            f"{self._study.name} has ended.\n{answer_text(history)}",
            meets_slo=answer is not None and answer.meets_slo,
            trial=None if answer is None else answer.winner,
        )

    def _take_in(self, trial: NumberedTrial) -> bool:
        """Return whether it is the first trial of the search, or of the baseline, that meets the SLO."""
        self._is_simulated |= trial.record.is_simulated
        verdict = trial.record.verdict
        meets = verdict is not None and verdict.decision is Decision.MET
        is_first = meets and not self._has_feasible and trial.record.role is not Role.CONFIRMATION
        self._has_feasible |= is_first
        return is_first

    def _feasible_text(self, trial: NumberedTrial) -> str:
        goal, values = self._study.slo.goals[0], trial.record.objectives
        value = metric_value(goal.quantity.metric, values[0] if values else None)
        who = "the baseline" if trial.record.role is Role.BASELINE else str(trial.record.to_candidate())
        return (
            f"{self._mark}{self._study.name}: the first candidate meets the SLO: "
            f"trial {trial.number} ({who}), "
            f"{goal.quantity} {value}. The search goes on."
        )

    @property
    def _mark(self) -> str:
        return _SIMULATED if self._is_simulated else ""

    def _send(self, event: str, text: str, **facts: object) -> None:
        if self._address is None:
            return
        message = {"text": text, "event": event, "study": self._study.name}
        self._pool.submit(
            self._deliver, self._address, {**message, "is_simulated": self._is_simulated, **facts}
        )

    def _deliver(self, address: str, message: Mapping[str, object]) -> None:
        """Post a message, again after a while if that may help; tell the user if it does not arrive."""
        problem, pause_s = "", self._pause_s
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(pause_s)
                pause_s *= 2
            problem, is_final = _post(address, message)
            if not problem or is_final:
                break
        if problem:
            self._tell(f"the webhook did not take the message {message['event']!r}: {problem}")


def _post(address: str, message: Mapping[str, object]) -> tuple[str, bool]:
    """Return what is wrong, empty if nothing, and whether another attempt is useless."""
    import httpx  # noqa: PLC0415 - it takes 0.3 s, which a study without a webhook need not wait

    try:
        status = httpx.post(address, json=message, timeout=_TIMEOUT_S).status_code
    except httpx.HTTPError as error:
        return type(error).__name__, False  # its text may hold the address
    is_passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return "" if httpx.codes.is_success(status) else f"HTTP {status}", not is_passing


def _check(address: str) -> None:
    import httpx  # noqa: PLC0415 - as above

    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            "--webhook: this is no address of HTTP; it begins with https:// and names a host"
        ) from None


def _reason(error: BaseException) -> str:
    """Return why a study stopped; what is not meant for the user stays in its traceback."""
    match error:
        case KeyboardInterrupt():
            return " by Ctrl-C or a signal; the same command goes on from there"
        case AutotuneError():
            return f": {error}\nThe same command goes on from there"
        case _:
            return f" because of a bug in autotune ({type(error).__name__})"
