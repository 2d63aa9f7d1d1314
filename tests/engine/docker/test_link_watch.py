from collections.abc import Callable

import pytest

from autotune.engine.docker.faults import NodeError, UnreachableError
from autotune.engine.docker.link_watch import LinkWatch
from autotune.engine.docker.node import DockerNode
from autotune.space import Node


class PlayedNode(DockerNode):
    """A node whose engine answers as a test says; `started` are the loops that were begun."""

    def __init__(self, answer: Callable[[str], int | None]) -> None:
        super().__init__(Node(name="node1"))
        self.answer = answer
        self.started: list[tuple[str, ...]] = []

    def execute(self, container: str, argv: tuple[str, ...]) -> str:
        self.started.append(argv)
        return f"{container}-{len(self.started)}"

    def executed_code(self, program: str) -> int | None:
        return self.answer(program)


def watch_on(node: PlayedNode) -> LinkWatch:
    return LinkWatch(node, "rank1", "10.0.0.10", 20007)


@pytest.mark.parametrize(("code", "is_cut"), [(None, False), (9, True), (1, False), (127, False)])
def test_a_way_is_cut_when_the_loop_says_so_and_not_when_it_cannot_run(
    code: int | None, is_cut: bool
) -> None:
    node = PlayedNode(lambda _: code)
    watch = watch_on(node)
    assert [watch.is_cut(), watch.is_cut()] == [is_cut, is_cut]
    assert [argv[-2:] for argv in node.started] == [("10.0.0.10", "20007")]


def test_a_loop_that_a_restarted_engine_does_not_know_is_begun_again() -> None:
    def answer(program: str) -> int | None:
        if program == "rank1-1":
            raise NodeError("node1", "No such exec instance: rank1-1")
        return None

    node = PlayedNode(answer)
    watch = watch_on(node)
    assert [watch.is_cut() for _ in range(3)] == [False, False, False]
    assert len(node.started) == 2


def test_an_engine_that_does_not_answer_is_told() -> None:
    def answer(_: str) -> int | None:
        raise UnreachableError("node1", "silence", is_refused=False)

    with pytest.raises(UnreachableError):
        watch_on(PlayedNode(answer)).is_cut()
