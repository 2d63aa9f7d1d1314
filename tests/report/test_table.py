import io
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from autotune.errors import ConfigError
from autotune.report.table import columns, trials_frame, write_csv, write_parquet
from autotune.search.study_history import StudyHistory
from autotune.space import SearchSpace
from tests.support import histories as made


def test_every_trial_is_a_row_with_flags_objectives_and_statistics() -> None:
    frame = trials_frame(made.improved())
    row = frame.set_index("number").loc[2]
    assert len(frame) == 9
    assert row["--chunked-prefill-size"] == 8192
    assert row["--schedule-policy"] == "lpm"
    assert row["maximise output_throughput at concurrency 50"] == 1130.0
    assert row["ttft_p95_s at concurrency 50"] == 7.0
    assert row["ttft_p50_s at concurrency 100"] == pytest.approx(14 / 3)
    assert row["output_throughput_tps at concurrency 100"] == pytest.approx(1356.0)
    assert row["kv_tokens"] == 412345
    assert row["running_limit"] == 78
    assert row["launch_duration_s"] == 412.0


def test_the_verdict_and_its_margin_are_those_of_the_fresh_launches() -> None:
    row = trials_frame(made.improved()).set_index("number").loc[2]
    assert row["verdict"] == "met"
    assert row["binding_ceiling"] == "ttft p95 < 10s at concurrency 50"
    assert row["margin_ratio"] == pytest.approx(0.28)


def test_what_a_failed_trial_does_not_have_is_missing_not_zero() -> None:
    frame = trials_frame(made.improved()).set_index("number")
    assert frame.loc[3, "failure"] == "no_kv_memory"
    assert frame.loc[5, "outcome"] == "infeasible"
    assert frame.loc[3, ["verdict", "kv_tokens", "ttft_p95_s at concurrency 50"]].isna().all()
    assert frame["kv_tokens"].dtype == "Int64"


def test_both_objectives_have_a_column() -> None:
    frame = trials_frame(made.pareto())
    assert frame["minimise ttft p95 at concurrency 50"].tolist() == [8.0, 4.0, 9.0, 5.0]
    assert frame["maximise output_throughput at concurrency 50"].tolist() == [700.0, 900.0, 1100.0, 850.0]


def test_of_a_study_on_several_slots_it_is_told_where_a_trial_ran() -> None:
    history = made.improved()
    data = history.study.space.model_dump(by_alias=True)
    nodes = [{"name": f"node{index}", "docker": f"ssh://node{index}", "gpus": 8} for index in range(2)]
    space = SearchSpace.model_validate(data | {"nodes": nodes, "nodes_per_engine": 1})
    trials = [
        replace(trial, record=trial.record.model_copy(update={"nodes": (f"node{trial.number % 2}",)}))
        for trial in history.trials
    ]
    study = history.study.model_copy(update={"space": space})

    frame = trials_frame(replace(history, study=study, trials=tuple(trials))).set_index("number")

    assert (frame.loc[2, "nodes"], frame.loc[3, "nodes"]) == ("node0", "node1")
    assert "nodes" not in trials_frame(history)


def test_a_study_without_trials_has_the_columns_and_no_row() -> None:
    frame = trials_frame(made.empty())
    assert frame.empty
    assert {"number", "outcome", "--schedule-policy", "error_ratio at concurrency 50"} <= set(frame.columns)


def test_the_csv_file_reads_back_as_the_frame(tmp_path: Path) -> None:
    history = made.improved()
    write_csv(history, tmp_path / "trials.csv")
    text = (tmp_path / "trials.csv").read_text(encoding="utf-8")
    read = pd.read_csv(io.StringIO(text))
    frame = trials_frame(history)
    assert list(read.columns) == list(frame.columns)
    assert read["number"].tolist() == frame["number"].tolist()
    assert read["maximise output_throughput at concurrency 50"].dropna().tolist() == [
        1000.0,
        900.0,
        1130.0,
        1001.0,
        1120.0,
    ]


@pytest.mark.parametrize("history", [made.improved(), made.pareto(), made.empty()])
def test_the_csv_file_is_what_pandas_would_write(history: StudyHistory, tmp_path: Path) -> None:
    write_csv(history, tmp_path / "trials.csv")
    written = (tmp_path / "trials.csv").read_text(encoding="utf-8")
    assert written == trials_frame(history).to_csv(index=False, lineterminator="\n")


def test_a_list_flag_is_written_as_words() -> None:
    study = made.make_study()
    history = made.history(study, made.trial(study, 0, {"schedule-policy": (1, 2, 4)}, 1000.0, 8.0))
    assert trials_frame(history)["--schedule-policy"].tolist() == ["1 2 4"]


def test_cells_are_shown_with_units() -> None:
    history = made.improved()
    shown = {column.name: column.text(history.trials[2]) for column in columns(history)}
    assert shown["ttft_p95_s at concurrency 50"] == "7.00 s"
    assert shown["margin_ratio"] == "28.0 %"
    assert shown["kv_tokens"] == "412,345"
    assert shown["launch_duration_s"] == "6 min 52 s"
    assert shown["is_simulated"] == "false"
    assert shown["failure"] == "-"


def test_parquet_holds_the_same_rows_and_flags_of_mixed_types_as_text(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    study = made.make_study({"tune": {"chunked-prefill-size": {"choices": [1024, "auto"]}}})
    trials = (
        made.trial(study, 0, {"chunked-prefill-size": 1024}, 900.0, 5.0),
        made.trial(study, 1, {"chunked-prefill-size": "auto"}, 900.0, 5.0),
        made.trial(study, 2, {}, 900.0, 5.0),
    )
    write_parquet(made.history(study, *trials), tmp_path / "trials.parquet")
    frame = pd.read_parquet(tmp_path / "trials.parquet")
    assert frame["--chunked-prefill-size"][:2].tolist() == ["1024", "auto"]
    assert frame["--chunked-prefill-size"].isna().tolist() == [False, False, True]
    assert frame["ttft_p95_s at concurrency 50"].tolist() == [5.0, 5.0, 5.0]


def test_without_pyarrow_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(ConfigError, match="pip install 'autotune\\[parquet\\]'"):
        write_parquet(made.kept(), tmp_path / "trials.parquet")
