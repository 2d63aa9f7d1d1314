from autotune.load.silence import Pulse, silent_s

NOW_NS = 100_000_000_000


def at(seconds: int) -> int:
    return seconds * 1_000_000_000


def test_nobody_who_waits_is_no_silence() -> None:
    assert silent_s([], NOW_NS) == 0
    assert silent_s([Pulse(at(1), None), Pulse(None, None)], NOW_NS) == 0


def test_silence_begins_with_the_waiting_or_with_the_last_byte() -> None:
    assert silent_s([Pulse(None, at(40))], NOW_NS) == 60
    assert silent_s([Pulse(at(30), at(40))], NOW_NS) == 60
    assert silent_s([Pulse(at(90), at(40))], NOW_NS) == 10


def test_a_byte_to_any_process_ends_the_silence_of_all() -> None:
    assert silent_s([Pulse(at(5), at(1)), Pulse(at(95), at(1))], NOW_NS) == 5
    assert silent_s([Pulse(at(5), at(1)), Pulse(at(95), None)], NOW_NS) == 5


def test_a_process_that_just_began_to_wait_hides_no_silence_of_another() -> None:
    assert silent_s([Pulse(at(5), at(1)), Pulse(None, at(99))], NOW_NS) == 95
