from pathlib import Path

import pytest

from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.record import Outcome, Role
from autotune.search.answer import AnswerKind
from autotune.search.budget import Budget
from autotune.search.sampler import SamplerKind
from autotune.search.study_history import StudyHistory
from autotune.slo import StopKind
from autotune.space import LauncherKind
from autotune.tuner import tune
from tests.support.scripted import Script, ScriptedLauncher
from tests.support.trials import STUDY

OUT_OF_MEMORY = EngineFailure(
    kind=FailureKind.OUT_OF_MEMORY_CAPTURE, phase=StartPhase.GRAPH_CAPTURE, line="CUDA out of memory"
)


def _edge(flags: dict[str, str], _launch: int) -> Script:
    """Faster with more slots; out of memory above a fraction of 0.75."""
    if float(flags.get("mem-fraction-static", 0.7)) > 0.75:
        return Script(start_failure=OUT_OF_MEMORY)
    return Script(gap_s=2.0 / int(flags.get("max-running-requests", 32)))


def _tuned(folder: Path, sampler: SamplerKind, launcher: LauncherKind) -> StudyHistory:
    study = STUDY.model_copy(update={"space": STUDY.space.model_copy(update={"launcher": launcher})})
    budget = Budget(launches=6 if launcher is LauncherKind.PROCESS else 14, finalists=1)
    return tune(study, ScriptedLauncher(_edge), budget, folder, sampler=sampler, observe=lambda _: None)


@pytest.mark.parametrize("launcher", [LauncherKind.SIMULATED, LauncherKind.PROCESS])
def test_a_study_with_the_gaussian_process_finds_the_most_slots(
    tmp_path: Path, launcher: LauncherKind
) -> None:
    history = _tuned(tmp_path, SamplerKind.GP, launcher)

    measured = [trial.record for trial in history.trials if trial.record.outcome is Outcome.MEASURED]
    assert max(int(str(record.candidate.get("max-running-requests", 32))) for record in measured) > 200


def test_with_a_twin_what_cannot_win_is_given_up_while_its_load_runs(tmp_path: Path) -> None:
    """The scripted engine is the slower the more run, as no scheduler is; the twin's pace is corrected."""
    study = STUDY.model_copy(
        update={"space": STUDY.space.model_copy(update={"launcher": LauncherKind.PROCESS})}
    )
    launcher = ScriptedLauncher(lambda flags, _: Script(gap_s=int(flags.get("max-running-requests", 8)) / 20))

    budget = Budget(launches=4, finalists=1)
    history = tune(study, launcher, budget, tmp_path, sampler=SamplerKind.GP, observe=lambda _: None)

    searched = [trial.record for trial in history.trials if trial.record.role is Role.SEARCH]
    stops = [point.stopped.kind for record in searched for point in record.stops if point.stopped]
    assert set(stops) == {StopKind.NO_CHANCE}
    assert not any(
        record.stops
        for record in (trial.record for trial in history.trials)
        if record.role is not Role.SEARCH
    )
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.KEEP_BASELINE


def test_what_was_doubted_is_recorded_with_its_reason_and_cost_no_launch(tmp_path: Path) -> None:
    history = _tuned(tmp_path, SamplerKind.RANDOM, LauncherKind.SIMULATED)

    refused = [trial.record for trial in history.trials if trial.record.outcome is Outcome.INFEASIBLE]
    assert refused
    assert all("ran out of memory with no more of anything" in (record.reason or "") for record in refused)
    assert not any(record.durations_s for record in refused)
