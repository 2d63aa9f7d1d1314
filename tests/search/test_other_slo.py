"""Which SLO files the launches of a study can be judged under: those whose requests are the same."""

from pathlib import Path
from typing import Any

import pytest

from autotune.document import to_yaml
from autotune.errors import ConfigError
from autotune.search.other_slo import read_other_slo
from autotune.study import Study, read_slo
from tests.support.trials import STUDY

SLO = """\
workload: {input_tokens: 256, output_tokens: 32}
load:
  - {concurrency: 4, requests: 40}
ceilings:
  - ttft p95 < 2s at concurrency 4
  - e2e p99 < 9s at concurrency 4
objective: minimise ttft p50 at concurrency 4
"""


def _file(folder: Path, text: str = SLO) -> Path:
    path = folder / "other.yaml"
    path.write_text(text)
    return path


def test_other_ceilings_and_objectives_of_the_same_requests_are_taken(tmp_path: Path) -> None:
    draft = read_other_slo(_file(tmp_path), STUDY)

    assert [ceiling.limit for ceiling in draft.slo.ceilings] == [2.0, 9.0]
    (warning,) = draft.warnings
    assert "other.yaml:6: ceilings.1" in warning


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("output_tokens: 32", "output_tokens: 64"), "1: workload.output_tokens", "64 here, but the"),
        (("32}", "32, seed: 7}"), "1: workload.seed", "7 here, but the launches were made with 0"),
        (
            ("requests: 40", "requests: 50"),
            "3: load.0.requests",
            "50 here, but the launches were made with 40",
        ),
        (
            ("requests: 40", "duration_s: 9"),
            "3: load.0.duration_s",
            "9.0 here, but the launches were made with",
        ),
        (("requests: 40", "requests: 40, warm_up: 0"), "3: load.0.warm_up", "were made with nothing"),
        (("40}", "40}\n  - {rate: 2, requests: 9}"), "4: load.1", "the study has no load point 'rate 2'"),
    ],
)
def test_other_requests_are_refused_at_their_line_with_a_remedy(
    tmp_path: Path, change: tuple[str, str], line: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_other_slo(_file(tmp_path, SLO.replace(*change)), STUDY)

    assert f"other.yaml:{line}: " in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert all(problem.remedy for problem in caught.value.problems)


def test_a_file_that_is_wrong_in_itself_is_refused_as_ever(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the limit has no unit"):
        read_other_slo(_file(tmp_path, SLO.replace("2s", "2")), STUDY)


def _with_files(folder: Path, **files: str) -> Path:
    """An SLO with a dataset and a trace of these contents."""
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.jsonl").write_text(content)
    text = SLO.replace("input_tokens: 256", "dataset: data.jsonl").replace(
        "{concurrency: 4, requests: 40}", "{rate: 4, trace: trace.jsonl, requests: 2}"
    )
    return _file(folder, text.replace("concurrency 4", "rate 4"))


def test_files_are_compared_by_what_is_in_them_wherever_they_lie(tmp_path: Path) -> None:
    data = '{"prompt": "one", "output_tokens": 3}\n'
    trace = '{"timestamp": 0.0}\n{"timestamp": 0.5}\n'
    own = read_slo(_with_files(tmp_path / "own", data=data, trace=trace))
    whole: dict[str, Any] = STUDY.model_dump(by_alias=True) | {"slo": own.slo.model_dump(by_alias=True)}
    study = Study.model_validate(whole | {"inputs_sha256": dict(own.inputs_sha256)})

    assert read_other_slo(_with_files(tmp_path / "same", data=data, trace=trace), study).slo.load
    with pytest.raises(ConfigError) as caught:
        read_other_slo(_with_files(tmp_path / "other", data=data * 2, trace=trace * 2), study)
    assert "workload.dataset: a file of SHA-256" in str(caught.value)
    assert "load.0.trace: a file of SHA-256" in str(caught.value)
    assert to_yaml(study)
