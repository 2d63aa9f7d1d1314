import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from autotune.uninterrupted import signals_held

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def all_interrupt() -> Iterator[None]:
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPS}
    yield
    for number, disposition in before.items():
        signal.signal(number, disposition)


@signals_held()
def _write(lines: list[str], stop: signal.Signals = signal.SIGINT) -> None:
    signal.raise_signal(stop)
    lines.append("the rest")


@pytest.mark.parametrize("stop", STOPS)
def test_a_signal_interrupts_after_the_block(stop: signal.Signals) -> None:
    lines: list[str] = []

    with pytest.raises(KeyboardInterrupt):
        _write(lines, stop)

    assert lines == ["the rest"]
    assert signal.getsignal(stop) is signal.default_int_handler


def test_a_signal_in_an_inner_block_waits_for_the_outer_one() -> None:
    lines: list[str] = []

    @signals_held()
    def write_more() -> None:
        _write(lines)
        lines.append("and more")

    with pytest.raises(KeyboardInterrupt):
        write_more()

    assert lines == ["the rest", "and more"]


def test_a_failure_of_the_block_is_not_lost_in_an_interrupt() -> None:
    @signals_held()
    def fail() -> None:
        signal.raise_signal(signal.SIGINT)
        raise OSError("the disk is full")

    with pytest.raises(KeyboardInterrupt) as interrupt:
        fail()

    assert isinstance(interrupt.value.__context__, OSError)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    _write([], signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_other_threads_which_are_never_interrupted_just_run_it() -> None:
    @signals_held()
    def answer() -> int:
        return 42

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(answer).result() == 42
