import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from autotune.load.transport.readers import ReadInRounds

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    with ExitStack() as open_ones:
        found = [socket.socketpair() for _ in range(3)]
        for ours, theirs in found:
            ours.setblocking(False)
            open_ones.enter_context(ours)
            open_ones.enter_context(theirs)
        yield found


def read_one(sock: socket.socket, read: list[bytes]) -> None:
    read.append(sock.recv(1))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for is a plain list
        await asyncio.sleep(0.001)


def in_rounds(work: Callable[[ReadInRounds], Awaitable[None]]) -> None:
    async def main() -> None:
        readers = ReadInRounds()
        try:
            await asyncio.wait_for(work(readers), 20)
        finally:
            readers.close()
            readers.close()

    asyncio.run(main())


def test_everything_that_comes_is_read_in_order_however_fast_it_comes(pairs: list[Pair]) -> None:
    async def work(readers: ReadInRounds) -> None:
        read: list[bytes] = []
        for ours, _ in pairs:
            readers.add_reader(ours, partial(read_one, ours, read))
        for number in range(60):
            pairs[number % 3][1].send(b"%c" % number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(read) == 60)
        assert [sorted(each for each in read if each[0] % 3 == place) for place in range(3)] == [
            [each for each in read if each[0] % 3 == place] for place in range(3)
        ]

    in_rounds(work)


def test_a_socket_that_another_ones_reader_took_out_is_not_called(pairs: list[Pair]) -> None:
    async def work(readers: ReadInRounds) -> None:
        called: list[socket.socket] = []
        first, second = pairs[0][0], pairs[1][0]

        def take_out(mine: socket.socket, other: socket.socket) -> None:
            called.append(mine)
            readers.remove_reader(other)
            readers.remove_reader(mine)

        readers.add_reader(first, lambda: take_out(first, second))
        readers.add_reader(second, lambda: take_out(second, first))
        pairs[0][1].send(b"x")
        pairs[1][1].send(b"x")
        await until(lambda: bool(called))
        await asyncio.sleep(0.01)
        assert len(called) == 1

    in_rounds(work)


def test_an_error_of_one_reader_is_told_to_the_loop_and_stops_no_other(pairs: list[Pair]) -> None:
    async def work(readers: ReadInRounds) -> None:
        told: list[str] = []
        read: list[bytes] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about["message"]))

        def fail() -> None:
            pairs[0][0].recv(1)
            raise ValueError

        readers.add_reader(pairs[0][0], fail)
        readers.add_reader(pairs[1][0], lambda: read.append(pairs[1][0].recv(1)))
        for _ in range(5):
            pairs[0][1].send(b"x")
            pairs[1][1].send(b"y")
        await until(lambda: len(read) == len(told) == 5)

    in_rounds(work)
