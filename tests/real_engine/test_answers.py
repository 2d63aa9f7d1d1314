"""Whether launches of the real SGLang answer alike: the same flags do, another precision does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.engine.launcher import HttpAddress
from autotune.engine.plan import plan_launch
from autotune.engine.process import ProcessLauncher
from autotune.load.answers import AnswerSheet, AnswerUnit, ask
from autotune.load.workload import Workload
from autotune.search.alike import AnswersVerdict, compare
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.engine.launcher_contract import Phases
from tests.real_engine.cpu import SOCKET_VARIABLE
from tests.support.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

_WORKLOAD = Workload.model_validate({"input_tokens": 192, "output_tokens": 24, "seed": 7})
_LAUNCHES = 2


@pytest.fixture
def launches_of(
    cpu_space: Callable[..., SearchSpace], preloaded: Path, tmp_path: Path
) -> Callable[[dict[str, FlagValue]], list[AnswerSheet]]:
    def launches(flags: dict[str, FlagValue]) -> list[AnswerSheet]:
        tune = {"schedule-policy": {"choices": ["fcfs", "lpm"]}}
        space = cpu_space(environment={SOCKET_VARIABLE: str(preloaded)}, flags=flags, tune=tune)
        return [_answers(space, tmp_path) for _ in range(_LAUNCHES)]

    return launches


def _answers(space: SearchSpace, folder: Path) -> AnswerSheet:
    port, rendezvous_port = free_port(), free_port()
    plan = plan_launch(
        space, Candidate.of({}), study="answers", trial="0001", port=port, rendezvous_port=rendezvous_port
    )
    with ProcessLauncher().launch(plan, folder, Phases()) as engine:
        assert isinstance(engine.address, HttpAddress)
        return ask(
            engine.address.base_url,
            _WORKLOAD,
            model=space.model,
            vocabulary_size=engine.address.vocabulary_size,
            flush=engine.flush_cache,
        )


def test_the_same_precision_answers_alike_and_another_does_not(
    launches_of: Callable[[dict[str, FlagValue]], list[AnswerSheet]],
) -> None:
    baseline = launches_of({"dtype": "float32"})

    other_chunks = compare(
        launches_of({"dtype": "float32", "chunked-prefill-size": 64, "max-running-requests": 4}),
        baseline,
        error_rate=0.05,
    )
    other_precision = compare(launches_of({"dtype": "bfloat16"}), baseline, error_rate=0.05)

    print(other_chunks, other_precision, sep="\n")
    assert other_chunks.verdict is AnswersVerdict.ALIKE
    assert other_chunks.unit is AnswerUnit.IDS
    assert other_precision.verdict is AnswersVerdict.DIFFERENT
    assert other_precision.cross is not None
    assert other_precision.own is not None
    assert (other_precision.cross.drift_nats or 0) > (other_precision.own.drift_nats or 0)
