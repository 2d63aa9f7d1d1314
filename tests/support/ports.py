"""A port that nobody listens on, and that no outgoing connection takes meanwhile: below their range."""

import random
import socket

_RANGE = (12000, 32000)  # Linux' ip_local_port_range begins at 32768


def free_port() -> int:
    """Return a port that can be bound now; chance keeps tests that run at the same time apart."""
    for port in random.SystemRandom().sample(range(*_RANGE), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports in a row are taken")
