"""Prompts as the HTTP server sees them: pretend tokens for texts, and which prompts share a beginning.

In: token ids or a text. Out: ids, and the prefix group and length that the scheduler's cache is keyed by.
The index knows, for each beginning of 32 tokens, the first prompt that had it; later ones are compared with
that one only, which finds shared prefixes and repeated prompts but not overlaps between later prompts.
"""

import zlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CHARACTERS_PER_TOKEN = 4
_BEGINNING = 32
_REMEMBERED = 4096


def pretend_tokens(text: str, vocabulary_size: int) -> list[int]:
    """Return one id for every four characters: equal texts have equal ids."""
    pieces = (text[at : at + _CHARACTERS_PER_TOKEN] for at in range(0, len(text), _CHARACTERS_PER_TOKEN))
    return [zlib.crc32(piece.encode()) % vocabulary_size for piece in pieces]


class PrefixIndex:
    """Remembers the latest beginnings."""

    def __init__(self) -> None:
        self._first: OrderedDict[tuple[int, ...], tuple[int, NDArray[np.int64]]] = OrderedDict()
        self._groups = 0

    def group_of(self, token_ids: Sequence[int]) -> tuple[int, int]:
        """Return the prompt's group and how many of its tokens it shares with that group's first prompt."""
        ids = np.asarray(token_ids, dtype=np.int64)
        beginning = tuple(ids[:_BEGINNING].tolist())
        known = self._first.get(beginning)
        if known is None:
            self._groups += 1
            known = self._first[beginning] = (self._groups, ids)
            if len(self._first) > _REMEMBERED:
                self._first.popitem(last=False)
        group, first = known
        shortest = min(len(ids), len(first))
        differs = np.flatnonzero(ids[:shortest] != first[:shortest])
        return group, int(differs[0]) if len(differs) else shortest
