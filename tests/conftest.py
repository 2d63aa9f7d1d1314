"""What holds for every test."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Machines that run tests are noisy: how long an example takes says nothing about the code.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")

# A shell's background job ignores Ctrl-C, and so would every program that the tests start and stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests: all cores for the whole default suite, else none.

    A tier has one pair of Docker hosts or one engine, and one file is faster without starting processes.
    """
    asked = config.invocation_params.args
    is_narrowed = config.getoption("file_or_dir") or any(word.startswith(("-m", "-k")) for word in asked)
    return 0 if is_narrowed else min(os.cpu_count() or 1, 4)
