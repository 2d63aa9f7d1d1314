import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.errors import ConfigError
from autotune.export.file import ExportFile, write_files
from autotune.export.helm import helm_files
from autotune.export.kubernetes import kubernetes_files
from autotune.export.selection import select
from autotune.failure import FailureKind
from autotune.search.study_history import StudyHistory
from tests.support import histories as made

HOSTILE = (
    "it's \"quoted\" \\ $HOME $(X) {{ .Values.name }} {{ fail \"x\" }} `id` \t\u00fc\u65e5\U0001f680 "
    "# : - & * ! |\nsecond: line\n\n  third"
)  # fmt: skip
SPACES: tuple[Mapping[str, object], ...] = (
    {},
    made.TWO_NODES,
    {"mounts": [], "environment": {}, "environment_from": [], "container": {"ipc": "host"}},
    {**made.TWO_NODES, "container": {"devices": ["/dev/infiniband"], "memory": "900g"}},
    {
        "model": HOSTILE,
        "environment": {"A": HOSTILE, "B": "1e3", "C": "y", "D": "", "E": "0o17", "F": "{{"},
    },
    {
        **made.TWO_NODES,
        "model": "--node-rank",
        "environment": {"A": "\n\n", "B": " x ", "C": "1:30", "D": "~"},
    },
)

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on this machine")


def chart(history: StudyHistory, *, force: bool = False) -> tuple[ExportFile, ...]:
    return helm_files(select(history, number=None, force=force))


def rendered(files: tuple[ExportFile, ...], folder: Path, *words: str) -> list[dict[str, Any]]:
    write_files(files, folder)
    done = subprocess.run(
        ["helm", "template", "release", str(folder / "chart"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def by_kind(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(document["kind"]): document for document in documents}


@needs_helm
@pytest.mark.parametrize("space", SPACES)
def test_helm_makes_the_very_objects_of_the_kubernetes_export(
    space: Mapping[str, object], tmp_path: Path
) -> None:
    history = made.improved(space)
    (plain,) = kubernetes_files(select(history, number=None, force=False))
    assert by_kind(rendered(chart(history), tmp_path)) == by_kind(list(yaml.safe_load_all(plain.text)))


@needs_helm
def test_a_forced_chart_with_a_hostile_log_line_renders_and_warns(tmp_path: Path) -> None:
    history = made.history(made.make_study(), made.failed(0, FailureKind.CRASHED, HOSTILE))
    files = helm_files(select(history, number=0, force=True))
    for document in rendered(files, tmp_path):
        assert "DOES NOT MEET ITS SLO" in document["metadata"]["annotations"]["autotune/warning"]


@needs_helm
def test_values_can_be_overridden(tmp_path: Path) -> None:
    files = chart(made.improved(made.TWO_NODES))
    workload = by_kind(rendered(files, tmp_path, "--set", "replicas=3"))["LeaderWorkerSet"]
    assert workload["spec"]["replicas"] == 3


@needs_helm
def test_helm_finds_no_mistake_in_the_chart(tmp_path: Path) -> None:
    write_files(chart(made.improved()), tmp_path)
    command = ["helm", "lint", "--strict", str(tmp_path / "chart")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_is_named_by_the_study_and_versioned_by_the_trial() -> None:
    files = {file.name: file.text for file in chart(made.improved())}
    about = yaml.safe_load(files["chart/Chart.yaml"])
    assert (about["apiVersion"], about["name"], about["version"]) == ("v2", "sglang-r1", "0.1.2")
    assert about["appVersion"] == "0.5.23"
    assert set(files) == {
        "chart/Chart.yaml",
        "chart/values.yaml",
        "chart/templates/_pod.tpl",
        "chart/templates/workload.yaml",
        "chart/templates/service.yaml",
    }


def test_the_values_hold_everything_that_differs_between_studies() -> None:
    values = yaml.safe_load(chart(made.improved(made.TWO_NODES))[1].text)
    assert values["size"] == 2
    assert values["container"]["image"] == "lmsysorg/sglang:v0.5.23"
    assert values["service"]["name"] == "sglang-r1-leader"
    assert "progressDeadlineSeconds" not in values
    templates = [file.text for file in chart(made.improved()) if "/templates/" in file.name]
    assert templates == [
        file.text for file in chart(made.improved(made.TWO_NODES)) if "/templates/" in file.name
    ]


@pytest.mark.parametrize("lost", ["\x85", "\u2028", "\ufeff", "\x01", "\r"])
def test_a_character_that_helm_would_lose_is_refused(lost: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"does not carry the character U\+{ord(lost):04X} of .*kubernetes$"
    ):
        chart(made.improved({"environment": {"NAME": f"a{lost}b"}}))


def test_no_mark_can_be_taken_for_a_template() -> None:
    history = made.history(made.make_study(), made.failed(0, FailureKind.CRASHED, '{{ fail "x" }}'))
    for file in helm_files(select(history, number=0, force=True)):
        if "/templates/" in file.name:
            assert '{{ fail "x" }}' not in file.text
            assert '{{ "{{" }} fail "x" }}' in file.text
