import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound

from autotune.engine.docker.connection import Connection
from autotune.engine.docker.faults import GoneError, NodeError, UnreachableError
from autotune.engine.docker.node import DockerNode
from autotune.failure import FailureKind
from autotune.space import Node
from tests.support.played_docker import docker_behind


def raised_for(error: Exception) -> NodeError:
    with pytest.raises(NodeError) as caught, Connection(Node(name="node0")).errors():
        raise error
    assert caught.value.__cause__ is error
    assert str(caught.value).startswith("node0: ")
    return caught.value


def test_a_container_that_is_gone_is_told_from_anything_else_that_is_not_found() -> None:
    gone = raised_for(NotFound("404", explanation="No such container: 0a1b"))
    image = raised_for(NotFound("404", explanation="No such image: sglang:x"))

    assert isinstance(gone, GoneError)
    assert not isinstance(image, GoneError)
    assert image.kind is FailureKind.IMAGE_MISSING


def test_what_the_engine_refuses_is_in_its_own_words_with_a_kind_if_it_is_known() -> None:
    refused = raised_for(APIError("409", explanation="could not select device driver"))
    unknown = raised_for(APIError("500", explanation="no idea"))

    assert (str(refused), refused.kind) == ("node0: could not select device driver", FailureKind.DRIVER_ERROR)
    assert (str(unknown), unknown.kind) == ("node0: no idea", None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectionError("[Errno 111] Connection refused"), FailureKind.DAEMON_UNREACHABLE),
        (FileNotFoundError(2, "No such file or directory"), FailureKind.DAEMON_UNREACHABLE),
        (urllib3.exceptions.ProtocolError("RemoteDisconnected"), FailureKind.DAEMON_UNREACHABLE),
        (BrokenPipeError(32, "gone"), FailureKind.DAEMON_UNREACHABLE),
        (requests.ReadTimeout("read timed out"), FailureKind.NODE_LOST),
        (DockerException("No route to host"), FailureKind.NODE_LOST),
    ],
    ids=repr,
)
def test_no_answer_is_a_refusal_or_a_lost_node(error: Exception, kind: FailureKind) -> None:
    found = raised_for(error)

    assert isinstance(found, UnreachableError)
    assert found.kind is kind
    assert "unix:///var/run/docker.sock does not answer" in str(found)


def test_an_error_of_our_own_passes_unchanged() -> None:
    with pytest.raises(ValueError, match="ours"), Connection(Node(name="node0")).errors():
        raise ValueError("ours")


@pytest.mark.parametrize("is_socket", [True, False])
def test_the_engines_own_api_version_is_spoken_over_a_socket_and_a_port(is_socket: bool) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,  # pytest's own are too long for a socket
        docker_behind(Path(folder, "docker.sock") if is_socket else None) as address,
        Connection(Node(name="node0", docker=address)) as connection,
        connection.client(2) as client,
    ):
        assert client.api_version == "1.43"
        with pytest.raises(GoneError, match="No such container"), connection.errors():
            client.inspect_container("0a")


def test_certificates_that_are_not_there_are_told(tmp_path: Path) -> None:
    node = Node(name="node0", docker="tcp://127.0.0.1:1", certificates=str(tmp_path))
    with pytest.raises(UnreachableError, match=r"node0: .*cert"):
        Connection(node).__enter__()


def test_a_socket_that_is_not_there_is_told_when_it_is_opened() -> None:
    with pytest.raises(UnreachableError, match=r"unix:///no/such/docker\.sock does not answer") as caught:
        Connection(Node(name="node0", docker="unix:///no/such/docker.sock")).__enter__()
    assert caught.value.is_refused
    assert str(caught.value).endswith("does not answer: there is no such socket; does Docker run there?")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            requests.ConnectionError("Connection aborted.", PermissionError(13, "Permission denied")),
            "group docker",
        ),
        (requests.ReadTimeout("HTTPConnectionPool: Read timed out. (read timeout=3)"), "no answer in time"),
        (
            requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            "not signed by ca.pem",
        ),
        (OSError("what nobody knows"), "does not answer: what nobody knows"),
    ],
    ids=repr,
)
def test_why_there_is_no_answer_is_told_in_a_few_words(error: Exception, words: str) -> None:
    text = str(raised_for(error))
    assert words in text
    assert "Error(" not in text


@pytest.mark.parametrize("is_behind_a_socket", [True, False], ids=["socket", "port"])
def test_a_pull_that_stands_still_ends(is_behind_a_socket: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.engine.docker.node._PULL_S", 1)
    steps: list[Mapping[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        docker_behind(Path(folder) / "d.sock" if is_behind_a_socket else None) as address,
        DockerNode(Node(name="node0", docker=address)) as node,
        pytest.raises(
            NodeError, match=r"no image tiny, and it cannot be pulled: .*no answer in time"
        ) as caught,
    ):
        node._pull("tiny", steps.append)
    assert steps == [{"status": "Pulling from tiny"}]
    assert caught.value.kind is FailureKind.IMAGE_MISSING
