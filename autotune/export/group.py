"""The one command of all ranks, for schedulers that choose the hosts and tell a rank who it is. Pure.

In: a `Selection`. Out: the words of the command, with a `Slot` where each rank has its own number and where
rank 0's address goes. Invariant: the slots are found by comparing launch plans, never by searching for text,
so a model may be called like a flag.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import TypeAlias

from autotune.export.selection import Selection


class Slot(Enum):
    """What a scheduler fills in."""

    RANK = auto()
    MEETING_POINT = auto()


Word: TypeAlias = str | Slot


def group_words(selection: Selection) -> tuple[Word, ...]:
    """Return the command of every rank; a single node has no slots in it."""
    here, elsewhere = selection.plan_led_from("a"), selection.plan_led_from("b")
    columns = zip(here.ranks[0].argv, elsewhere.ranks[0].argv, here.ranks[-1].argv, strict=True)
    return tuple(_word(first, moved, last) for first, moved, last in columns)


def filled(words: tuple[Word, ...], literal: Callable[[str], str], *, rank: str, address: str) -> list[str]:
    """Return the words in a scheduler's language: `literal` quotes, the slots are taken as they are."""
    said = {Slot.RANK: rank, Slot.MEETING_POINT: address}
    return [literal(word) if isinstance(word, str) else said[word] for word in words]


def _word(first: str, moved: str, last: str) -> Word:
    if first != moved:
        return Slot.MEETING_POINT
    return first if first == last else Slot.RANK
