"""The study's trials in Optuna's storage, the only truth about them, in the terms of this package.

In: trials to ask for and records to tell. Out: numbered candidates, and the `StudyHistory` that reports and
exports read. Talks to Optuna, and to the disk, where a launch's record lies before it is told. Invariants: a
kill at any moment, and a storage that fails, loses no record; Ctrl-C waits for what is being written; Optuna
only keeps trials, it neither asks nor queues.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from autotune.atomic import replace_text
from autotune.errors import StudyError
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.answer import Answer
from autotune.search.confirmation import NumberedTrial
from autotune.search.gp.history import PARTIAL
from autotune.search.live_candidates import expected_flags
from autotune.search.place import place_of
from autotune.search.repeats import SearchEnd
from autotune.search.sampler import (
    Proposal,
    SamplerKind,
    SpaceSampler,
    coordinates,
    make_sampler,
    placed,
    trial_at,
)
from autotune.search.storage import disconnect, open_study, parsing, storage_errors
from autotune.search.study_history import StudyHistory
from autotune.slo import violation
from autotune.space import Candidate, FlagValue
from autotune.study import Study, load_study
from autotune.uninterrupted import signals_held

if TYPE_CHECKING:
    from autotune.search.gp.appraisal import Appraisal

_STATES = {
    Outcome.MEASURED: TrialState.COMPLETE,
    Outcome.INFEASIBLE: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
    Outcome.INVALID: TrialState.FAIL,
    Outcome.INTERRUPTED: TrialState.FAIL,
}


@dataclass(frozen=True)
class AskedTrial:
    """A trial that the storage knows as running; `confirms`: the trial whose candidate is launched again.

    `again`: the trial that was cut off or spoilt, and whose place this one takes. `promised`: as in
    `NumberedTrial`. `live`: the candidates that may be measured on its engine as well, which the storage does
    not know before they were.
    """

    number: int
    role: Role
    candidate: Candidate
    confirms: int | None = None
    again: int | None = None
    promised: float | None = None
    live: tuple[Candidate, ...] = ()

    def ended(self, record: TrialRecord) -> NumberedTrial:
        """Return the trial with its record."""
        return NumberedTrial(self.number, record, self.again, self.promised)


class Ledger:
    """One study's storage, opened by its only controller, or by any reader (`create` False)."""

    def __init__(self, study: Study, folder: Path, *, create: bool = True) -> None:
        self.study = study
        self.folder = folder
        self._optuna = open_study(study, folder, create=create)
        self._sampler = make_sampler(SamplerKind.TPE, study.space, seed=study.seed)
        self._parsed: dict[int, NumberedTrial] = {}

    def close(self) -> None:
        """Let go of the storage's connections."""
        disconnect(self._optuna)

    def use(self, sampler: SpaceSampler) -> None:
        """Let this sampler propose candidates."""
        self._sampler = sampler

    def trials(self) -> tuple[NumberedTrial, ...]:
        """Return the trials that were told, in order of their numbers.

        Raises:
            StudyError: a record cannot be understood.
        """
        return tuple(
            self._numbered(trial)
            for trial in self._stored()
            if trial.state.is_finished() and "record" in trial.user_attrs
        )

    def history(self) -> StudyHistory:
        """Return everything that was told so far.

        Raises:
            StudyError: a record or the answer cannot be understood.
        """
        with parsing(self.folder, "the answer"):
            attributes = self._optuna.user_attrs
            answer, end = attributes.get("answer"), attributes.get("search_end")
            return StudyHistory(
                study=self.study,
                folder=self.folder,
                trials=self.trials(),
                running=len(self._stored(TrialState.RUNNING)),
                answer=None if answer is None else Answer.model_validate_json(answer),
                search_end=None if end is None else SearchEnd(end),
                expected_gain=attributes.get("expected_gain"),
                quarantine=attributes.get("quarantine", {}),
            )

    def propose(self) -> Proposal:
        """Return the sampler's next candidate for the search, and what it knows of what is left to gain."""
        return self._sampler.propose(self._optuna)

    def appraise(
        self, knowns: Sequence[Mapping[str, FlagValue]], *, host: int | None = None
    ) -> "Appraisal | None":
        """Return what tells the promise of candidates, given as in `ask_for`.

        None if the sampler cannot tell. `host`: a trial that runs now and whose result will be told to it;
        then it also tells the promise of the best others.
        """
        places = [coordinates(self.study.space, known) for known in knowns]
        return self._sampler.appraise(self._optuna, places, host=host)

    def worth_of(self, trials: Sequence[NumberedTrial]) -> list[float] | None:
        """Return what the sampler believes a fresh launch of each candidate to be worth, if it can."""
        where = {trial.number: trial.params for trial in self._stored()}
        return self._sampler.worth_of(self._optuna, [where[trial.number] for trial in trials])

    def ask(self, proposal: Proposal) -> AskedTrial:
        """Return a trial of the search; what its launch promised is kept."""
        where = proposal.candidate.to_dict()
        asking = _asking(proposal.candidate, Role.SEARCH, where)
        return self._begin({"asked": asking, "promised": proposal.gain})

    def ask_for(
        self,
        candidate: Candidate,
        role: Role,
        known: Mapping[str, FlagValue],
        confirms: int | None = None,
    ) -> AskedTrial:
        """Return a trial of a given candidate.

        `known` are its flags with the engine's own choices filled in, as far as they are foreseen: where the
        sampler shall believe the candidate to lie.
        """
        where = coordinates(self.study.space, known)
        return self._begin({"asked": _asking(candidate, role, where, confirms)})

    @signals_held()
    def tell_live(self, known: Mapping[str, FlagValue], record: TrialRecord) -> AskedTrial:
        """Write a trial that was measured live on another one's engine, and give Optuna its result.

        It begins with its record: a kill leaves none, or one that can be told. `known` as in `ask_for`.
        """
        where = coordinates(self.study.space, known)
        asking = _asking(record.to_candidate(), record.role, where)
        asked = self._begin({"asked": asking, "record": _text(record)})
        self.tell(asked, record)
        return asked

    def ask_again(self, number: int) -> AskedTrial:
        """Return a trial with the candidate and the role of an earlier one, and what that promised."""
        (earlier,) = (trial for trial in self._stored() if trial.number == number)
        kept = {name: earlier.user_attrs.get(name) for name in ("asked", "promised")}
        return self._begin({**kept, "again": number})

    @signals_held()
    def tell(self, asked: AskedTrial, record: TrialRecord) -> None:
        """Write the record, then give Optuna its result."""
        text = _text(record)
        if record.is_launch:
            replace_text(self._file_of(asked.number), text)
        trial_id = self._id_of(asked.number)
        self._set_attribute(asked, "record", text)
        trial = Trial(self._optuna, trial_id)
        for ceiling, value in _constraints(record).items():
            trial.set_constraint(ceiling, value)
        if _is_partial(record, self.study):
            self._set_attribute(asked, PARTIAL, value=True)
        state = _STATES[record.outcome]
        values = list(record.objectives or ()) if state is TrialState.COMPLETE else None
        self._optuna.tell(asked.number, values, state=state)

    @signals_held()
    def note_spent(self, asked: AskedTrial, spent_s: float) -> None:
        """Keep how long a trial took that is being cut off, for the study's budget."""
        self._set_attribute(asked, "spent_s", spent_s)

    @signals_held()
    def answer(self, answer: Answer | None) -> None:
        """Keep the study's answer; None takes an earlier one back, because trials are added."""
        self._optuna.set_user_attr("answer", None if answer is None else answer.model_dump_json())

    @signals_held()
    def end_search(self, end: SearchEnd | None, expected_gain: float | None = None) -> None:
        """Keep why the search ended; None while it goes on."""
        self._optuna.set_user_attr("search_end", end)
        self._optuna.set_user_attr("expected_gain", expected_gain)

    @signals_held()
    def keep_quarantine(self, reasons: Mapping[str, str]) -> None:
        """Keep which nodes are out of use, and why."""
        self._optuna.set_user_attr("quarantine", dict(reasons))

    @signals_held()
    def recover(self) -> tuple[int, ...]:
        """Settle the trials of a controller that is gone; return the numbers of those that were cut off.

        A trial whose record was written, if only to the disk, is told; any other becomes INTERRUPTED. Only
        for the study's only controller.
        """
        cut_off = []
        for trial in self._stored(TrialState.RUNNING):
            if "asked" not in trial.user_attrs:
                self._optuna.tell(trial.number, state=TrialState.FAIL)
                continue
            asked = _asked(trial.number, trial.user_attrs)
            record = self._written(trial)
            if record is None:
                spent_s = trial.user_attrs.get("spent_s")
                record = interrupted(asked, spent_s, "the controller ended during this trial")
                cut_off.append(trial.number)
            self.tell(asked, record)
        return tuple(cut_off)

    @signals_held()
    def _begin(self, attributes: dict[str, Any]) -> AskedTrial:
        """Begin a trial that is whole at once: a kill leaves either none or one that can be run again."""
        number = len(self._stored())
        self._file_of(number).unlink(missing_ok=True)  # of a storage that somebody took away
        self._optuna.add_trial(trial_at(self.study.space, attributes["asked"]["where"], attributes))
        return _asked(number, attributes)

    def _stored(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in one of these states, all of them without any."""
        with parsing(self.folder, "a trial"):
            return self._optuna.get_trials(deepcopy=False, states=states or None)

    def _numbered(self, trial: FrozenTrial) -> NumberedTrial:
        """Parse a trial's record once; it never changes."""
        if trial.number not in self._parsed:
            with parsing(self.folder, f"the record of trial {trial.number}"):
                record = TrialRecord.model_validate_json(trial.user_attrs["record"])
            self._parsed[trial.number] = _asked(trial.number, trial.user_attrs).ended(record)
        return self._parsed[trial.number]

    def _written(self, trial: FrozenTrial) -> TrialRecord | None:
        """Return the record of a trial that was not told, None if there is none."""
        if "record" in trial.user_attrs:
            return self._numbered(trial).record
        file = self._file_of(trial.number)
        if not file.exists():
            return None
        with parsing(self.folder, str(file)):
            return TrialRecord.model_validate_json(file.read_text(encoding="utf-8"))

    def _file_of(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04}" / "record.json"

    def _set_attribute(self, asked: AskedTrial, name: str, value: Any) -> None:
        storage = self._optuna._storage  # noqa: SLF001 - a resumed trial has no live Trial object
        storage.set_trial_user_attr(self._id_of(asked.number), name, value)

    def _id_of(self, number: int) -> int:
        return self._optuna._storage.get_trial_id_from_study_id_trial_number(  # noqa: SLF001 - as above
            self._optuna._study_id,  # noqa: SLF001 - as above
            number,
        )


def read_history(folder: Path) -> StudyHistory:
    """Read a study's folder, also while it runs.

    Raises:
        StudyError: there is no study, it has no storage yet, or the storage is damaged.
    """
    with closing(HistoryReader(folder)) as reader:
        return reader.read()


class HistoryReader:
    """Reads a study's folder again and again; what is finished is parsed once."""

    def __init__(self, folder: Path) -> None:
        study = load_study(folder)
        place = place_of(folder)
        if not place.is_begun:
            raise StudyError(f"{folder} has no trials yet: {place.name} is missing")
        self._folder = folder
        with storage_errors(folder):
            self._ledger = Ledger(study, folder, create=False)

    def close(self) -> None:
        """Let go of the storage's connections."""
        self._ledger.close()

    def read(self) -> StudyHistory:
        """Return what was told so far.

        Raises:
            StudyError: the storage is damaged.
        """
        with storage_errors(self._folder):
            return self._ledger.history()


def finished_at(study: Study, record: TrialRecord) -> FrozenTrial:
    """Return a measured trial as it would be told, without telling it."""
    known = expected_flags(study.space, record.to_candidate())
    return create_trial(
        values=list(record.objectives or ()),
        user_attrs={PARTIAL: _is_partial(record, study)},
        constraints=_constraints(record),
        **placed(study.space, coordinates(study.space, known)),
    )


def _constraints(record: TrialRecord) -> dict[str, float]:
    return {each.ceiling: violation(each) for each in record.verdict.ceilings} if record.verdict else {}


def _is_partial(record: TrialRecord, study: Study) -> bool:
    """Whether an objective's load was stopped while it ran."""
    goals = {goal.quantity.load for goal in study.slo.goals}
    return any(point.load in goals for point in record.stops)


def _asking(
    candidate: Candidate, role: Role, where: Mapping[str, FlagValue], confirms: int | None = None
) -> dict[str, Any]:
    return {
        "role": role.value,
        "candidate": candidate.to_dict(),
        "where": dict(where),
        "confirms": confirms,
    }


def _text(record: TrialRecord) -> str:
    return record.model_dump_json(exclude_defaults=True)


def _asked(number: int, attributes: Mapping[str, Any]) -> AskedTrial:
    asking = attributes["asked"]
    return AskedTrial(
        number=number,
        role=Role(asking["role"]),
        candidate=Candidate.of(asking["candidate"]),
        confirms=asking["confirms"],
        again=attributes.get("again"),
        promised=attributes.get("promised"),
    )


def interrupted(asked: AskedTrial, spent_s: float | None, reason: str) -> TrialRecord:
    """Return the record of a trial that was cut off and says nothing about its candidate."""
    return TrialRecord(
        outcome=Outcome.INTERRUPTED,
        role=asked.role,
        candidate=asked.candidate.to_dict(),
        is_simulated=False,
        began_s=0.0,
        durations_s={} if spent_s is None else {"cut off": spent_s},
        reason=reason,
        confirms=asked.confirms,
    )
