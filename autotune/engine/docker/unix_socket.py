"""docker-py's way to a local socket, without leaving sockets open whose connect failed.

In: the path of a socket. Out: an adapter for docker-py's session. Source of what is replaced: docker-py 7.2,
transport/unixconn.py.
"""

import socket
from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool


class _Connection(UnixHTTPConnection):
    def connect(self) -> None:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(self.timeout)
            opened.connect(self.unix_socket)
        except OSError:
            opened.close()
            raise
        self.sock = opened


class _Pool(UnixHTTPConnectionPool):
    def _new_conn(self) -> Any:
        return _Connection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]  # as in docker-py


class SocketAdapter(UnixHTTPAdapter):
    """Connects to `unix://PATH`."""

    def get_connection(self, url: Any, proxies: Any = None) -> _Pool:  # noqa: ARG002 - a socket has no proxy
        """Return the pool of this socket."""
        with self.pools.lock:
            pool = self.pools.get(url)
            if pool is None:
                pool = _Pool(url, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[url] = pool
        return pool
