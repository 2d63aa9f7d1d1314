"""Text prompts of an exact number of tokens, for endpoints that take no token ids.

In: a Hugging Face `tokenizer.json`, random numbers and a count. Out: a text that this tokenizer reads as just
so many tokens. Reads the disk; the only importer of `tokenizers` (optional: `pip install autotune[text]`).
Such a text is made of words that are one token each, wherever they stand; it is counted all the same, and
mended until the count is right. The count is the server's own for completions, where the tokenizer's special
tokens (a beginning-of-text mark) belong to it. A chat template's tokens come on top: what they are only the
server knows, and its `prompt_tokens` less this count is what they cost.
"""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from autotune.errors import ConfigError, Problem

_MARKS = "\u0120\u2581"  # how byte-level BPE and SentencePiece write the space before a word
_WORD = re.compile(rf"[{_MARKS}]?([A-Za-z]{{2,}})")
_MOST_WORDS = 8192
_FEWEST_WORDS = 32
_MENDED_TIMES = 16


@dataclass(frozen=True, eq=False)
class TextMaker:
    """Makes texts of exact length. A word is one token; the tokenizer adds `special_tokens`."""

    path: Path
    words: tuple[str, ...]
    special_tokens: int
    _tokenizer: Any

    def count(self, text: str, *, special: bool) -> int:
        """Return how many tokens a text has, with or without the special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def text(self, draws: Sequence[int], tokens: int, *, special: bool) -> str:
        """Return a text of exactly `tokens` tokens that begins with the words drawn, as far as they reach.

        Equal beginnings of `draws` give texts with equal beginnings. `special`: the special tokens belong to
        the count.

        Raises:
            ConfigError: the tokenizer gives no text of this length.
        """
        words = [self.words[draw % len(self.words)] for draw in draws]
        wanted = max(tokens - (self.special_tokens if special else 0), 1)
        size = wanted
        for _ in range(_MENDED_TIMES):
            text = " ".join(words[number % len(words)] for number in range(size))
            missing = tokens - self.count(text, special=special)
            if missing == 0:
                return text
            size = max(size + missing, 1)
        message = f"gives no text of exactly {tokens} tokens"
        raise ConfigError(
            [Problem(message, self.path, remedy="ask for another length, or use endpoint: generate")]
        )


@lru_cache(maxsize=4)
def text_maker(path: Path) -> TextMaker:
    """Return the maker of texts for a tokenizer.

    Raises:
        ConfigError: `tokenizers` is not installed, the file is no tokenizer, or it knows too few whole words.
    """
    tokenizer = _tokenizer(path)
    words = _whole_words(tokenizer)
    if len(words) < _FEWEST_WORDS:
        message = f"knows {len(words)} whole words, {_FEWEST_WORDS} are needed to make texts of exact length"
        raise ConfigError([Problem(message, path, remedy="use a dataset, or endpoint: generate")])
    return TextMaker(path, words, tokenizer.num_special_tokens_to_add(is_pair=False), tokenizer)


def _tokenizer(path: Path) -> Any:
    """Load a tokenizer; the library tells a bad file by a bare Exception only, so a look is taken before."""
    try:
        library = importlib.import_module("tokenizers")
    except ModuleNotFoundError:
        raise ConfigError(
            [Problem("needs the library tokenizers", path, remedy="pip install 'autotune[text]'")]
        ) from None
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give the tokenizer.json of the model's repository"
        raise ConfigError([Problem(f"the tokenizer cannot be read: {error}", path, remedy=remedy)]) from error
    if not content.lstrip().startswith("{") or '"model"' not in content:
        raise ConfigError([Problem("is no tokenizer.json", path)])
    tokenizer = library.Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _whole_words(tokenizer: Any) -> tuple[str, ...]:
    """Return words that are one token at a text's beginning as well as after another word."""
    known = {found[1] for token in tokenizer.get_vocab() if (found := _WORD.fullmatch(token))}
    ordered = sorted(known)
    candidates = ordered[:: max(len(ordered) // _MOST_WORDS, 1)][: 2 * _MOST_WORDS]
    pairs = tokenizer.encode_batch([f"{word} {word}" for word in candidates], add_special_tokens=False)
    return tuple(word for word, pair in zip(candidates, pairs, strict=True) if len(pair.ids) == 2)  # noqa: PLR2004 - a word twice
