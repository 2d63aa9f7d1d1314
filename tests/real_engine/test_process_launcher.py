"""Against the real SGLang 0.5.23 on this machine's CPU."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.engine.process import ProcessLauncher
from autotune.engine.process_launch import held_ports
from autotune.engine.process_tree import living, marked
from autotune.failure import EngineError, EngineFailure, FailureKind, StartPhase
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.engine.launcher_contract import Phases
from tests.real_engine.cpu import SOCKET_VARIABLE
from tests.support.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

_STUDY = f"real-{os.getpid()}"


@pytest.fixture
def plan_of(
    cpu_space: Callable[..., SearchSpace], preloaded: Path
) -> Callable[[dict[str, FlagValue]], LaunchPlan]:
    def plan(flags: dict[str, FlagValue], **keys: object) -> LaunchPlan:
        space = cpu_space(**{"environment": {SOCKET_VARIABLE: str(preloaded)}, **keys})
        return planned(space, flags)

    return plan


def planned(space: SearchSpace, flags: dict[str, FlagValue]) -> LaunchPlan:
    port, rendezvous_port = free_port(), free_port()
    return plan_launch(
        space, Candidate.of(flags), study=_STUDY, trial="0001", port=port, rendezvous_port=rendezvous_port
    )


def processes() -> list[psutil.Process]:
    return living(marked(lambda mark: mark.study == _STUDY))


def assert_nothing_left(plan: LaunchPlan) -> None:
    assert processes() == []
    assert held_ports(plan) == []


def generate(plan: LaunchPlan) -> int:
    body = {"input_ids": list(range(100, 164)), "sampling_params": {"max_new_tokens": 4, "ignore_eos": True}}
    request = Request(  # noqa: S310 - the server of this test
        f"{plan.base_url}/generate", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - the server of this test
        return int(json.load(answer)["meta_info"]["completion_tokens"])


def failure_of(plan: LaunchPlan, folder: Path) -> EngineFailure:
    with pytest.raises(EngineError) as caught, ProcessLauncher().launch(plan, folder, Phases()):
        pytest.fail("it must not become ready")
    assert_nothing_left(plan)
    return caught.value.failure


def test_flags_are_read_back_and_nothing_is_left(
    plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    plan = plan_of({"chunked-prefill-size": 128, "max-running-requests": 4, "schedule-policy": "lpm"})
    phases = Phases()
    with ProcessLauncher().launch(plan, tmp_path, phases) as engine:
        flags = engine.effective.flags
        assert (flags["chunked-prefill-size"], flags["schedule-policy"]) == (128, "lpm")
        assert (engine.effective.running_limit, engine.effective.kv_tokens) == (4, 40000)
        assert engine.effective.version == "0.5.23"
        assert engine.address.vocabulary_size == 2048
        assert generate(plan) == 4
        engine.flush_cache()
        assert engine.failure() is None
        unseen = {StartPhase.IMAGE, StartPhase.GRAPH_CAPTURE}
        assert phases == [phase for phase in StartPhase if phase not in unseen]
        assert set(engine.phases_s) == set(phases[:-1])
    assert_nothing_left(plan)


def test_a_value_that_is_no_choice_is_a_bad_argument(
    plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    failure = failure_of(plan_of({"schedule-policy": "nonsense"}), tmp_path)
    assert (failure.kind, failure.phase, failure.exit_code) == (
        FailureKind.BAD_ARGUMENT,
        StartPhase.PROCESS,
        2,
    )
    assert "invalid choice: 'nonsense'" in failure.line


def test_a_value_that_only_the_scheduler_refuses_is_a_bad_argument(
    plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    failure = failure_of(plan_of({"schedule-policy": "priority"}), tmp_path)
    assert (failure.kind, failure.exit_code) == (FailureKind.BAD_ARGUMENT, -signal.SIGKILL)
    assert "Unknown schedule_policy" in failure.line


def test_a_combination_that_is_refused_is_a_bad_argument(
    plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    failure = failure_of(plan_of({"chunked-prefill-size": 100, "page-size": 64}), tmp_path)
    assert failure.kind is FailureKind.BAD_ARGUMENT
    assert "divisible by page_size" in failure.line


def test_no_room_for_the_cache_is_told_with_the_smallest_viable_fraction(
    cpu_space: Callable[..., SearchSpace], tmp_path: Path
) -> None:
    # Started by itself: what the engine counts as used on a CPU are its imports.
    failure = failure_of(planned(cpu_space(), {"mem-fraction-static": -0.5}), tmp_path)
    assert failure.kind is FailureKind.NO_KV_MEMORY
    assert failure.phase is StartPhase.KV_POOL
    assert "Loaded weights leave no GPU memory" in failure.line
    assert failure.minimum_mem_fraction is not None
    assert 0 < failure.minimum_mem_fraction < 1


def test_a_model_that_is_not_there_is_missing(
    cpu_space: Callable[..., SearchSpace], preloaded: Path, tmp_path: Path
) -> None:
    space = cpu_space(model="no-such-org/no-such-model", environment={SOCKET_VARIABLE: str(preloaded)})
    assert failure_of(planned(space, {}), tmp_path).kind is FailureKind.MODEL_MISSING


def test_a_server_that_is_killed_while_serving_has_crashed(
    plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    plan = plan_of({"chunked-prefill-size": 256})
    with ProcessLauncher().launch(plan, tmp_path, Phases()) as engine:
        server = next(each for each in processes() if is_session_leader(each) and not is_front(each))
        server.kill()
        failure = engine.failure()
        while failure is None:
            failure = engine.failure()
        assert (failure.kind, failure.phase) == (FailureKind.CRASHED, StartPhase.SERVING)
        assert "SIGKILL" in failure.line
    assert_nothing_left(plan)


def is_session_leader(process: psutil.Process) -> bool:
    return os.getsid(process.pid) == process.pid


def is_front(process: psutil.Process) -> bool:
    return "launch.py" in " ".join(process.cmdline())


def test_a_server_whose_front_is_killed_is_found_by_its_mark(
    plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    plan = plan_of({})
    with ProcessLauncher().launch(plan, tmp_path, Phases()):
        front = next(filter(is_front, processes()))
        front.kill()
        assert len(processes()) >= 3
    assert_nothing_left(plan)


def test_a_server_without_the_preloaded_parent_keeps_its_mark_in_every_process(
    cpu_space: Callable[..., SearchSpace], tmp_path: Path
) -> None:
    plan = planned(cpu_space(), {"chunked-prefill-size": 512})
    with ProcessLauncher().launch(plan, tmp_path, Phases()) as engine:
        assert engine.effective.flags["chunked-prefill-size"] == 512
        leader = min(process.pid for process in processes())
        family = {leader, *(child.pid for child in psutil.Process(leader).children(recursive=True))}
        assert {process.pid for process in processes()} == family
        assert len(family) >= 3
    assert_nothing_left(plan)


def test_two_ranks_are_one_engine(
    cpu_space: Callable[..., SearchSpace], preloaded: Path, tmp_path: Path
) -> None:
    space = cpu_space(
        nodes=[{"name": "a"}, {"name": "b"}],
        flags={"tp-size": 2},
        environment={SOCKET_VARIABLE: str(preloaded)},
    )
    plan = planned(space, {"max-running-requests": 2})
    with ProcessLauncher().launch(plan, tmp_path, Phases()) as engine:
        assert engine.effective.flags["tp-size"] == 2
        assert generate(plan) == 4
        assert engine.failure() is None
    assert_nothing_left(plan)
