"""The one exception of a request that goes wrong while it is under way; it becomes a `RequestFailure`."""

from autotune.request import RequestFailureKind

SHOWN_CHARACTERS = 200


class StreamError(Exception):
    """What the server sent ends this request without a latency.

    `is_of_transport`: the connection broke or the time was over, which says nothing about what came before.
    """

    def __init__(self, kind: RequestFailureKind, message: str, *, is_of_transport: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.is_of_transport = is_of_transport


def shown(data: bytes) -> str:
    """Return the beginning of what a server sent, as one line of text for a message."""
    text = data[: 4 * SHOWN_CHARACTERS].decode("utf-8", errors="replace")
    return " ".join(text.split())[:SHOWN_CHARACTERS]
