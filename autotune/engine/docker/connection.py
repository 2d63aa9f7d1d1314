"""Clients of one node's Docker engine, over a local socket, TLS or an ssh tunnel, that never wait for ever.

In: a node. Out: docker-py clients whose calls end within a deadline, and errors in our own words. Talks to
the Docker engine. Invariants: proxies and CA variables of the environment have no say; every failure of
docker-py, requests, urllib3 or a socket leaves as a `NodeError`, an `UnreachableError` if the way there is
closed.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from docker.tls import TLSConfig
from requests.adapters import HTTPAdapter

from autotune.engine.docker.faults import GoneError, NodeError, UnreachableError, kind_of
from autotune.engine.docker.tunnel import Tunnel
from autotune.engine.docker.unix_socket import SocketAdapter
from autotune.space import Node

QUICK_S = 3
"""For questions that an engine answers from memory."""
SLOW_S = 90
"""For what touches disks, cgroups or drivers; docker-py adds the grace period of a stop by itself."""

_FIRST_API = "1.41"  # Docker 20.10; only for asking which one the engine speaks
_REFUSALS = (
    "refused",
    "FileNotFoundError",
    "RemoteDisconnected",
    "reset by peer",
    "BrokenPipe",
    "closed conn",
)
_NO_SOCKET = ("refused", "FileNotFoundError")
_WANTS_TLS = "HTTP request to an HTTPS server"
# What clients put several exceptions around.
_REASONS = (
    ("FileNotFoundError", "there is no such socket; does Docker run there?"),
    ("PermissionError", "this user may not open the socket; the group docker may"),
    ("Permission denied", "this user may not open the socket; the group docker may"),
    ("refused", "nobody listens there; does Docker run?"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by ca.pem, or is for another name"),
    ("certificate required", "it wants a client certificate; give 'certificates'"),
    ("bad certificate", "it does not trust cert.pem"),
    (_WANTS_TLS, "it speaks TLS; give 'certificates'"),
    ("Name or service not known", "there is no host of that name"),
    ("No route to host", "there is no route to the host"),
    ("timed out", "no answer in time"),
)
_KEEP_ALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 8000),
)


class _KeepAliveAdapter(HTTPAdapter):
    """Lets a stream over a dead link end; docker-py takes the time-out off its streams."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, socket_options=_KEEP_ALIVE, **options)


class _ImpatientClient(APIClient):
    """Gives up a stream, too, if nothing comes for so long: docker-py takes the time-out off a pull."""

    def send(self, request: Any, **options: Any) -> Any:
        return super().send(request, **{**options, "timeout": options.get("timeout") or self.timeout})


class Connection:
    """The way to one node; open within its context."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stack = ExitStack()
        self._tunnel: Tunnel | None = None
        self._api_version = _FIRST_API
        self._address = node.docker

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._node.docker.startswith("ssh://"):
                self._tunnel = stack.enter_context(Tunnel(self._node.name, self._node.docker))
                self._address = self._tunnel.address
            with self.client(QUICK_S) as asking, self.errors():
                self._api_version = asking.version(api_version=False)["ApiVersion"]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def client(self, deadline_s: int, *, is_impatient: bool = False) -> Iterator[APIClient]:
        """Open a client; a call waits so long for an answer at most, if impatient also for a stream."""
        with self.errors():
            client = (_ImpatientClient if is_impatient else APIClient)(
                self._address, version=self._api_version, timeout=deadline_s, tls=self._tls() or False
            )
        client.trust_env = False
        if self._address.startswith("unix://"):
            path = self._address.removeprefix("unix://")
            client.mount("http+docker://", SocketAdapter(f"http+unix://{path}", deadline_s))
        else:
            client.mount("http://", _KeepAliveAdapter())
            client.mount("https://", _KeepAliveAdapter())
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Put whatever a call raises into our own words.

        Raises:
            GoneError: the container is not there.
            UnreachableError: there was no answer.
            NodeError: the engine refused.
        """
        name = self._node.name
        try:
            yield
        except NotFound as error:
            if "No such container" in str(error):
                raise GoneError(name, str(error.explanation)) from error
            raise NodeError(name, str(error.explanation), kind_of(str(error))) from error
        except APIError as error:
            if _WANTS_TLS in str(error):
                raise self._unreachable(error) from error
            raise NodeError(name, str(error.explanation), kind_of(str(error))) from error
        except (
            DockerException,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UnreachableError:
        text = repr(error)
        is_refused = any(word in text for word in _REFUSALS)
        message = f"the Docker engine at {self._node.docker} does not answer: {_why(error)}"
        if self._tunnel is not None and any(word in text for word in _NO_SOCKET):
            words = self._tunnel.last_words  # no local socket: it is ssh that is gone
            is_refused = "refused" in words
            message = f"no ssh connection to {self._node.docker}: {words}"
        return UnreachableError(self._node.name, message, is_refused=is_refused)

    def _tls(self) -> TLSConfig | None:
        if self._node.certificates is None:
            return None
        folder = Path(self._node.certificates).expanduser()
        return TLSConfig(
            client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
            ca_cert=str(folder / "ca.pem"),
            verify=True,
        )


def _why(error: Exception) -> str:
    """Return the reason in a few words; the error's own where it is none of the known ones."""
    text = f"{error!r} {error}"
    return next((reason for words, reason in _REASONS if words in text), str(error))
