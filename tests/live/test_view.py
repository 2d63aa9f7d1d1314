import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from autotune.errors import InfrastructureError
from autotune.events import PhaseBegan, Recovered, SearchEnded, TrialEnded
from autotune.live.progress import Controller
from autotune.live.status import STATUS_FILE, read_status
from autotune.live.view import StudyView
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.budget import Budget
from autotune.search.ledger import AskedTrial
from autotune.search.repeats import SearchEnd
from tests.support.scripted import Script, ScriptedLauncher
from tests.support.trials import STUDY, failed, measured, numbered

CANDIDATE = measured(1.0).to_candidate()


class Seen:
    """A view on a console that is kept, with a clock that the test turns."""

    def __init__(self, folder: Path, *, is_terminal: bool = False, budget: Budget | None = None) -> None:
        self.output = io.StringIO()
        console = Console(
            file=self.output, force_terminal=is_terminal, width=120, height=40, color_system=None
        )
        launcher = ScriptedLauncher(lambda _flags, _number: Script())
        self.clock = launcher.clock
        self.view = StudyView(STUDY, folder, budget or Budget(launches=4, finalists=1), launcher, console)

    @property
    def text(self) -> str:
        return self.output.getvalue()


def _ended(record: TrialRecord, number: int = 1, left_s: float | None = None) -> TrialEnded:
    return TrialEnded(AskedTrial(number, record.role, record.to_candidate()), record, left_s)


def _begun(number: int, phase: str, role: Role = Role.SEARCH) -> PhaseBegan:
    return PhaseBegan(AskedTrial(number, role, CANDIDATE), phase)


def test_every_trial_is_told_with_its_verdict_value_and_flags(tmp_path: Path) -> None:
    seen = Seen(tmp_path)

    seen.view.observe(_ended(measured(120.0, role=Role.BASELINE, flags={}), number=0))
    seen.view.observe(_ended(measured(130.0, ttft_s=3.0, flags={"max-running-requests": 16})))
    seen.view.observe(_ended(failed(), number=2))
    seen.view.observe(_ended(measured(1.0, outcome=Outcome.INFEASIBLE, reason="contradicts [x]"), number=3))
    seen.view.observe(_ended(measured(120.0, same_as=0, durations_s={}), number=4))
    seen.view.observe(_ended(measured(1.0, objectives=None, verdict=None), number=5))

    assert "trial   0  met" in seen.text
    assert "120 tok/s" in seen.text
    assert "missed" in seen.text
    assert "max-running-requests=16" in seen.text
    assert "no_kv_memory" in seen.text
    assert "Not enough memory." in seen.text
    assert "contradicts [x]" in seen.text
    assert "(as trial 0)" in seen.text
    assert "trial   5  undecided" in seen.text


def test_what_an_earlier_run_left_behind_is_told(tmp_path: Path) -> None:
    seen = Seen(tmp_path)

    seen.view.observe(Recovered(run_again=(3,), removed=("python3 (pid 7)",)))

    assert "removed what an earlier run left behind: python3 (pid 7)" in seen.text
    assert "run again: trial 3" in seen.text


def test_why_the_search_ended_is_told_and_no_more_of_its_launches_are_foreseen(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.view.observe(_ended(measured(120.0, role=Role.BASELINE, flags={}), number=0))
    assert seen.view.progress().launches_left == 3

    seen.view.observe(SearchEnded(SearchEnd.GAIN, 0.004))

    assert (
        "ended because little was left to gain. A further launch of it was expected to gain 0.40 %"
        in seen.text
    )
    assert seen.view.progress().launches_left == 0


def test_several_trials_run_at_once_each_with_its_own_times(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.view.observe(_begun(1, "asked"))
    seen.clock.seconds = 10.0
    seen.view.observe(_begun(1, "launch"))
    seen.view.observe(_begun(2, "launch: weights"))
    seen.clock.seconds = 30.0
    seen.view.observe(_begun(1, "load: concurrency 4"))
    seen.clock.seconds = 35.0

    first, second = seen.view.progress().running

    assert (first.number, first.stage, first.trial_s, first.stage_s, first.phase_s) == (1, "load", 35, 5, 5)
    assert (second.number, second.stage, second.trial_s, second.stage_s) == (2, "launch", 25, 25)

    seen.view.observe(_ended(measured(120.0)))

    assert [trial.number for trial in seen.view.progress().running] == [2]


def test_a_terminal_is_filled_and_given_back_with_what_was_told(tmp_path: Path) -> None:
    seen = Seen(tmp_path, is_terminal=True)

    with seen.view.shown():
        seen.view.observe(_begun(2, "load: concurrency 4"))
        seen.view.observe(_ended(measured(120.0)))
        print("a warning", file=sys.stderr)

    page, restored = seen.text.split("\x1b[?1049l")
    assert "\x1b[?1049h" in page
    assert "trial   1  met" in restored
    assert "a warning" in restored
    assert seen.text.count("\x1b[?25h") == seen.text.count("\x1b[?25l")


def test_a_terminal_is_given_back_when_a_study_is_stopped(tmp_path: Path) -> None:
    seen = Seen(tmp_path, is_terminal=True)

    with pytest.raises(KeyboardInterrupt), seen.view.shown():
        raise KeyboardInterrupt

    assert seen.text.endswith("\x1b[?1049l")


def test_a_study_that_goes_on_shows_what_it_did_before_its_first_event(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.view.catch_up(numbered(measured(90.0, role=Role.BASELINE, flags={}), measured(120.0), failed()))

    progress = seen.view.progress()

    assert (progress.standing.launches, progress.standing.spent_s) == (3, 230.0)
    assert progress.standing.incumbent is not None
    assert progress.standing.incumbent.number == 1
    assert [line.plain.split()[2] for line in progress.told] == ["met", "met", "failed"]
    assert seen.text == ""


def test_the_time_left_is_known_from_the_start_and_runs_down(tmp_path: Path) -> None:
    seen = Seen(tmp_path, budget=Budget(study_s=1000.0))
    seen.view.catch_up(numbered(measured(90.0, role=Role.BASELINE)))
    seen.clock.seconds = 50.0
    assert seen.view.progress().left_s == 850.0

    seen.view.observe(_ended(measured(120.0), left_s=700.0))
    seen.clock.seconds = 60.0
    assert seen.view.progress().left_s == 690.0


def test_the_status_is_written_at_an_event_and_ends_with_the_view(tmp_path: Path) -> None:
    seen = Seen(tmp_path)

    with seen.view.shown():
        assert not (tmp_path / STATUS_FILE).exists()
        seen.view.observe(_begun(1, "launch"))
        status = read_status(tmp_path)
        assert status is not None
        assert [trial.number for trial in status.running] == [1]
        assert status.controller() is Controller.RUNNING

    ended = read_status(tmp_path)
    assert ended is not None
    assert (ended.controller(), ended.running) == (Controller.ENDED, ())


def test_a_controller_that_was_refused_leaves_the_status_of_the_other_alone(tmp_path: Path) -> None:
    with Seen(tmp_path).view.shown():
        pass

    assert not (tmp_path / STATUS_FILE).exists()


def test_a_status_that_cannot_be_written_stops_the_study_as_any_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    seen = Seen(folder)

    with pytest.raises(InfrastructureError, match="cannot be written"), seen.view.shown():
        seen.view.observe(_begun(1, "launch"))
