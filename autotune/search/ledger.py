"""The study's storage: Optuna's RDB, the only truth about trials, in the terms of this package.

In: trials to ask for and records to tell. Out: numbered candidates, and the `StudyHistory` that reports and
exports read. Talks to Optuna and its database. Invariants: a record is written before its trial is told, so
that a kill between the two loses nothing; a trial cut off is run again once, with the same candidate.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from autotune.errors import InfrastructureError, StudyError
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import Answer, NumberedTrial
from autotune.search.sampler import coordinates, suggest, suggest_one
from autotune.slo import violation
from autotune.space import Candidate, FlagValue
from autotune.study import Study, load_study

DATABASE_FILE = "study.db"
optuna.logging.set_verbosity(logging.ERROR)

_STATES = {
    Outcome.MEASURED: TrialState.COMPLETE,
    Outcome.INFEASIBLE: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
    Outcome.INVALID: TrialState.FAIL,
    Outcome.INTERRUPTED: TrialState.FAIL,
}


@dataclass(frozen=True)
class StudyHistory:
    """A study as its storage tells it; the only thing that reports and exports read.

    `trials`: finished trials in order of their numbers. `running`: how many are under way or were cut off.
    """

    study: Study
    folder: Path
    trials: tuple[NumberedTrial, ...]
    running: int
    answer: Answer | None


@dataclass(frozen=True)
class AskedTrial:
    """A trial that the storage knows as running; `confirms`: the trial whose candidate is launched again."""

    number: int
    role: Role
    candidate: Candidate
    confirms: int | None = None


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn a database or disk that fails into an InfrastructureError that says how to go on."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        raise InfrastructureError(
            f"the study's storage failed: {str(cause).splitlines()[0]}\n"
            f"    Look at the disk that holds {folder} (space, permissions) and run the same command again."
        ) from error
    except OSError as error:
        raise InfrastructureError(
            f"{error.filename or folder}: {error.strerror}\n"
            "    Everything told so far is kept; make room and run the same command again."
        ) from error


class Ledger:
    """One study's storage, opened by its only controller."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study = study
        self.folder = folder
        self._records: dict[int, TrialRecord] = {}
        self._optuna = optuna.create_study(
            study_name=study.name,
            storage=_open_storage(folder),
            directions=[
                "maximize" if goal.direction == "maximise" else "minimize" for goal in study.slo.goals
            ],
            load_if_exists=True,
        )
        stored = self._optuna.user_attrs.get("identity")
        if stored not in (None, study.identity):
            raise StudyError(f"{folder / DATABASE_FILE} belongs to a study with other inputs")
        if stored is None:
            self._optuna.set_user_attr("identity", study.identity)

    def use(self, sampler: BaseSampler) -> None:
        """Let this sampler propose candidates."""
        self._optuna.sampler = sampler

    def history(self) -> StudyHistory:
        """Return everything that was told so far."""
        trials = self._optuna.get_trials(deepcopy=False)
        finished = [trial for trial in trials if trial.state.is_finished() and "record" in trial.user_attrs]
        answer = self._optuna.user_attrs.get("answer")
        return StudyHistory(
            study=self.study,
            folder=self.folder,
            trials=tuple(NumberedTrial(trial.number, self._record(trial)) for trial in finished),
            running=sum(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials),
            answer=None if answer is None else Answer.model_validate_json(answer),
        )

    def ask(self) -> AskedTrial:
        """Return the next trial: one that waits in the queue, else the sampler's."""
        trial = self._optuna.ask()
        if "asked" in trial.user_attrs:
            for name in trial.user_attrs["asked"]["where"]:
                suggest_one(trial, name, self.study.space.tune[name])
            return _asked(trial.number, trial.user_attrs)
        candidate = suggest(trial, self.study.space)
        trial.set_user_attr("asked", _asking(candidate, Role.SEARCH, candidate.to_dict()))
        return AskedTrial(trial.number, Role.SEARCH, candidate)

    def ask_for(
        self,
        candidate: Candidate,
        role: Role,
        known: Mapping[str, FlagValue],
        confirms: int | None = None,
    ) -> AskedTrial:
        """Return a trial of a given candidate; nothing else may be waiting.

        `known` are its flags with the engine's own choices filled in, as far as they are foreseen: where the
        sampler shall believe the candidate to lie.
        """
        where = coordinates(self.study.space, known)
        self._optuna.enqueue_trial(where, user_attrs={"asked": _asking(candidate, role, where, confirms)})
        return self.ask()

    def waiting(self) -> bool:
        """Whether a trial waits to be run again."""
        return bool(self._optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def tell(self, asked: AskedTrial, record: TrialRecord) -> None:
        """Write the record, then give Optuna its result."""
        trial_id = self._id_of(asked.number)
        storage = self._optuna._storage  # noqa: SLF001 - a resumed trial has no live Trial object
        storage.set_trial_user_attr(trial_id, "record", record.model_dump_json(exclude_defaults=True))
        trial = Trial(self._optuna, trial_id)
        for judged in record.verdict.ceilings if record.verdict else ():
            trial.set_constraint(judged.ceiling, violation(judged))
        state = _STATES[record.outcome]
        values = list(record.objectives or ()) if state is TrialState.COMPLETE else None
        self._optuna.tell(asked.number, values, state=state)

    def answer(self, answer: Answer | None) -> None:
        """Keep the study's answer; None takes an earlier one back, because trials are added."""
        self._optuna.set_user_attr("answer", None if answer is None else answer.model_dump_json())

    def recover(self) -> tuple[int, ...]:
        """Settle the trials of a controller that is gone; return the numbers of those that will run again.

        A trial whose record was written is told; any other becomes INTERRUPTED and waits to be run again.
        Only for the study's only controller.
        """
        again = []
        for trial in self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            asked = _asked(trial.number, trial.user_attrs)
            if "record" in trial.user_attrs:
                self.tell(asked, _record_of(trial))
                continue
            if "asked" in trial.user_attrs:
                self.run_again(asked)
                again.append(trial.number)
            self.tell(asked, _interrupted(asked))
        return tuple(again)

    def run_again(self, asked: AskedTrial) -> None:
        """Put the candidate of a trial into the queue, once."""
        trials = self._optuna.get_trials(deepcopy=False)
        if any(trial.user_attrs.get("again") == asked.number for trial in trials):
            return
        asking = trials[asked.number].user_attrs["asked"]
        self._optuna.enqueue_trial(asking["where"], user_attrs={"asked": asking, "again": asked.number})

    def attempts(self, asked: AskedTrial) -> int:
        """Return how often the candidate of this trial was asked for in a row, this time included."""
        trials = {trial.number: trial for trial in self._optuna.get_trials(deepcopy=False)}
        count, number = 1, asked.number
        while (number := trials[number].user_attrs.get("again", -1)) in trials:
            count += 1
        return count

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        """Parse a finished trial's record once; it never changes."""
        if trial.number not in self._records:
            self._records[trial.number] = _record_of(trial)
        return self._records[trial.number]

    def _id_of(self, number: int) -> int:
        return self._optuna._storage.get_trial_id_from_study_id_trial_number(  # noqa: SLF001 - as above
            self._optuna._study_id,  # noqa: SLF001 - as above
            number,
        )


def read_history(folder: Path) -> StudyHistory:
    """Read a study's folder, also while it runs.

    Raises:
        StudyError: there is no study, or it has no storage yet.
    """
    study = load_study(folder)
    if not (folder / DATABASE_FILE).exists():
        raise StudyError(f"{folder} has no trials yet: {DATABASE_FILE} is missing")
    return Ledger(study, folder).history()


def _open_storage(folder: Path) -> RDBStorage:
    storage = RDBStorage(
        f"sqlite:///{folder / DATABASE_FILE}", engine_kwargs={"connect_args": {"timeout": 30}}
    )
    event.listen(storage.engine, "connect", _use_write_ahead_log)
    storage.engine.dispose()  # the connection that made the tables was opened without the listener
    return storage


def _use_write_ahead_log(connection: Any, _: object) -> None:
    """Let readers work beside the writer, and survive a kill at any moment."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _asking(
    candidate: Candidate, role: Role, where: Mapping[str, FlagValue], confirms: int | None = None
) -> dict[str, Any]:
    return {
        "role": role.value,
        "candidate": candidate.to_dict(),
        "where": dict(where),
        "confirms": confirms,
    }


def _asked(number: int, attributes: Mapping[str, Any]) -> AskedTrial:
    asking = attributes.get("asked", {})
    return AskedTrial(
        number=number,
        role=Role(asking.get("role", Role.SEARCH)),
        candidate=Candidate.of(asking.get("candidate", {})),
        confirms=asking.get("confirms"),
    )


def _record_of(trial: FrozenTrial) -> TrialRecord:
    return TrialRecord.model_validate_json(trial.user_attrs["record"])


def _interrupted(asked: AskedTrial) -> TrialRecord:
    return TrialRecord(
        outcome=Outcome.INTERRUPTED,
        role=asked.role,
        candidate=asked.candidate.to_dict(),
        is_simulated=False,
        began_s=0.0,
        reason="the controller ended during this trial",
        confirms=asked.confirms,
    )
