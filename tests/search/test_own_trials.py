from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from autotune.search.own_trials import OwnTrials


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[RDBStorage]:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def _written(backend: RDBStorage) -> list[FrozenTrial]:
    study_id = backend.get_study_id_from_name("study")
    return backend.get_all_trials(study_id)


def _study(backend: RDBStorage) -> optuna.Study:
    return optuna.create_study(study_name="study", storage=OwnTrials(backend), load_if_exists=True)


def _begin(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("mem-fraction-static", 0.5, 0.9)
    trial.suggest_categorical("schedule-policy", ["lpm", "fcfs"])
    trial.set_user_attr("asked", {"role": "search", "where": {"tp": 8}})
    trial.set_constraint("ttft p95 < 10s", -0.25)
    return trial


def test_a_trial_is_known_as_it_is_written_at_every_moment(backend: RDBStorage) -> None:
    study = _study(backend)
    for value in (1.0, 2.0):
        trial = _begin(study)
        assert study.get_trials() == _written(backend)
        study.tell(trial, value)
        assert study.get_trials() == _written(backend)


def test_an_enqueued_trial_is_known_as_it_is_written(backend: RDBStorage) -> None:
    study = _study(backend)
    study.enqueue_trial({"mem-fraction-static": 0.75}, user_attrs={"again": 3})
    trial = _begin(study)
    assert trial.params["mem-fraction-static"] == 0.75
    assert study.get_trials() == _written(backend)


def test_a_trial_that_begins_with_parameters_is_known_as_it_is_written(backend: RDBStorage) -> None:
    study = _study(backend)
    distributions = {
        "mem-fraction-static": FloatDistribution(0.5, 0.9),
        "chunked-prefill-size": IntDistribution(1024, 8192, log=True),
        "schedule-policy": CategoricalDistribution(["lpm", "fcfs"]),
    }
    params = {"mem-fraction-static": 0.75, "chunked-prefill-size": 2048, "schedule-policy": "fcfs"}
    for number in range(2):
        begun = optuna.create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs={"asked": {"role": "search"}, "again": 3},
            system_attrs={"note": [1]},
        )
        study.add_trial(begun)
        assert study.get_trials() == _written(backend)
        known = study.get_trials()[number]
        assert (known.number, list(known.params.items())) == (number, list(params.items()))
        assert known.user_attrs == begun.user_attrs
        study.tell(number, 1.0)
        assert study.get_trials() == _written(backend)


def test_a_trial_begins_in_three_statements_and_ends_without_being_read_again(backend: RDBStorage) -> None:
    study = _study(backend)
    study.get_trials()
    statements: list[str] = []
    event.listen(
        backend.engine, "before_cursor_execute", lambda *arguments: statements.append(str(arguments[2]))
    )
    study.add_trial(
        optuna.create_trial(
            state=TrialState.RUNNING,
            params={"x": 0.5},
            distributions={"x": FloatDistribution(0, 1)},
            user_attrs={"a": 1},
        )
    )
    assert [statement.split()[0] for statement in statements] == ["INSERT"] * 3
    study.tell(0, 2.0)
    assert not any("FROM trial_params" in statement for statement in statements)


def test_a_trial_of_an_earlier_process_can_be_gone_on_with(backend: RDBStorage) -> None:
    number = _begin(_study(backend)).number
    study = _study(backend)
    again = optuna.Trial(study, _written(backend)[number]._trial_id)
    again.set_user_attr("record", "{}")
    again.set_constraint("itl p99 < 1s", 0.5)
    assert study.get_trials() == _written(backend)
    study.tell(number, 3.0)
    assert [trial.value for trial in study.get_trials()] == [3.0]


def test_looking_at_the_running_trial_asks_the_database_nothing(backend: RDBStorage) -> None:
    study = _study(backend)
    trial = _begin(study)
    study.get_trials()
    statements: list[str] = []
    event.listen(
        backend.engine, "before_cursor_execute", lambda *arguments: statements.append(str(arguments[2]))
    )
    assert trial.user_attrs["asked"]["role"] == "search"
    assert len(study.get_trials()) == 1
    assert trial.constraints == {"ttft p95 < 10s": -0.25}
    assert statements == []


def test_what_could_not_be_written_is_not_known(backend: RDBStorage) -> None:
    study = _study(backend)
    trial = _begin(study)
    study.get_trials()

    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, OSError("database or disk is full"))

    event.listen(backend.engine, "before_cursor_execute", fail)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        trial.set_user_attr("record", "{}")
    event.remove(backend.engine, "before_cursor_execute", fail)
    (known,) = study.get_trials()
    assert "record" not in known.user_attrs
