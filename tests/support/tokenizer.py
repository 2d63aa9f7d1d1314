"""A small tokenizer of whole words, made and not downloaded, with a mark at every beginning."""

import json
from pathlib import Path
from typing import Any

WORDS = tuple(
    first + middle + last
    for first in "bdfgklmnprst"
    for middle in ("a", "e", "io")
    for last in ("n", "rt", "ll")
)


def write_tokenizer(folder: Path, *, words: tuple[str, ...] = WORDS, has_mark: bool = True) -> Path:
    """A tokenizer.json whose vocabulary is whole words; `<s>` is put before every text."""
    vocabulary = {"<s>": 0, "[UNK]": 1} | {word: number for number, word in enumerate(words, start=2)}
    mark = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": mark if has_mark else None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path
