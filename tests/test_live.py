import io

from rich.console import Console

from autotune.live import StudyView
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.budget import Budget
from autotune.search.ledger import AskedTrial
from autotune.tuner import PhaseBegan, Recovered, TrialEnded
from tests.support.trials import STUDY, failed, measured, numbered


def _view(*, is_terminal: bool = False, launches: int | None = 4) -> tuple[StudyView, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=120, color_system=None)
    return StudyView(STUDY.slo, Budget(launches=launches, finalists=1), console), output


def _ended(record: TrialRecord, number: int = 1, left_s: float | None = None) -> TrialEnded:
    return TrialEnded(AskedTrial(number, record.role, record.to_candidate()), record, left_s)


def test_every_trial_is_told_with_its_verdict_value_and_flags() -> None:
    view, output = _view()

    view.observe(_ended(measured(120.0, role=Role.BASELINE, flags={}), number=0))
    view.observe(_ended(measured(130.0, ttft_s=3.0, flags={"max-running-requests": 16})))
    view.observe(_ended(failed(), number=2))
    view.observe(_ended(measured(1.0, outcome=Outcome.INFEASIBLE, reason="contradicts [x]"), number=3))
    view.observe(_ended(measured(120.0, same_as=0, durations_s={}), number=4))

    told = output.getvalue()
    assert "trial   0  met" in told
    assert "120 tok/s" in told
    assert "missed" in told
    assert "max-running-requests=16" in told
    assert "no_kv_memory" in told
    assert "Not enough memory." in told
    assert "contradicts [x]" in told
    assert "(as trial 0)" in told


def test_the_best_is_the_best_that_misses_nothing() -> None:
    view, _ = _view()

    view.observe(_ended(measured(120.0)))
    view.observe(_ended(measured(500.0, ttft_s=3.0)))
    view.observe(_ended(measured(110.0)))
    view.observe(_ended(measured(900.0, role=Role.CONFIRMATION)))

    assert view.best is not None
    assert view.best.objectives == (120.0,)
    assert (view.launches, view.confirmations) == (3, 1)


def test_time_left_is_the_deadlines_or_else_an_estimate() -> None:
    view, _ = _view()
    view.observe(_ended(measured(120.0), left_s=77.0))
    assert view.left_s == 77.0

    view.observe(_ended(measured(120.0)))
    assert view.left_s == (2 + 4) * 100.0

    endless, _ = _view(launches=None)
    endless.observe(_ended(measured(120.0)))
    assert endless.left_s is None


def test_a_terminal_shows_a_live_line_and_keeps_the_finished_trials() -> None:
    view, output = _view(is_terminal=True)

    with view.shown():
        view.observe(_ended(measured(120.0)))
        view.observe(PhaseBegan(AskedTrial(2, Role.SEARCH, STUDY_CANDIDATE), "load: concurrency 4"))
        view._live.refresh() if view._live else None

    told = output.getvalue()
    assert "launch 1/4" in told
    assert "trial 2 (search) load: concurrency 4" in told
    assert "best 120 tok/s" in told
    assert "left" in told


def test_what_an_earlier_run_left_behind_is_told() -> None:
    view, output = _view()

    view.observe(Recovered(run_again=(3,), removed=("python3 (pid 7)",)))

    assert "removed what an earlier run left behind: python3 (pid 7)" in output.getvalue()
    assert "run again: trial 3" in output.getvalue()


def test_a_study_that_goes_on_shows_what_it_did_before_its_first_event() -> None:
    view, output = _view(is_terminal=True)
    view.catch_up(numbered(measured(90.0, role=Role.BASELINE, flags={}), measured(120.0), failed()))

    with view.shown():
        pass

    assert (view.launches, view.baseline is not None, view.spent_s) == (3, True, 230.0)
    assert "launch 3/4" in output.getvalue()
    assert "best 120 tok/s" in output.getvalue()
    assert "left" in output.getvalue()
    assert "trial   1" not in output.getvalue()


STUDY_CANDIDATE = measured(1.0).to_candidate()
