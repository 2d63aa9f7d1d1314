import signal
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from autotune.errors import StudyError
from autotune.record import Outcome, Role
from autotune.search.ledger import AskedTrial, Ledger, read_history
from autotune.search.repeats import SearchEnd, due_again
from autotune.search.sampler import SamplerKind, make_sampler
from autotune.slo import Stop, StopKind
from autotune.space import Candidate
from autotune.study import save_study
from tests.support.trials import STUDY, failed, measured

DEFAULTS = {"chunked-prefill-size": 8192, "max-running-requests": 2048, "mem-fraction-static": 0.83}


def _open(folder: Path) -> Ledger:
    save_study(STUDY, folder)
    ledger = Ledger(STUDY, folder)
    ledger.use(make_sampler(SamplerKind.TPE, STUDY.space, seed=1))
    return ledger


def _ask(ledger: Ledger) -> AskedTrial:
    return ledger.ask(ledger.propose())


def test_what_was_told_is_read_back_by_another_process(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    baseline = ledger.ask_for(Candidate.of({}), Role.BASELINE, DEFAULTS)
    ledger.tell(baseline, measured(100.0, role=Role.BASELINE, flags={}))
    asked = _ask(ledger)
    record = measured(120.0, ttft_s=3.0, flags=asked.candidate.to_dict())
    ledger.tell(asked, record)

    history = read_history(tmp_path)

    assert [trial.number for trial in history.trials] == [0, 1]
    assert history.trials[1].record == record
    assert history.running == 0


def test_the_baseline_is_told_to_the_sampler_where_the_engine_would_put_it(tmp_path: Path) -> None:
    ledger = _open(tmp_path)

    baseline = ledger.ask_for(Candidate.of({}), Role.BASELINE, DEFAULTS)

    assert baseline.candidate == Candidate.of({})
    assert ledger._optuna.trials[0].params == {
        "chunked-prefill-size": 8192,
        "max-running-requests": 256,
        "mem-fraction-static": 0.85,
    }


def test_a_missed_ceiling_is_a_violated_constraint_and_a_failure_has_no_value(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    ledger.tell(_ask(ledger), measured(100.0, ttft_s=0.5))
    ledger.tell(_ask(ledger), measured(200.0, ttft_s=3.0))
    ledger.tell(_ask(ledger), failed())

    met, missed, crashed = ledger._optuna.trials

    ceiling = STUDY.slo.ceilings[0].text
    assert met.constraints[ceiling] == pytest.approx(-0.5)
    assert missed.constraints[ceiling] == pytest.approx(2.0)
    assert crashed.values is None
    assert ledger._optuna.best_trial.number == 0


def test_the_value_of_a_stopped_load_point_is_told_as_partial(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    whole = measured(200.0, ttft_s=3.0)
    stop = Stop(kind=StopKind.MISSED, reason="", ceiling=None, requests=32, planned=254)
    points = tuple(point.model_copy(update={"stopped": stop}) for point in whole.points)
    ledger.tell(_ask(ledger), whole)
    ledger.tell(_ask(ledger), whole.model_copy(update={"points": points}))

    assert [bool(trial.user_attrs.get("partial")) for trial in ledger._optuna.trials] == [False, True]
    assert ledger.trials()[1].record.points[0].stopped == stop


def test_a_trial_that_was_cut_off_is_run_again_once_with_the_same_candidate(tmp_path: Path) -> None:
    cut_off = _ask(_open(tmp_path))
    ledger = _open(tmp_path)

    assert ledger.recover() == (cut_off.number,)
    assert ledger.recover() == ()
    assert due_again(ledger.trials()) == (cut_off.number,)
    again = ledger.ask_again(cut_off.number)
    ledger.tell(again, measured(1.0, flags=again.candidate.to_dict()))

    assert (again.candidate, again.role, again.again) == (cut_off.candidate, Role.SEARCH, cut_off.number)
    assert due_again(ledger.trials()) == ()
    assert ledger.history().trials[0].record.outcome is Outcome.INTERRUPTED
    assert ledger._optuna.trials[1].params == ledger._optuna.trials[0].params


def test_the_time_of_a_trial_that_was_cut_off_is_not_lost(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    ledger.note_spent(_ask(ledger), 120.0)
    _ask(ledger)

    ledger.recover()

    assert [trial.record.duration_s for trial in ledger.trials()] == [120.0, 0.0]


def test_a_kill_between_record_and_result_loses_nothing(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    asked = _ask(ledger)
    record = measured(120.0, flags=asked.candidate.to_dict())
    trial_id = ledger._id_of(asked.number)
    ledger._optuna._storage.set_trial_user_attr(trial_id, "record", record.model_dump_json())

    after = _open(tmp_path)

    assert after.recover() == ()
    assert after.history().trials[0].record == record
    assert after._optuna.trials[0].values == [120.0]


def _fails(*_: object) -> None:
    raise OperationalError("UPDATE", {}, OSError("the server is gone"))


def test_a_launch_whose_record_the_storage_does_not_take_is_not_lost(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    asked = _ask(ledger)
    record = measured(120.0, flags=asked.candidate.to_dict())
    engine = ledger._optuna._storage._backend.engine  # type: ignore[attr-defined]  # an RDBStorage in a cache
    event.listen(engine, "before_cursor_execute", _fails)

    with pytest.raises((OperationalError, StorageInternalError)):
        ledger.tell(asked, record)
    event.remove(engine, "before_cursor_execute", _fails)
    after = _open(tmp_path)

    assert after.recover() == ()
    assert after.history().trials[0].record == record
    assert after._optuna.trials[0].values == [120.0]


def test_the_record_of_a_storage_that_was_taken_away_is_not_taken_for_a_new_trials(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    asked = ledger.ask_for(Candidate.of({}), Role.BASELINE, DEFAULTS)
    ledger.tell(asked, measured(100.0, role=Role.BASELINE, flags={}))
    ledger.close()
    for file in tmp_path.glob("study.db*"):
        file.unlink()

    _open(tmp_path).ask_for(Candidate.of({}), Role.BASELINE, DEFAULTS)

    assert _open(tmp_path).recover() == (0,)


def test_a_record_on_the_disk_that_cannot_be_understood_is_damage(tmp_path: Path) -> None:
    asked = _ask(_open(tmp_path))
    file = tmp_path / "trials" / f"{asked.number:04}" / "record.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")

    with pytest.raises(StudyError, match=r"record\.json cannot be read"):
        _open(tmp_path).recover()


class _InterruptsWhenCompared(dict[str, float]):
    """In whose comparison with a default Ctrl-C arrives, as it may wherever Python runs."""

    def __eq__(self, other: object) -> bool:
        signal.raise_signal(signal.SIGINT)
        return super().__eq__(other)

    __hash__ = None


def test_ctrl_c_in_the_middle_of_a_record_ends_the_study_after_the_record_was_told(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    asked = _ask(ledger)
    record = measured(100.0).model_copy(update={"durations_s": _InterruptsWhenCompared(load=5.0)})

    with pytest.raises(KeyboardInterrupt):
        ledger.tell(asked, record)

    history = read_history(tmp_path)
    assert (history.running, [trial.record.duration_s for trial in history.trials]) == (0, [5.0])


def test_what_was_measured_live_is_a_trial_of_its_own(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    ledger.tell(_ask(ledger), measured(100.0))
    live = measured(120.0, flags={"max-running-requests": 16}, measured_live_on=0)

    asked = ledger.tell_live({**DEFAULTS, **live.candidate}, live)

    assert asked == AskedTrial(1, Role.SEARCH, live.to_candidate())
    assert ledger.trials()[1].record == live
    assert ledger._optuna.trials[1].params["max-running-requests"] == 16
    assert ledger._optuna.trials[1].values == [120.0]


def test_a_kill_while_a_live_trial_is_told_loses_nothing_and_launches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = _open(tmp_path)
    live = measured(120.0, flags={"max-running-requests": 16}, measured_live_on=0)
    monkeypatch.setattr(Ledger, "tell", lambda *_: None)  # it is killed before
    ledger.tell_live({**DEFAULTS, **live.candidate}, live)
    ledger.close()
    monkeypatch.undo()

    again = _open(tmp_path)

    assert again.recover() == ()
    assert again.trials()[0].record == live
    assert again._optuna.trials[0].values == [120.0]


def test_a_kill_while_a_trial_begins_leaves_none(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    engine = ledger._optuna._storage._backend.engine  # type: ignore[attr-defined]  # an RDBStorage in a cache

    def killed(*arguments: object) -> None:
        if "INSERT INTO trial_user_attributes" in str(arguments[2]):
            raise KeyboardInterrupt

    event.listen(engine, "before_cursor_execute", killed)
    with pytest.raises(KeyboardInterrupt):
        _ask(ledger)
    event.remove(engine, "before_cursor_execute", killed)

    assert _open(tmp_path).recover() == ()
    assert _ask(ledger).number == 0


def test_a_trial_that_somebody_else_began_is_not_run_again(tmp_path: Path) -> None:
    _open(tmp_path)._optuna.ask()
    after = _open(tmp_path)

    assert after.recover() == ()
    assert (after.trials(), after.history().running) == ((), 0)


def test_a_kill_while_the_storage_is_made_leaves_none_and_the_next_call_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(**_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("optuna.create_study", killed)
        with pytest.raises(KeyboardInterrupt):
            Ledger(STUDY, tmp_path)
    assert not (tmp_path / "study.db").exists()

    asked = Ledger(STUDY, tmp_path).ask_for(Candidate.of({}), Role.BASELINE, {})

    assert asked.number == 0
    assert [path.name for path in tmp_path.iterdir() if "begun" in path.name] == []


def test_why_the_search_ended_is_kept(tmp_path: Path) -> None:
    ledger = _open(tmp_path)

    ledger.end_search(SearchEnd.STALLED)
    assert read_history(tmp_path).search_end is SearchEnd.STALLED
    ledger.end_search(None)
    assert read_history(tmp_path).search_end is None


def test_another_studys_storage_is_refused(tmp_path: Path) -> None:
    _open(tmp_path)

    with pytest.raises(StudyError, match="other inputs"):
        Ledger(STUDY.model_copy(update={"seed": 9}), tmp_path)
    with pytest.raises(StudyError, match="'seed' differs"):
        save_study(STUDY.model_copy(update={"seed": 9}), tmp_path)


def test_a_study_without_trials_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        read_history(tmp_path)
    save_study(STUDY, tmp_path)
    with pytest.raises(StudyError, match="no trials yet"):
        read_history(tmp_path)


def test_a_damaged_study_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: 3\n")

    with pytest.raises(StudyError, match="is damaged"):
        read_history(tmp_path)


def _told(folder: Path) -> Ledger:
    ledger = _open(folder)
    ledger.tell(_ask(ledger), measured(100.0))
    return ledger


@pytest.mark.parametrize(("name", "value"), [("answer", "{}"), ("search_end", "boredom")])
def test_an_answer_that_cannot_be_understood_is_damage_too(tmp_path: Path, name: str, value: str) -> None:
    _told(tmp_path)._optuna.set_user_attr(name, value)

    with pytest.raises(StudyError, match="the answer cannot be read"):
        read_history(tmp_path)
    assert len(_open(tmp_path).trials()) == 1
