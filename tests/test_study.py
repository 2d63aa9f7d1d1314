from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.errors import ConfigError, StudyError
from autotune.space import LauncherKind
from autotune.study import load_study, read_study, save_study

SPACE: dict[str, Any] = {
    "version": "0.5.23",
    "model": "m",
    "launcher": "simulated",
    "profile": "llama-8b-1xh100",
    "tune": {"chunked-prefill-size": {"int": [512, 8192]}},
}
SLO: dict[str, Any] = {
    "workload": {"input_tokens": 256, "output_tokens": 32},
    "load": [{"concurrency": 4, "requests": 40}],
    "ceilings": ["ttft p95 < 1s at concurrency 4"],
    "objective": "maximise output_throughput at concurrency 4",
}


def _write(folder: Path, space: dict[str, Any], slo: dict[str, Any]) -> tuple[Path, Path]:
    paths = folder / "space.yaml", folder / "slo.yaml"
    for path, data in zip(paths, (space, slo), strict=True):
        path.write_text(yaml.safe_dump(data, sort_keys=False))
    return paths


def _problems(folder: Path, space: dict[str, Any], slo: dict[str, Any] = SLO) -> str:
    with pytest.raises(ConfigError) as caught:
        read_study(*_write(folder, SPACE | space, SLO | slo))
    return str(caught.value)


def test_a_study_is_named_by_its_files_and_read_back_equal(tmp_path: Path) -> None:
    study = read_study(*_write(tmp_path, SPACE, SLO)).study

    save_study(study, tmp_path / "run")

    assert study.name == "space--slo"
    assert load_study(tmp_path / "run") == study
    assert load_study(tmp_path / "run").identity == study.identity


def test_the_name_does_not_belong_to_the_identity_but_the_seed_does(tmp_path: Path) -> None:
    paths = _write(tmp_path, SPACE, SLO)

    assert read_study(*paths, name="a").study.identity == read_study(*paths, name="b").study.identity
    assert read_study(*paths, seed=1).study.identity != read_study(*paths, seed=2).study.identity


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"tune": {"chunked-prefil-size": {"int": [1, 2]}}}, ["tune.chunked-prefil-size", "Did you mean"]),
        ({"tune": {"num-continuous-decode-steps": {"int": [1, 2]}}}, ["num-continuous-decode-steps"]),
        ({"tune": {"schedule-policy": {"choices": ["fcfs", "fifo"]}}}, ["tune.schedule-policy", "fifo"]),
        ({"flags": {"tp-size": "four"}}, ["flags.tp-size", "four"]),
        ({"baseline": {"chunked-prefill-size": 9000}}, ["baseline.chunked-prefill-size", "9000"]),
        ({"profile": None}, ["needs a profile", "llama-8b-1xh100"]),
        ({"profile": "h300"}, ["no profile 'h300'"]),
        ({"launcher": "docker"}, ["needs an image"]),
    ],
)
def test_what_the_engine_would_not_understand_is_said_with_its_place(
    tmp_path: Path, space: dict[str, Any], expected: list[str]
) -> None:
    message = _problems(tmp_path, space)

    assert "space.yaml:" in message
    for part in expected:
        assert part in message


def test_a_flag_that_does_not_exist_is_said_once_however_many_values_it_has(tmp_path: Path) -> None:
    told = _problems(tmp_path, {"tune": {"cuda-graph-max-bs": {"choices": [8, 64, 256]}}})

    assert told.count("has no flag 'cuda-graph-max-bs'") == 1


def test_both_files_complain_at_once(tmp_path: Path) -> None:
    message = _problems(tmp_path, {"modle": "x"}, {"ceilings": ["ttft p95 < 10 at concurrency 4"]})

    assert "space.yaml" in message
    assert "Did you mean 'model'?" in message
    assert "slo.yaml" in message
    assert "no unit" in message


def test_a_mistake_in_the_slo_hides_no_wrong_flag(tmp_path: Path) -> None:
    tune = {"chunked-prefil-size": {"int": [512, 1024]}}

    message = _problems(tmp_path, {"tune": tune}, {"ceilings": ["ttft p95 < 10 at concurrency 4"]})

    assert "Did you mean 'chunked-prefill-size'?" in message
    assert "no unit" in message


def test_a_profile_that_does_not_exist_is_said_whatever_launches(tmp_path: Path) -> None:
    message = _problems(tmp_path, {"launcher": "docker", "image": "i", "profile": "llama-8b-1xh10"})

    assert "Did you mean 'llama-8b-1xh100'?" in message


@pytest.mark.parametrize("key", ["dataset", "tokenizer"])
def test_a_file_that_is_not_there_is_said_at_the_line_that_names_it(tmp_path: Path, key: str) -> None:
    prompts = {} if key == "dataset" else {"input_tokens": 8}
    message = _problems(tmp_path, {}, {"workload": {key: "none", "output_tokens": 8, **prompts}})

    assert f"workload.{key}: no such file: {tmp_path / 'none'}" in message
    assert "slo.yaml:" in message


def test_a_dataset_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    workload = {"workload": {"dataset": "prompts.jsonl", "output_tokens": 8}}

    assert "prompts.jsonl" in _problems(tmp_path, {}, workload)


def test_a_dataset_is_looked_for_beside_its_slo(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    slo = SLO | {"workload": {"dataset": "prompts.jsonl", "output_tokens": 8}}

    study = read_study(*_write(tmp_path, SPACE, slo)).study

    assert study.slo.workload.dataset == (tmp_path / "prompts.jsonl").resolve()


def test_a_version_without_a_catalogue_is_a_warning(tmp_path: Path) -> None:
    draft = read_study(*_write(tmp_path, SPACE | {"version": "0.9.1"}, SLO))

    assert "no flag catalogue of sglang 0.9.1" in draft.warnings[0]


def test_the_launcher_can_be_chosen_on_the_command_line(tmp_path: Path) -> None:
    paths = _write(tmp_path, SPACE, SLO)

    assert read_study(*paths, launcher=LauncherKind.PROCESS).study.space.launcher == "process"


@pytest.mark.parametrize("space", sorted(Path("search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("slo", sorted(Path("slo").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_goes_with_every_shipped_slo(space: Path, slo: Path) -> None:
    assert read_study(space, slo, launcher=LauncherKind.SIMULATED).warnings == ()


@pytest.mark.parametrize(
    "expression", ["chunked_prefill_size <= 'x'", "1 / (chunked_prefill_size - 512) > 0"]
)
def test_an_expression_that_cannot_be_evaluated_is_said_before_a_launch(
    tmp_path: Path, expression: str
) -> None:
    assert "cannot be evaluated" in _problems(tmp_path, {"require": [expression]})


def test_a_dataset_with_other_content_makes_another_study(tmp_path: Path) -> None:
    dataset = tmp_path / "prompts.jsonl"
    dataset.write_text('{"prompt": "hello"}\n')
    paths = _write(tmp_path, SPACE, SLO | {"workload": {"dataset": "prompts.jsonl", "output_tokens": 8}})
    save_study(read_study(*paths).study, tmp_path / "run")
    save_study(read_study(*paths).study, tmp_path / "run")
    dataset.write_text('{"prompt": "good bye"}\n')

    with pytest.raises(StudyError, match="'the content of the dataset' differs"):
        save_study(read_study(*paths).study, tmp_path / "run")


def test_deprecated_flags_are_a_warning_that_names_their_successor(tmp_path: Path) -> None:
    space = SPACE | {"version": "0.5.16", "tune": {"cuda-graph-max-bs": {"int": [8, 64]}}}

    warnings = read_study(*_write(tmp_path, space, SLO)).warnings

    assert warnings == ("'cuda-graph-max-bs' is deprecated in sglang 0.5.16: use --cuda-graph-max-bs-decode",)


def test_a_ceiling_that_no_confirmation_can_decide_is_a_warning_with_its_place(tmp_path: Path) -> None:
    slo = SLO | {"ceilings": ["ttft p99.9 < 1s at concurrency 4"]}

    (warning,) = read_study(*_write(tmp_path, SPACE, slo)).warnings

    assert "slo.yaml:" in warning
    assert "ceilings.0: no confirmation can show" in warning


def test_a_baseline_that_the_engine_would_refuse_is_refused_before_any_launch(tmp_path: Path) -> None:
    flags = {"page-size": 64, "chunked-prefill-size": 100}
    text = _problems(tmp_path, {"flags": flags, "tune": {"max-running-requests": {"int": [1, 2]}}})

    assert "space.yaml" in text
    assert "the engine would refuse the baseline" in text
    assert "Change 'flags' or 'baseline'" in text


def test_a_candidate_to_be_tried_is_checked_as_the_baseline_is_and_named_by_its_place(tmp_path: Path) -> None:
    tried = [{"max-running-requests": 2}, {"max-running-requests": 3}, {"max-running-request": 1}]
    space = {"tune": {"max-running-requests": {"int": [1, 2]}}, "try": tried}

    unknown = _problems(tmp_path, space)
    outside = _problems(tmp_path, space | {"try": tried[:2]})

    assert "try.2.max-running-request: 'max-running-request' is not tuned" in unknown
    assert "Did you mean 'max-running-requests'?" in unknown
    assert (
        "try.1.max-running-requests: 3 is not among the values that tune.max-running-requests allows"
        in outside
    )


def test_a_candidate_to_be_tried_that_the_engine_would_refuse_is_refused_before_any_launch(
    tmp_path: Path,
) -> None:
    tune = {"chunked-prefill-size": {"int": [64, 256]}}

    text = _problems(
        tmp_path, {"flags": {"page-size": 64}, "tune": tune, "try": [{"chunked-prefill-size": 100}]}
    )

    assert "try.0: the engine would refuse this candidate" in text
    assert "Change it or take it out." in text
