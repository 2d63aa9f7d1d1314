"""Several engines at once: every slot runs trials of its own, and one that fails is left."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotune.engine.launch_watch import MonotonicClock
from autotune.engine.launcher import Clock, RunningEngine
from autotune.engine.launchers import open_launcher
from autotune.engine.plan import LaunchPlan
from autotune.errors import InfrastructureError
from autotune.failure import EngineError, EngineFailure, FailureKind, StartPhase
from autotune.record import Outcome, Role
from autotune.report.answer import explanation
from autotune.search.answer import AnswerKind
from autotune.search.budget import Budget, launches_used
from autotune.search.ledger import read_history
from autotune.search.repeats import SearchEnd
from autotune.search.stopping import FEWEST_MEASURED, PATIENCE
from autotune.search.study_history import StudyHistory
from autotune.study import Study
from autotune.trial import CALLED_OFF
from autotune.tuner import Event, Quarantined, tune
from tests.support.scripted import CRASH, NOT_READY, Script, ScriptedEngine, ScriptedLauncher, VirtualClock
from tests.support.trials import STUDY

SMALL = Budget(launches=8, finalists=2, rounds=2)
LOST = EngineFailure(kind=FailureKind.NODE_LOST, phase=StartPhase.PROCESS, line="the node was lost")


def study_on(count: int, *, nodes_per_engine: int = 1) -> Study:
    nodes = [{"name": f"n{index}", "docker": f"ssh://n{index}", "gpus": 1} for index in range(count)]
    keys = {"nodes": nodes, "nodes_per_engine": nodes_per_engine}
    space = STUDY.space.model_validate(STUDY.space.model_dump(by_alias=True) | keys)
    return STUDY.model_copy(update={"space": space})


def faster_with_more(flags: dict[str, str], _launch: int) -> Script:
    return Script(gap_s=2.0 / int(flags.get("max-running-requests", 32)))


def slower(flags: dict[str, str], launch: int) -> Script:
    """A node that takes half as long again for everything."""
    script = faster_with_more(flags, launch)
    return Script(start_s=90.0, ttft_s=script.ttft_s * 1.5, gap_s=script.gap_s * 1.5)


def run(
    launchers: Sequence[ScriptedLauncher],
    folder: Path,
    *,
    budget: Budget = SMALL,
    observe: Callable[[Event], None] = lambda _: None,
) -> StudyHistory:
    first, *more = launchers
    study = study_on(len(launchers))
    return tune(study, first, budget, folder, observe=observe, more_launchers=more)


def test_trials_run_on_all_slots_at_once_and_each_knows_where(tmp_path: Path) -> None:
    launchers = [ScriptedLauncher(faster_with_more) for _ in range(2)]

    history = run(launchers, tmp_path)

    launched = [trial.record for trial in history.trials if trial.record.durations_s]
    searched = [record for record in launched if record.role is not Role.CONFIRMATION]
    assert [len(searched), {record.nodes for record in searched}] == [8, {("n0",), ("n1",)}]
    assert len({record.to_candidate() for record in searched}) == 8
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED
    spent_s = max(launcher.clock.seconds for launcher in launchers)
    assert spent_s < 0.6 * sum(record.duration_s for record in launched)


def test_a_simulated_study_on_several_slots_repeats_itself(tmp_path: Path) -> None:
    def candidates(folder: Path) -> list[object]:
        study = study_on(3)
        first, *more = (open_launcher(space, seed=0) for space in study.space.slots)
        history = tune(study, first, Budget(launches=6), folder, observe=lambda _: None, more_launchers=more)
        return [(each.record.candidate, each.record.nodes, each.record.objectives) for each in history.trials]

    assert candidates(tmp_path / "one") == candidates(tmp_path / "two")


def test_every_round_of_the_confirmation_is_run_on_one_slot_by_all(tmp_path: Path) -> None:
    history = run([ScriptedLauncher(faster_with_more), ScriptedLauncher(slower)], tmp_path)

    places: dict[int | None, list[tuple[str, ...]]] = {}
    for trial in history.trials:
        if trial.record.role is Role.CONFIRMATION:
            places.setdefault(trial.record.confirms, []).append(trial.record.nodes)
    assert [sorted(each) for each in places.values()] == [[("n0",), ("n1",)]] * 3


def test_a_slow_node_neither_decides_nor_blurs_the_answer(tmp_path: Path) -> None:
    even = run([ScriptedLauncher(faster_with_more), ScriptedLauncher(faster_with_more)], tmp_path / "even")
    uneven = run([ScriptedLauncher(faster_with_more), ScriptedLauncher(slower)], tmp_path / "uneven")

    for history in (even, uneven):
        assert history.answer is not None
        assert history.answer.kind is AnswerKind.IMPROVED
        (best, *_) = sorted(history.answer.finalists, key=lambda each: each.gain.low if each.gain else 0)
        assert best.gain is not None
        assert best.gain.high - best.gain.low < 0.05


def test_time_counts_once_for_all_slots(tmp_path: Path) -> None:
    launchers = [ScriptedLauncher(faster_with_more) for _ in range(2)]
    budget = Budget(study_s=1500.0, finalists=1, rounds=2)

    history = run(launchers, tmp_path, budget=budget)
    again = run([ScriptedLauncher(faster_with_more) for _ in range(2)], tmp_path, budget=budget)

    assert all(1000.0 < launcher.clock.seconds <= 1500.0 for launcher in launchers)
    assert len(again.trials) - len(history.trials) <= 4
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


def test_a_search_on_several_slots_ends_with_what_all_of_them_showed(tmp_path: Path) -> None:
    launchers = [ScriptedLauncher(faster_with_more) for _ in range(2)]

    history = run(launchers, tmp_path, budget=Budget(launches=40, finalists=1, least_gain=0.9))

    assert history.search_end is SearchEnd.GAIN
    assert FEWEST_MEASURED <= launches_used(history.trials) < FEWEST_MEASURED + PATIENCE
    assert all(each.record.outcome is not Outcome.INTERRUPTED for each in history.trials)


class Unclean(ScriptedLauncher):
    """Its node does not come clean after some launches."""

    def __init__(self, script: Callable[[dict[str, str], int], Script], *, after: int) -> None:
        super().__init__(script)
        self._after = after

    @contextmanager
    def launch(
        self, plan: LaunchPlan, folder: Path, on_phase: Callable[[StartPhase], None]
    ) -> Iterator[RunningEngine]:
        with super().launch(plan, folder, on_phase) as engine:
            yield engine
        if len(self.launches) > self._after:
            raise InfrastructureError(f"{plan.ranks[0].node.name}: port 30000 is held by pid 7 (python3)")


@pytest.mark.parametrize("after", [0, 2, 5], ids=["baseline", "search", "confirmation"])
def test_a_slot_that_does_not_come_clean_is_left_and_its_trial_run_elsewhere(
    tmp_path: Path, after: int
) -> None:
    events: list[Event] = []
    broken = Unclean(faster_with_more, after=after)

    history = run([broken, ScriptedLauncher(faster_with_more)], tmp_path, observe=events.append)

    assert len(broken.launches) == after + 1
    (left,) = [event for event in events if isinstance(event, Quarantined)]
    assert left.nodes == ("n0",)
    assert history.quarantine == {"n0": "n0: port 30000 is held by pid 7 (python3)"}
    assert any("n0 was not used any more: n0: port 30000" in line for line in explanation(history))
    (cut_off,) = [each for each in history.trials if each.record.outcome is Outcome.INTERRUPTED]
    assert cut_off.record.nodes == ("n0",)
    again = [each for each in history.trials if each.record.candidate == cut_off.record.candidate]
    assert any(each.record.outcome is Outcome.MEASURED and each.record.nodes == ("n1",) for each in again)
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED
    assert [each.launches for each in history.answer.finalists] == [2, 2]


def test_with_no_slot_left_the_study_stops_and_goes_on_later(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"(?s)no node is left.*n0: .*n1: ") as caught:
        run([Unclean(faster_with_more, after=1), Unclean(faster_with_more, after=2)], tmp_path)
    assert caught.value.exit_code == 3
    assert set(read_history(tmp_path).quarantine) == {"n0", "n1"}

    history = run([ScriptedLauncher(faster_with_more) for _ in range(2)], tmp_path)

    assert (history.running, history.quarantine) == (0, {})
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


def test_a_slot_whose_leftovers_cannot_be_removed_is_left(tmp_path: Path) -> None:
    class OutOfReach(ScriptedLauncher):
        def remove_leftovers(self, study: str) -> tuple[str, ...]:
            raise InfrastructureError(f"n0: no way to it for {study[:1]}")

    away = OutOfReach(faster_with_more)
    history = run([away, ScriptedLauncher(faster_with_more)], tmp_path)

    assert away.launches == []
    assert history.quarantine == {"n0": "n0: no way to it for s"}
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


@pytest.mark.parametrize("failure", [CRASH, LOST], ids=["nothing starts there", "it is lost again and again"])
def test_a_slot_that_serves_nothing_is_left_and_costs_no_candidate(
    tmp_path: Path, failure: EngineFailure
) -> None:
    dead = ScriptedLauncher(lambda *_: Script(start_failure=failure))
    events: list[Event] = []

    history = run([ScriptedLauncher(faster_with_more), dead], tmp_path, observe=events.append)

    assert len(dead.launches) == 3
    assert [event.nodes for event in events if isinstance(event, Quarantined)] == [("n1",)]
    failed = {trial.record.to_candidate() for trial in history.trials if trial.record.nodes == ("n1",)}
    measured = {trial.record.to_candidate() for trial in history.trials if trial.record.nodes == ("n0",)}
    assert failure is CRASH or failed <= measured
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED


class RealTime(ScriptedLauncher):
    """Takes real, short time, and waits as a real launcher does: until ready or called off."""

    is_simulated = False

    def __init__(self, start_s: float, both: threading.Barrier | None = None) -> None:
        super().__init__(faster_with_more)
        self._start_s = start_s
        self._both = both
        self.clock: Clock = MonotonicClock()  # type: ignore[assignment]  # real time for once
        self.is_torn_down = threading.Event()

    @contextmanager
    def launch(
        self, plan: LaunchPlan, folder: Path, on_phase: Callable[[StartPhase], None]
    ) -> Iterator[RunningEngine]:
        assert folder.is_dir()
        self.launches.append({})
        self.is_torn_down.clear()
        if self._both is not None and len(self.launches) == 1:
            self._both.wait(20)  # until both slots have begun
        ready_s = time.monotonic() + self._start_s
        try:
            on_phase(StartPhase.WEIGHTS)
            while time.monotonic() < ready_s:
                if plan.is_called_off():
                    raise EngineError(NOT_READY)
                time.sleep(0.005)
            yield ScriptedEngine(self._script({}, 0), {}, VirtualClock(), self.log)
        finally:
            self.is_torn_down.set()


def test_real_engines_run_side_by_side(tmp_path: Path) -> None:
    both = threading.Barrier(2)
    launchers = [RealTime(0.01, both), RealTime(0.01, both)]

    history = tune(
        study_on(2),
        launchers[0],
        Budget(launches=4, finalists=1),
        tmp_path,
        observe=lambda _: None,
        more_launchers=launchers[1:],
    )

    assert all(launcher.launches for launcher in launchers)
    assert history.running == 0


def test_an_interrupt_ends_all_slots_cleanly_and_everything_goes_on_later(tmp_path: Path) -> None:
    launchers = [RealTime(60.0), RealTime(60.0)]
    phases: list[Event] = []

    def interrupt_once_both_load(event: Event) -> None:
        phases.append(event)
        if sum("weights" in getattr(each, "phase", "") for each in phases) == 2:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tune(
            study_on(2),
            launchers[0],
            SMALL,
            tmp_path,
            observe=interrupt_once_both_load,
            more_launchers=launchers[1:],
        )

    assert all(launcher.is_torn_down.is_set() for launcher in launchers)
    assert read_history(tmp_path).running == 2
    history = run([ScriptedLauncher(faster_with_more) for _ in range(2)], tmp_path)
    assert history.running == 0
    cut_off = [each.record for each in history.trials if each.record.outcome is Outcome.INTERRUPTED]
    assert len(cut_off) == 2
    assert all(0 < record.duration_s < 30 for record in cut_off)
    assert CALLED_OFF not in {record.reason for record in cut_off}
    assert history.answer is not None
    assert history.answer.kind is AnswerKind.IMPROVED
