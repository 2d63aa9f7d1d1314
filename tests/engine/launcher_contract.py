"""What every launcher must do, as tests to inherit.

A subclass gives the fixtures `launcher` and `arrange`: the latter turns a situation into a launch plan.
`assert_gone` may check more than that the same plan can be launched again.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import pytest

from autotune.engine.launcher import Launcher
from autotune.engine.plan import LaunchPlan
from autotune.failure import EngineError, FailureKind, LiveRefusedError, StartPhase

LIMIT = "max-running-requests"


class Situation(StrEnum):
    GOOD = "good"
    NO_KV_MEMORY = "no_kv_memory"
    NEVER_READY = "never_ready"


Arrange: TypeAlias = Callable[[Situation], LaunchPlan]


class Phases(list[StartPhase]):
    def __call__(self, phase: StartPhase) -> None:
        self.append(phase)


class LauncherContract:
    def assert_gone(self, plan: LaunchPlan) -> None:
        assert plan.ranks

    def assert_launches(self, launcher: Launcher, plan: LaunchPlan, folder: Path) -> None:
        with launcher.launch(plan, folder, Phases()) as engine:
            assert engine.failure() is None

    def test_a_good_plan_gives_a_running_engine_that_tells_its_flags(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        plan = arrange(Situation.GOOD)
        with launcher.launch(plan, tmp_path, Phases()) as engine:
            assert engine.effective.kv_tokens is not None
            assert engine.effective.flags
            assert engine.failure() is None
            engine.abort_requests()
            engine.flush_cache()
            assert engine.failure() is None
        self.assert_gone(plan)

    def test_the_running_limit_is_set_while_it_serves_and_set_back(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        with launcher.launch(arrange(Situation.GOOD), tmp_path, Phases()) as engine:
            flag = engine.live_flags[LIMIT]
            assert flag.part_of(flag.maximum) == engine.effective.running_limit
            for value in (flag.minimum, flag.maximum // 2, flag.maximum):
                now = engine.set_live(LIMIT, value)
                assert now.running_limit == flag.part_of(value)
                assert now.flags == {**engine.effective.flags, LIMIT: value}
            assert engine.failure() is None

    def test_what_it_was_not_launched_for_is_not_set_live(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        with launcher.launch(arrange(Situation.GOOD), tmp_path, Phases()) as engine:
            maximum = engine.live_flags[LIMIT].maximum
            for name, value in ((LIMIT, maximum + 1), (LIMIT, 0), ("chunked-prefill-size", 64)):
                with pytest.raises(LiveRefusedError, match=name):
                    engine.set_live(name, value)
            assert engine.failure() is None

    def test_phases_begin_in_order_and_those_that_ended_have_a_duration(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        phases = Phases()
        with launcher.launch(arrange(Situation.GOOD), tmp_path, phases) as engine:
            order = list(StartPhase)
            assert [order.index(phase) for phase in phases] == sorted({order.index(each) for each in phases})
            assert StartPhase.PROCESS in phases[:2]
            assert phases[-1] is StartPhase.SERVING
            assert list(engine.phases_s) == phases[:-1]
            assert all(seconds >= 0 for seconds in engine.phases_s.values())

    def test_the_clock_does_not_run_backwards_over_a_launch(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        before_s = launcher.clock.now_s()
        self.assert_launches(launcher, arrange(Situation.GOOD), tmp_path)
        assert launcher.clock.now_s() > before_s

    def test_each_rank_leaves_its_log_in_the_folder(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        plan = arrange(Situation.GOOD)
        self.assert_launches(launcher, plan, tmp_path / "trial")
        names = sorted(path.name for path in (tmp_path / "trial").iterdir())
        assert names == [f"engine-rank{rank.rank}.log" for rank in plan.ranks]

    def test_a_failure_at_start_is_typed_with_its_line_and_phase(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        plan = arrange(Situation.NO_KV_MEMORY)
        with pytest.raises(EngineError) as caught, launcher.launch(plan, tmp_path, Phases()):
            pytest.fail("it must not become ready")
        failure = caught.value.failure
        assert failure.kind is FailureKind.NO_KV_MEMORY
        assert "no GPU memory" in failure.line
        assert failure.phase is not StartPhase.SERVING
        assert failure.waited_s > 0
        self.assert_gone(plan)

    def test_an_engine_that_never_gets_ready_is_given_up(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        plan = arrange(Situation.NEVER_READY)
        with pytest.raises(EngineError) as caught, launcher.launch(plan, tmp_path, Phases()):
            pytest.fail("it must not become ready")
        assert caught.value.failure.kind is FailureKind.NOT_READY
        assert caught.value.failure.waited_s >= plan.ready_timeout_s
        self.assert_gone(plan)

    @pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
    def test_whatever_is_raised_inside_comes_out_and_the_engine_is_gone(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path, kind: type[BaseException]
    ) -> None:
        plan = arrange(Situation.GOOD)
        with pytest.raises(kind), launcher.launch(plan, tmp_path, Phases()):
            raise kind
        self.assert_gone(plan)

    def test_the_same_plan_can_be_launched_again_at_once(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        plan = arrange(Situation.GOOD)
        self.assert_launches(launcher, plan, tmp_path / "first")
        self.assert_launches(launcher, plan, tmp_path / "second")
        self.assert_gone(plan)

    def test_a_failed_launch_does_not_spoil_the_next(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        with (
            pytest.raises(EngineError),
            launcher.launch(arrange(Situation.NO_KV_MEMORY), tmp_path / "first", Phases()),
        ):
            pytest.fail("it must not become ready")
        self.assert_launches(launcher, arrange(Situation.GOOD), tmp_path / "second")

    def test_an_error_of_the_caller_on_a_phase_leaves_nothing_running(
        self, launcher: Launcher, arrange: Arrange, tmp_path: Path
    ) -> None:
        plan = arrange(Situation.GOOD)

        def stop_after_the_first(phase: StartPhase) -> None:
            if phase is not StartPhase.PROCESS:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), launcher.launch(plan, tmp_path, stop_after_the_first):
            pytest.fail("it must not become ready")
        self.assert_gone(plan)

    def test_there_are_no_leftovers_of_an_unknown_study(self, launcher: Launcher) -> None:
        assert launcher.remove_leftovers("no-such-study") == ()
