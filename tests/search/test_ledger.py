from pathlib import Path

import pytest

from autotune.errors import InfrastructureError, StudyError
from autotune.record import Outcome, Role
from autotune.search.ledger import DATABASE_FILE, Ledger, read_history, storage_errors
from autotune.search.sampler import SamplerKind, make_sampler
from autotune.space import Candidate
from autotune.study import save_study
from tests.support.trials import STUDY, failed, measured

DEFAULTS = {"chunked-prefill-size": 8192, "max-running-requests": 2048, "mem-fraction-static": 0.83}


def _open(folder: Path) -> Ledger:
    save_study(STUDY, folder)
    ledger = Ledger(STUDY, folder)
    ledger.use(make_sampler(SamplerKind.TPE, STUDY.space, seed=1))
    return ledger


def test_what_was_told_is_read_back_by_another_process(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    baseline = ledger.ask_for(Candidate.of({}), Role.BASELINE, DEFAULTS)
    ledger.tell(baseline, measured(100.0, role=Role.BASELINE, flags={}))
    asked = ledger.ask()
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
    ledger.tell(ledger.ask(), measured(100.0, ttft_s=0.5))
    ledger.tell(ledger.ask(), measured(200.0, ttft_s=3.0))
    ledger.tell(ledger.ask(), failed())

    met, missed, crashed = ledger._optuna.trials

    ceiling = STUDY.slo.ceilings[0].text
    assert met.constraints[ceiling] == pytest.approx(-0.5)
    assert missed.constraints[ceiling] == pytest.approx(2.0)
    assert crashed.values is None
    assert ledger._optuna.best_trial.number == 0


def test_a_trial_that_was_cut_off_is_run_again_once_with_the_same_candidate(tmp_path: Path) -> None:
    cut_off = _open(tmp_path).ask()
    ledger = _open(tmp_path)

    assert ledger.recover() == (cut_off.number,)
    assert ledger.recover() == ()
    assert ledger.waiting()
    again = ledger.ask()

    assert again.candidate == cut_off.candidate
    assert not ledger.waiting()
    assert ledger.attempts(again) == 2
    assert ledger.history().trials[0].record.outcome is Outcome.INTERRUPTED


def test_a_kill_between_record_and_result_loses_nothing(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    asked = ledger.ask()
    record = measured(120.0, flags=asked.candidate.to_dict())
    trial_id = ledger._id_of(asked.number)
    ledger._optuna._storage.set_trial_user_attr(trial_id, "record", record.model_dump_json())

    after = _open(tmp_path)

    assert after.recover() == ()
    assert after.history().trials[0].record == record
    assert after._optuna.trials[0].values == [120.0]


def test_a_baseline_waiting_in_the_queue_is_not_lost(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    asked = ledger.ask_for(Candidate.of({}), Role.BASELINE, DEFAULTS)
    ledger.run_again(asked)
    ledger.run_again(asked)

    again = _open(tmp_path).ask()

    assert (again.role, again.candidate) == (Role.BASELINE, Candidate.of({}))
    assert not ledger.waiting()


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


def test_a_storage_that_is_no_database_stops_the_study_with_its_place(tmp_path: Path) -> None:
    save_study(STUDY, tmp_path)
    (tmp_path / DATABASE_FILE).write_bytes(b"not a database, but long enough to look like one" * 100)

    with pytest.raises(InfrastructureError, match=str(tmp_path)), storage_errors(tmp_path):
        Ledger(STUDY, tmp_path)


def test_a_full_disk_stops_the_study_with_the_file_that_did_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"records\.npz: No space left"), storage_errors(tmp_path):
        raise OSError(28, "No space left on device", "records.npz")
