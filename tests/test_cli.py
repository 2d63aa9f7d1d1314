import json
import subprocess
import sys
from pathlib import Path

import pytest

from autotune import __version__
from autotune.cli import main
from autotune.search.ledger import read_history

INPUTS = ("search_spaces/llama-8b-1xh100.yaml", "slo/ttft-p95-10s-at-50.yaml")
STUDY = "llama-8b-1xh100--ttft-p95-10s-at-50"


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["autotune", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated study that was run to its end."""
    folder = tmp_path_factory.mktemp("runs")
    program = "from autotune.cli import main; main()"
    command = ["tune", *INPUTS, "--launcher", "simulated", "--trials", "4", "--finalists", "1"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--runs", str(folder)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    return folder


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == __version__


def test_tuning_again_goes_on_with_the_same_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    arguments = ["--launcher", "simulated", "--trials", "4", "--finalists", "1", "--runs", str(runs)]

    assert _run(monkeypatch, "tune", *INPUTS, *arguments) == 0

    told = capsys.readouterr().out
    assert "trial   1" not in told
    assert "answer" in told


def test_other_inputs_under_the_same_name_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    arguments = ["--launcher", "simulated", "--seed", "5", "--runs", str(runs)]

    assert _run(monkeypatch, "tune", *INPUTS, *arguments) == 4
    assert "'seed' differs" in capsys.readouterr().err


def test_a_report_is_shown_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    html, csv = tmp_path / "r.html", tmp_path / "t.csv"

    code = _run(monkeypatch, "report", STUDY, "--runs", str(runs), "--html", str(html), "--csv", str(csv))

    assert code == 0
    assert "SIMULATED" in capsys.readouterr().out
    assert "SIMULATED" in html.read_text()
    assert len(csv.read_text().splitlines()) == 1 + len(read_history(runs / STUDY).trials)


def test_a_report_comes_in_every_form_and_in_chinese(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    forms = ("--html", "report.html", "--csv", "t.csv", "--markdown", "report.md", "--parquet", "t.parquet")
    options = [word if word.startswith("--") else str(tmp_path / word) for word in forms]
    images = tmp_path / "images"

    code = _run(
        monkeypatch, "report", STUDY, "--runs", str(runs), *options, "--images", str(images), "--lang", "zh"
    )

    assert code == 0
    assert "模拟" in capsys.readouterr().out
    assert '<html lang="zh">' in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith(f"# {STUDY}")
    assert (tmp_path / "t.parquet").stat().st_size > 1000
    assert (images / "plane.svg").exists()


def test_a_report_under_another_slo_says_so_everywhere_and_leaves_nothing_in_the_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in (runs / STUDY).iterdir() if path.is_file()}
    forms = ("--html", "r.html", "--csv", "t.csv", "--markdown", "r.md")
    options = [word if word.startswith("--") else str(tmp_path / word) for word in forms]
    other = ("report", STUDY, "--runs", str(runs), "--slo", "slo/ttft-p95-8s-at-50.yaml")

    assert _run(monkeypatch, *other) == 0
    assert "report:" not in capsys.readouterr().out
    assert _run(monkeypatch, *other, *options) == 0

    told = capsys.readouterr().out
    assert f"SIMULATED JUDGED AGAIN {STUDY}: answer" in told
    assert "ttft p95 < 8s at concurrency 50" in told
    assert f"report: {tmp_path / 'r.html'}" in told
    page = (tmp_path / "r.html").read_text()
    assert "<title>SIMULATED JUDGED AGAIN" in page
    assert "SLO for which the launches were made" in page
    assert "**JUDGED AGAIN under slo/ttft-p95-8s-at-50.yaml:" in (tmp_path / "r.md").read_text()
    head, first, *_ = (tmp_path / "t.csv").read_text().splitlines()
    assert "judged_again_under" in head
    assert "slo/ttft-p95-8s-at-50.yaml" in first
    assert {path: path.read_bytes() for path in (runs / STUDY).iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slo", "slo/chat.yaml"), "slo/chat.yaml:"),
        (("--slo", "none.yaml"), "none.yaml:1: no such file"),
        (("--slo", INPUTS[1], "--watch"), "leave out --watch or --slo"),
    ],
)
def test_an_slo_of_other_requests_or_a_running_view_of_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: Path,
    options: tuple[str, ...],
    message: str,
) -> None:
    assert _run(monkeypatch, "report", STUDY, "--runs", str(runs), *options) == 2
    assert message in capsys.readouterr().err


def test_a_calibrated_profile_tunes_and_serves_as_a_shipped_one_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "own.yaml"

    assert _run(monkeypatch, "calibrate", STUDY, "--runs", str(runs), "--out", str(out)) == 0

    told = capsys.readouterr().out
    assert "SIMULATED: autotune calibrate" in told
    assert "trial 0, concurrency 50" in told
    space = tmp_path / "space.yaml"
    space.write_text(Path(INPUTS[0]).read_text().replace("profile: llama-8b-1xh100", "profile: own.yaml"))
    assert _run(monkeypatch, "plan", str(space), INPUTS[1], "--launcher", "simulated") == 0
    assert _run(monkeypatch, "calibrate", STUDY, "--runs", str(runs), "--out", "own.txt") == 2


def test_a_study_can_be_named_by_its_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    assert _run(monkeypatch, "report", str(runs / STUDY)) == 0
    assert "answer" in capsys.readouterr().out


def test_two_studies_are_put_beside_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    page = tmp_path / "compare.html"

    assert (
        _run(monkeypatch, "compare", STUDY, str(runs / STUDY), "--runs", str(runs), "--out", str(page)) == 0
    )

    assert "SIMULATED: the numbers of both" in capsys.readouterr().out
    assert "Gain of B over A" in page.read_text()


def test_a_study_that_has_ended_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    assert _run(monkeypatch, "report", STUDY, "--runs", str(runs), "--watch") == 0

    told = capsys.readouterr().out
    assert "trial   0  met" in told
    assert "answer" in told


@pytest.mark.parametrize(
    "target", ["docker", "compose", "systemd", "kubernetes", "helm", "slurm", "sglang-config", "json"]
)
def test_the_confirmed_candidate_is_exported_with_its_evidence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: Path,
    tmp_path: Path,
    target: str,
) -> None:
    code = _run(monkeypatch, "export", STUDY, "--to", target, "--out", str(tmp_path), "--runs", str(runs))

    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert all(path.exists() for path in written)
    assert {"EVIDENCE.md", "verify.sh", "slo.yaml"} < {path.name for path in written}
    assert "simulated" in (tmp_path / "EVIDENCE.md").read_text().lower()


def test_an_unknown_target_names_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    assert _run(monkeypatch, "export", STUDY, "--to", "podman", "--runs", str(runs)) == 2
    assert "compose" in capsys.readouterr().err


def test_a_plan_shows_the_launch_of_every_node_and_what_a_night_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "search_spaces/deepseek-r1-2x8h100.yaml"

    assert _run(monkeypatch, "plan", space, INPUTS[1], "--launcher", "simulated") == 0

    told = capsys.readouterr().out
    assert "--node-rank 0" in told
    assert "--node-rank 1" in told
    assert "SIMULATED: 8 hours hold" in told


def test_a_check_finds_nothing_wrong_with_a_simulated_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "check", *INPUTS, "--launcher", "simulated") == 0
    assert "no problem found" in capsys.readouterr().out


def test_a_check_tells_what_stands_against_a_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)

    assert _run(monkeypatch, "check", *INPUTS) == 3

    assert "HF_TOKEN is not set" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["space", "slo"])
def test_a_schema_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert _run(monkeypatch, "schema", kind) == 0
    assert "properties" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schema", "studies"], "there are space, slo"),
        (["tune", *INPUTS, "--launcher", "dockr"], "there are docker, process, simulated"),
        (
            ["tune", *INPUTS, "--launcher", "simulated", "--sampler", "grid"],
            "tpe, gp, random, botorch",
        ),
        (["tune", *INPUTS, "--launcher", "simulated", "--precision", "2"], "write a share such as 2%"),
        (["tune", *INPUTS, "--launcher", "simulated", "--until", "7 am"], "a time of day such as 07:00"),
        (["tune", *INPUTS, "--launcher", "simulated", "--study", "a/b"], "a name has letters"),
        (["tune", "none.yaml", INPUTS[1]], "none.yaml:1: no such file"),
        (["tune", "--trials", "0", *INPUTS], "Invalid value for '--trials'"),
    ],
)
def test_what_is_wrong_with_a_command_is_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert _run(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_a_study_that_does_not_exist_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _run(monkeypatch, "report", "nothing", "--runs", str(tmp_path)) == 4
    assert "holds no study" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["name: [", "name: x\n", "seed: 2026-99-99\n"])
def test_a_damaged_study_is_one_message_and_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "study.yaml").write_text(text)

    assert _run(monkeypatch, "report", str(tmp_path)) == 4
    assert "study.yaml is damaged" in capsys.readouterr().err


def test_a_check_looks_at_the_disk_of_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("autotune.preflight.DISK_NEEDED_BYTES", 1 << 80)

    code = _run(monkeypatch, "check", *INPUTS, "--launcher", "simulated", "--runs", str(tmp_path / "none"))

    assert code == 3
    assert "MiB free in" in capsys.readouterr().out


def test_a_time_of_day_bounds_a_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--launcher", "simulated", "--hours", "0.2", "--until", "00:00", "--runs", str(tmp_path)]

    code = _run(monkeypatch, "tune", *INPUTS, *arguments)

    assert code in (0, 1)
    assert "trial   0" in capsys.readouterr().out
