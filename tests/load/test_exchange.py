import errno

import httpx
import pytest

from autotune.errors import LoadError
from autotune.load.exchange import refuse_own_limits


def connect_error(*numbers: int) -> httpx.ConnectError:
    """Fail as anyio does on a name with several addresses: one error for each of them."""
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = ExceptionGroup("attempts", [OSError(number, "") for number in numbers])
    return error


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_a_limit_of_this_machine_is_found_among_the_causes(number: int) -> None:
    with pytest.raises(LoadError, match="a resource of its own"):
        refuse_own_limits(connect_error(errno.ECONNREFUSED, number))


def test_a_refused_connection_is_the_servers() -> None:
    refuse_own_limits(connect_error(errno.ECONNREFUSED, errno.EHOSTUNREACH))
