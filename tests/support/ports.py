"""Ports that nobody listens on and no outgoing connection takes meanwhile: below the range of those."""

import random
import socket

_RANGE = (12000, 32000)  # Linux' ip_local_port_range begins at 32768


def free_port(count: int = 1) -> int:
    """Return the first of `count` ports in a row that can be bound now.

    Chance keeps tests that run at the same time apart.
    """
    for port in random.SystemRandom().sample(range(*_RANGE), 100):
        if all(map(_can_be_bound, range(port, port + count))):
            return port
    raise AssertionError("a hundred ports in a row are taken")


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
