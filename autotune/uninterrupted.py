"""A block that Ctrl-C, SIGTERM and a hang-up do not interrupt; they take effect after it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep signals from interrupting a clean-up; they are raised again at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted by them
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, disposition in before.items():
            signal.signal(number, disposition or signal.SIG_DFL)
        for late in dict.fromkeys(arrived):
            signal.raise_signal(late)
