import re
import shutil
from pathlib import Path

import pytest

from autotune.report.answer import answer_text
from autotune.report.html import render_report
from autotune.report.plots.every import every_plot
from autotune.report.seen import Measurements
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from tests.screenshots import EXAMPLE, ROOT, example_study, run_example

MOST_BYTES = 1_000_000


@pytest.fixture
def example(tmp_path: Path) -> StudyHistory:
    """The committed study, from a copy: what reads a database may leave files beside it."""
    return read_history(shutil.copytree(EXAMPLE, tmp_path / "example"))


def test_the_committed_example_is_a_whole_simulated_study_that_says_so(example: StudyHistory) -> None:
    assert example.study == example_study()
    assert answer_text(example).startswith("SIMULATED")
    assert example.answer is not None
    assert example.answer.meets_slo
    assert "SIMULATED" in render_report(example)


def test_the_example_keeps_the_raw_records_that_its_report_reads(example: StudyHistory) -> None:
    notes = [plot.note for plot in every_plot(Measurements(example))]

    assert not any("cannot be read" in note for note in notes)


def test_the_example_is_small_and_names_no_machine() -> None:
    files = [path for path in EXAMPLE.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert {path.name for path in files if path.parent == EXAMPLE} >= {"study.db", "study.yaml"}
    assert not (EXAMPLE / "status.json").exists()


def test_the_readme_shows_pictures_that_are_there_and_that_need_no_network() -> None:
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", (ROOT / "README.md").read_text())

    assert len(pictures) == 3
    assert all((ROOT / picture).is_file() for picture in pictures)
    assert "url(http" not in (EXAMPLE / "live.svg").read_text()
    assert "SIMULATED" in (EXAMPLE / "live.svg").read_text()


@pytest.mark.slow
def test_the_example_is_what_its_command_makes(example: StudyHistory, tmp_path: Path) -> None:
    again, picture = run_example(tmp_path / "again" / "example")

    assert [trial.record for trial in again.trials] == [trial.record for trial in example.trials]
    assert again.answer == example.answer
    assert picture == (EXAMPLE / "live.svg").read_text()
