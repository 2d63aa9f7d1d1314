import asyncio

import pytest

from autotune.simulator.rendezvous import Meeting, RendezvousError, meet
from tests.support.ports import free_port


def test_ranks_meet_in_any_order_and_the_others_learn_of_the_shutdown() -> None:
    address = f"127.0.0.1:{free_port()}"

    async def main() -> list[bool]:
        dialling = [asyncio.create_task(meet(address, rank=rank, ranks=3, timeout_s=5)) for rank in (1, 2)]
        await asyncio.sleep(0.1)
        first = await meet(address, rank=0, ranks=3, timeout_s=5)
        others = [await each for each in dialling]
        await first.close(say_shutdown=True)
        told = [await other.first_loss() for other in others]
        for other in others:
            await other.close()
        return told

    assert asyncio.run(main()) == [True, True]


def test_a_rank_that_goes_without_a_word_is_a_loss() -> None:
    address = f"127.0.0.1:{free_port()}"

    async def main() -> bool:
        dialling = asyncio.create_task(meet(address, rank=1, ranks=2, timeout_s=5))
        first = await meet(address, rank=0, ranks=2, timeout_s=5)
        await (await dialling).close()
        was_told = await first.first_loss()
        await first.close()
        return was_told

    assert not asyncio.run(main())


def test_an_engine_of_one_rank_never_loses_one() -> None:
    async def main() -> None:
        await asyncio.wait_for(Meeting().first_loss(), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_rank_0_gives_up_with_torchs_words_and_the_rank_that_came_does_too() -> None:
    address = f"127.0.0.1:{free_port()}"

    async def main() -> list[object]:
        ranks = (meet(address, rank=rank, ranks=3, timeout_s=0.5) for rank in (0, 1))
        return list(await asyncio.gather(*ranks, return_exceptions=True))

    waiting, dialling = asyncio.run(main())
    assert isinstance(waiting, RendezvousError)
    assert str(waiting).endswith("waiting for clients. 2/3 clients joined.")
    assert isinstance(dialling, RendezvousError)


def test_a_rank_that_finds_nobody_gives_up_with_torchs_words() -> None:
    port = free_port()
    with pytest.raises(RendezvousError, match=rf"timed out after 200ms .* \(127\.0\.0\.1, {port}\)"):
        asyncio.run(meet(f"127.0.0.1:{port}", rank=1, ranks=2, timeout_s=0.2))


def test_a_rendezvous_port_in_use_has_sglangs_words() -> None:
    async def main() -> None:
        port = free_port()
        stranger = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
        async with stranger:
            await meet(f"127.0.0.1:{port}", rank=0, ranks=2, timeout_s=1)

    with pytest.raises(
        RendezvousError, match=r"ValueError: dist_init_port at \d+ is not available in 30 seconds"
    ):
        asyncio.run(main())
