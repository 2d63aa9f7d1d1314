from itertools import chain
from pathlib import Path

import pytest

from autotune.engine.dialect import DecodeStep
from autotune.engine.sglang import SGLANG
from autotune.simulator.log_text import decode_batch

LOGS = Path("tests/benchmarks/data/h100_llama_8b_logs")
PREFILL = (
    "[2026-11-28 00:10:30] Prefill batch, #new-seq: 1, #new-token: 1024, #cached-token: 0, "
    "token usage: 0.00, #running-req: 62, #queue-req: 3, #pending-token: 3072, cuda graph: True, "
    "input throughput (token/s): 9.00"
)


def _decode(
    running: int, tokens: int, rate: float = 800.0, *, axes: str = "", graph: str = "cuda graph: True, "
) -> str:
    return (
        f"[2026-11-28 00:10:16{axes}] Decode batch, #running-req: {running}, #token: {tokens}, "
        f"token usage: 0.16, {graph}gen throughput (token/s): {rate:.2f}, #queue-req: 65"
    )


def _steps(*lines: str) -> list[DecodeStep]:
    return list(SGLANG.decode_steps(lines))


def test_two_lines_with_nothing_but_decode_steps_between_them_tell_what_a_step_takes() -> None:
    assert _steps(_decode(8, 1000), _decode(8, 1320)) == [DecodeStep(8, 1160.0, 0.01)]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((_decode(8, 1000), PREFILL, _decode(8, 1320)), id="a prefill pass between them"),
        pytest.param((_decode(8, 1000), _decode(7, 1180)), id="a request that ended"),
        pytest.param(
            (_decode(8, 1000), _decode(8, 1323)), id="one that ended and one that came, told too early"
        ),
        pytest.param((_decode(8, 1000), _decode(8, 1000)), id="nothing that grew"),
        pytest.param((_decode(8, 1000), _decode(8, 1320, 0.0)), id="an engine that stood still"),
        pytest.param((_decode(0, 0), _decode(0, 40)), id="nobody that runs"),
        pytest.param((_decode(8, 1320),), id="no line before it"),
        pytest.param(
            (_decode(8, 1000), "Decode batch, #full token: 5", _decode(8, 1320)), id="an unknown form"
        ),
    ],
)
def test_an_interval_with_anything_else_in_it_tells_nothing(lines: tuple[str, ...]) -> None:
    assert _steps(*lines) == []


def test_lines_of_ranks_that_wait_for_one_another_tell_nothing() -> None:
    for axes, count in ((" TP0", 1), (" DP1 TP0", 0), (" PP0", 0)):
        assert len(_steps(_decode(8, 1000, axes=axes), _decode(8, 1320, axes=axes))) == count


def test_speculation_gives_more_than_a_token_a_step_and_tells_nothing() -> None:
    graph = "accept len: 2.00, accept rate: 0.55, cuda graph: True, "

    assert _steps(_decode(8, 1000, graph=graph), _decode(8, 1640, graph=graph)) == []


def test_a_step_without_a_graph_says_so_and_an_old_engine_says_nothing_of_graphs() -> None:
    eager, old = (
        _steps(_decode(8, 1000, graph=graph), _decode(8, 1320, graph=graph))
        for graph in ("cuda graph: False, ", "")
    )

    assert [each.has_graph for each in chain(eager, old)] == [False, True]
    assert _steps(_decode(8, 1000), _decode(8, 1320, graph="cuda graph: False, ")) == []


def test_prompts_that_share_prefixes_hide_how_much_is_read() -> None:
    shared = PREFILL.replace("#cached-token: 0", "#cached-token: 512")
    plain = [_decode(8, 1000), _decode(8, 1320)]

    assert len(_steps(PREFILL, *plain)) == 1
    assert _steps(PREFILL, shared, *plain) == []


def test_a_line_that_is_still_being_written_is_left_alone() -> None:
    whole = _decode(8, 1320)

    assert _steps(_decode(8, 1000), whole[: whole.index("800") + 2]) == []


def test_the_simulators_lines_are_read_alike() -> None:
    first, second = (
        decode_batch(running=4, used=used, capacity=10_000, queued=0, tokens_per_s=200.0, has_graph=True)
        for used in (400, 560)
    )

    assert _steps(first, "[simulated 00:00:01] INFO", second) == [DecodeStep(4, 480.0, 0.02)]


def test_a_real_log_tells_its_levels() -> None:
    steps = _steps(*(LOGS / "default.log").read_text(encoding="utf-8").splitlines())

    assert {step.running for step in steps} == {1, 16, 50}
    assert all(0.006 < step.seconds < 0.012 for step in steps)
