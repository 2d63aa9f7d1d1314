from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.document import to_yaml
from autotune.errors import ConfigError, StudyError
from autotune.simulator.profile import read_profile
from autotune.study import load_study, read_study, save_study
from tests.support.tokenizer import write_tokenizer

SPACE: dict[str, Any] = {
    "version": "0.5.23",
    "model": "m",
    "launcher": "simulated",
    "profile": "llama-8b-1xh100",
    "tune": {"chunked-prefill-size": {"int": [512, 8192]}},
}


def written(folder: Path, workload: dict[str, Any], load: dict[str, Any]) -> tuple[Path, Path]:
    slo = {
        "workload": {"input_tokens": 64, "output_tokens": 8, **workload},
        "load": [load],
        "objective": "maximise output_throughput at rate 4",
    }
    paths = folder / "space.yaml", folder / "slo.yaml"
    for path, data in zip(paths, (SPACE, slo), strict=True):
        path.write_text(yaml.safe_dump(data, sort_keys=False))
    return paths


def test_a_tokenizer_and_a_trace_are_looked_for_beside_the_slo(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    write_tokenizer(tmp_path)
    (tmp_path / "trace.csv").write_text("timestamp_s\n1\n2\n5\n")
    load = {"rate": 4, "trace": "trace.csv", "requests": 3}
    study = read_study(*written(tmp_path, {"tokenizer": "tokenizer.json"}, load)).study
    assert study.slo.workload.tokenizer == (tmp_path / "tokenizer.json").resolve()
    assert study.slo.load[0].trace == (tmp_path / "trace.csv").resolve()
    save_study(study, tmp_path / "run")
    assert load_study(tmp_path / "run") == study


@pytest.mark.parametrize(
    ("workload", "load", "message"),
    [
        ({}, {"trace": "none.csv", "requests": 3}, "trace: no such file"),
        ({}, {"trace": "trace.csv", "requests": 9}, "has 2 requests, 9 were asked"),
        ({"tokenizer": "none.json"}, {"requests": 3}, "tokenizer: no such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_before_a_launch(
    tmp_path: Path, workload: dict[str, Any], load: dict[str, Any], message: str
) -> None:
    (tmp_path / "trace.csv").write_text("timestamp_s\n1\n2\n")
    with pytest.raises(ConfigError, match=message):
        read_study(*written(tmp_path, workload, {"rate": 4, **load}))


@pytest.mark.parametrize(
    ("name", "what"), [("tokenizer.json", "tokenizer"), ("a.csv", "trace at rate 4"), ("p.jsonl", "dataset")]
)
def test_an_input_file_with_other_content_makes_another_study(tmp_path: Path, name: str, what: str) -> None:
    pytest.importorskip("tokenizers")
    write_tokenizer(tmp_path)
    (tmp_path / "a.csv").write_text("timestamp_s\n1\n2\n5\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "hello"}\n')
    with_dataset = {"dataset": "p.jsonl", "input_tokens": None}
    workload = with_dataset if what == "dataset" else {"tokenizer": "tokenizer.json"}
    paths = written(tmp_path, workload, {"rate": 4, "trace": "a.csv", "requests": 3})
    study = read_study(*paths).study
    save_study(study, tmp_path / "run")
    save_study(read_study(*paths).study, tmp_path / "run")
    with (tmp_path / name).open("a") as file:
        file.write("\n" if what != "trace at rate 4" else "6\n")

    with pytest.raises(StudyError, match=f"'the content of the {what}' differs"):
        save_study(read_study(*paths).study, tmp_path / "run")
    assert study.inputs_sha256.keys() > {"trace at rate 4"}


def test_a_study_without_input_files_keeps_the_identity_it_always_had(tmp_path: Path) -> None:
    study = read_study(*written(tmp_path, {}, {"rate": 4, "requests": 3})).study
    asked = study.model_dump(mode="json", by_alias=True, exclude={"name"}, exclude_defaults=True)
    assert study.inputs_sha256 == {}
    assert asked.keys() == {"space", "slo"}


def test_a_profile_of_the_users_own_is_looked_for_beside_the_space(tmp_path: Path) -> None:
    own = read_profile("llama-8b-1xh100").model_copy(update={"name": "own"})
    (tmp_path / "own.yaml").write_text(to_yaml(own))
    space, slo = written(tmp_path, {}, {"rate": 4, "requests": 3})
    space.write_text(space.read_text().replace("llama-8b-1xh100", "own.yaml"))

    study = read_study(space, slo).study

    assert study.space.profile == str((tmp_path / "own.yaml").resolve())


def test_a_profile_that_cannot_be_read_is_told_with_the_spaces_line(tmp_path: Path) -> None:
    space, slo = written(tmp_path, {}, {"rate": 4, "requests": 3})
    space.write_text(space.read_text().replace("llama-8b-1xh100", "none.yaml"))

    with pytest.raises(ConfigError, match=r"space.yaml:4.*none.yaml") as caught:
        read_study(space, slo)

    assert "no such file" in str(caught.value)
