from pathlib import Path

import pytest

from autotune.engine.launch_watch import LaunchWatch, Patience
from autotune.engine.log_watch import LogWatch
from autotune.engine.phase_budgets import BudgetRule, PhaseBudgets
from autotune.engine.plan import LaunchPlan, RankPlan, plan_launch
from autotune.failure import EngineError, FailureKind, StartPhase
from autotune.space import Candidate, SearchSpace
from tests.support.ports import free_port

_RULE = BudgetRule(launches=1, factor=4.0, floor_s=1.0)


class PassingClock:
    """Every look at it costs a second."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        self._now_s += 1.0
        return self._now_s

    def idle_until(self, moment_s: float) -> None:
        assert moment_s < 0  # nobody asks for it


class LivingRank:
    """A rank that lives and says what is in its log."""

    exit_code = None
    is_alive = True
    outer_cause = None

    def __init__(self, plan: RankPlan, watch: LogWatch) -> None:
        self.plan = plan
        self.watch = watch

    def settle(self) -> None:
        pass


@pytest.fixture
def plan() -> LaunchPlan:
    space = SearchSpace.model_validate(
        {"version": "0.5.23", "model": "m", "tune": {"chunked-prefill-size": {"int": [64, 8192]}}}
    )
    return plan_launch(space, Candidate.of({}), study="s", trial="0000", port=free_port())


@pytest.mark.parametrize(
    ("line", "phase", "kind"),
    [
        ("Init parallel begin.", StartPhase.RENDEZVOUS, FailureKind.RENDEZVOUS_TIMEOUT),
        ("Load weight begin. avail mem=17.61 GB", StartPhase.WEIGHTS, FailureKind.NOT_READY),
    ],
)
def test_a_phase_that_takes_far_longer_than_before_ends_the_launch(
    plan: LaunchPlan, tmp_path: Path, line: str, phase: StartPhase, kind: FailureKind
) -> None:
    budgets = PhaseBudgets(_RULE)
    budgets.learn({phase: 5.0})
    watch = LaunchWatch(plan, lambda _: None, PassingClock(), Patience(poll_s=0.001), budgets)
    log = tmp_path / "engine-rank0.log"
    log.write_text(f"{line}\n")
    watch.begin()
    watch.use([LivingRank(plan.ranks[0], watch.log_watch(log))])
    with pytest.raises(EngineError) as caught:
        watch.await_ready()
    watch.api.close()
    failure = caught.value.failure
    assert (failure.kind, failure.phase) == (kind, phase)
    assert f"in phase {phase}, which took 5 s at most in the 1 launches before" in failure.line
    assert 20 <= failure.waited_s < plan.ready_timeout_s
