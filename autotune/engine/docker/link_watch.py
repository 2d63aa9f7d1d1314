"""Watches the way from a rank's node to rank 0's while both serve: ranks that cannot meet hang for minutes.

In: a rank's container. Out: whether its node has lost rank 0's. Talks to the Docker engine, which runs a
small loop inside the container, so that it ends with the container whatever happens. Invariant: only a way
that was open once is ever called cut; a refused connection is an answer.
"""

from autotune.engine.docker.faults import NodeError, UnreachableError
from autotune.engine.docker.node import DockerNode

_CUT = 9
# Three failures in a row, so that one lost packet is none: within 10 s.
_LOOP = f"""
import socket, sys, time
failed, was_open = 0, False
while failed < 3:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
        failed, was_open = 0, True
    except ConnectionRefusedError:
        failed, was_open = 0, True
    except OSError:
        failed += was_open
    time.sleep(1)
sys.exit({_CUT})
"""


class LinkWatch:
    """The way from one container to an address."""

    def __init__(self, node: DockerNode, container: str, host: str, port: int) -> None:
        self._node = node
        self._container = container
        self._argv = ("python3", "-IS", "-c", _LOOP, host, str(port))
        self._loop: str | None = None
        self.peer = f"{host}:{port}"

    def is_cut(self) -> bool:
        """Return whether the way was open and is not any more; starts the loop where none runs.

        Raises:
            UnreachableError: the Docker engine does not answer.
        """
        try:
            if self._loop is None:
                self._loop = self._node.execute(self._container, self._argv)
            return self._node.executed_code(self._loop) == _CUT
        except UnreachableError:
            raise
        except NodeError:  # an engine that was restarted does not know the loop any more
            self._loop = None
            return False
