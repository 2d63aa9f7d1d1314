import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune import __version__
from autotune.errors import ConfigError
from autotune.export.file import ExportFile, comments, write_files
from autotune.export.selection import RefusedExport
from autotune.export.targets import Target, export, parse_target
from autotune.failure import FailureKind
from autotune.search.study_history import StudyHistory
from tests.support import histories as made

GOLDEN = Path(__file__).parent / "golden"
REVIEWED = {**made.TWO_NODES, "container": {"memory": "900g"}}


def files_of(target: Target, history: StudyHistory, **options: Any) -> dict[str, ExportFile]:
    return {file.name: file for file in export(history, target, **options)}


def timeless(text: str) -> str:
    for known, name in ((platform.python_version(), "PYTHON"), (__version__, "VERSION")):
        for before in ("autotune ", "| `"):
            text = text.replace(f"{before}{known}", f"{before}{name}")
    return text.replace(made.make_study(REVIEWED).identity, "IDENTITY")


@pytest.mark.parametrize("target", [target for target in Target if target is not Target.JSON])
def test_two_nodes_give_the_files_that_were_reviewed(target: Target) -> None:
    found = {name: timeless(file.text) for name, file in files_of(target, made.improved(REVIEWED)).items()}
    reviewed = GOLDEN / target
    assert found.pop("EVIDENCE.md") == (GOLDEN / "EVIDENCE.md").read_text(encoding="utf-8")
    assert found.pop("slo.yaml") == (GOLDEN / "slo.yaml").read_text(encoding="utf-8")
    assert found == {
        str(path.relative_to(reviewed)): path.read_text(encoding="utf-8")
        for path in reviewed.rglob("*")
        if path.is_file()
    }


def test_one_node_is_a_deployment_that_was_reviewed() -> None:
    found = files_of(Target.KUBERNETES, made.improved())
    reviewed = (GOLDEN / "one-node" / "kubernetes.yaml").read_text(encoding="utf-8")
    assert timeless(found["kubernetes.yaml"].text) == reviewed


@pytest.mark.parametrize("target", Target)
def test_evidence_lies_beside_every_export(target: Target) -> None:
    text = files_of(target, made.improved())["EVIDENCE.md"].text
    assert text.startswith("# Evidence for trial 2 of r1\n")
    assert "Gain over the baseline: +12.0 % [+8.10 % .. +16.0 %], with 95 % certainty." in text
    assert f"{8:064x}" in text


@pytest.mark.parametrize("target", Target)
def test_only_scripts_are_executable(target: Target) -> None:
    for file in export(made.improved(), target):
        assert file.is_executable == file.name.endswith(".sh") == file.text.startswith("#!/bin/sh\n")


@pytest.mark.parametrize("target", Target)
def test_without_a_candidate_that_meets_the_slo_every_target_refuses(target: Target) -> None:
    with pytest.raises(RefusedExport):
        export(made.nothing_meets(), target)


@pytest.mark.parametrize("target", [target for target in Target if target is not Target.JSON])
def test_a_forced_export_says_so_in_the_first_comment_of_every_file(target: Target) -> None:
    found = files_of(target, made.nothing_meets(), force=True)
    page = found.pop("EVIDENCE.md")
    assert "**`DOES NOT MEET ITS SLO: ttft p95 < 10s at concurrency 50" in page.text
    for file in found.values():
        lines = [line for line in file.text.splitlines() if not line.startswith("#!")]
        assert lines[0].startswith(
            "# DOES NOT MEET ITS SLO: ttft p95 < 10s at concurrency 50: measured 12.0 s"
        )


def test_forced_and_simulated_evidence_says_so_in_its_first_keys() -> None:
    data = json.loads(files_of(Target.JSON, made.nothing_meets(), force=True)["evidence.json"].text)
    assert list(data)[:3] == ["meets_slo", "is_simulated", "marks"]
    assert data["meets_slo"] is False
    assert data["marks"][0].startswith("DOES NOT MEET ITS SLO")


@pytest.mark.parametrize("target", Target)
def test_simulated_evidence_is_marked_in_every_file(target: Target) -> None:
    for file in export(made.improved(is_simulated=True), target):
        assert "SIMULATED: these numbers come from a model of the engine" in file.text


def test_the_json_evidence_holds_what_a_reader_needs_to_check_it() -> None:
    data = json.loads(files_of(Target.JSON, made.improved(made.TWO_NODES))["evidence.json"].text)
    assert data["meets_slo"] is True
    assert data["seeds"] == {"search": 3, "workload": 7}
    assert data["versions"]["autotune"] == __version__
    assert data["versions"]["sglang_reported"] == "0.5.23"
    assert data["flags"]["fixed"] == {"tp-size": 16, "trust-remote-code": True}
    assert data["flags"]["asked"] == made.FASTER
    assert data["flags"]["effective"]["running_limit"] == 78
    assert data["ceilings"][0]["margin_ratio"] == pytest.approx(0.28)
    assert data["confirmation"]["gains"] == [{"estimate": 0.12, "low": 0.081, "high": 0.16}]
    assert [launch["trial"] for launch in data["launches"]] == [2, 8]
    assert data["launches"][1]["load_points"][0]["sha256"] == f"{8:064x}"
    assert data["slo"]["workload"] == {"input_tokens": 1024, "output_tokens": 256, "seed": 7}
    assert data["commands"]["node1"][-2:] == ["--schedule-policy", "lpm"]


def test_the_evidence_names_the_content_of_every_input_file() -> None:
    history = made.improved()
    assert json.loads(files_of(Target.JSON, history)["evidence.json"].text)["inputs_sha256"] == {}
    inputs = {"dataset": "0a" * 32, "trace at rate 4": "1b" * 32}
    study = history.study.model_copy(update={"inputs_sha256": inputs})
    found = files_of(Target.JSON, dataclasses.replace(history, study=study))
    data = json.loads(found["evidence.json"].text)
    assert data["inputs_sha256"] == inputs
    assert data["study"]["identity"] == study.identity != history.study.identity


def test_evidence_for_a_trial_that_was_never_measured_has_gaps_but_no_lies() -> None:
    found = files_of(Target.JSON, made.improved(), trial=3, force=True)
    data = json.loads(found["evidence.json"].text)
    assert data["ceilings"] == []
    assert data["objectives"] is None
    assert data["flags"]["effective"] is None
    assert "`not reported`" in found["EVIDENCE.md"].text
    assert "## Fresh launches" not in found["EVIDENCE.md"].text


def test_a_confirmation_is_exported_with_its_sisters() -> None:
    data = json.loads(files_of(Target.JSON, made.improved(), trial=8)["evidence.json"].text)
    assert [launch["trial"] for launch in data["launches"]] == [8, 2]


@pytest.mark.parametrize("target", [Target.DOCKER, Target.COMPOSE, Target.KUBERNETES, Target.HELM])
def test_a_container_needs_an_image(target: Target) -> None:
    with pytest.raises(ConfigError, match="names no image"):
        export(made.improved({"image": None}), target)


@pytest.mark.parametrize("text", ["a\nrm -rf /", "a\u2028b", "a\x85b", "a\rb", "\x1b[2J"])
def test_no_comment_can_leave_its_line(text: str) -> None:
    written = comments([text])
    assert written.count("\n") == 1
    assert len(written.splitlines()) == 1
    assert yaml.safe_load(written + "a: 1") == {"a": 1}


def test_hostile_log_lines_stay_inside_comments_and_code() -> None:
    study = made.make_study()
    line = "```\n# big\n`x` | y \u2028$(touch /tmp/x)"
    history = made.history(study, made.failed(0, FailureKind.CRASHED, line))
    found = files_of(Target.DOCKER, history, trial=0, force=True)
    script = found["run-node0.sh"].text
    assert "\n# big" not in script
    page = found["EVIDENCE.md"].text
    assert "\n# big" not in page
    assert "**````DOES NOT MEET ITS SLO" in page


def test_a_target_is_named_as_it_is_spelled() -> None:
    assert [parse_target(str(target)) for target in Target] == list(Target)
    with pytest.raises(
        ConfigError,
        match=r"there are docker, compose, systemd, kubernetes, helm, slurm, sglang-config, json\. "
        "Did you mean 'docker'",
    ):
        parse_target("dokcer")
    with pytest.raises(ConfigError, match=r"sglang-config, json\.$"):
        parse_target("podman")


def test_files_are_written_and_scripts_can_be_run(tmp_path: Path) -> None:
    files = export(made.improved(), Target.DOCKER)
    paths = write_files(files, tmp_path / "out")
    assert [path.name for path in paths] == ["run-node0.sh", "verify.sh", "slo.yaml", "EVIDENCE.md"]
    assert [path.read_text(encoding="utf-8") for path in paths] == [file.text for file in files]
    assert [os.access(path, os.X_OK) for path in paths] == [True, True, False, False]
