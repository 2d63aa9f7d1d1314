"""Writes a tiny model of random weights: a configuration and a tokenizer, and no weights.

usage: make_model.py FOLDER
The tokenizer is trained on Python's own library, so that nothing is downloaded; the server fills the weights
with random numbers (--load-format dummy).
"""

import os
import sys
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import (  # type: ignore[import-not-found] # only in the engine's environment
    PreTrainedTokenizerFast,
    Qwen3Config,
)

VOCABULARY = 2048
HIDDEN = 128


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library = sorted(Path(os.__file__).parent.glob("*.py"))[:60]
    tokenizer.train_from_iterator((file.read_text(errors="ignore") for file in library), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106 - a token of the tokenizer
        pad_token="<|endoftext|>",  # noqa: S106 - a token of the tokenizer
    )


def make_config() -> Qwen3Config:
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HIDDEN // 4,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        eos_token_id=2,
        bos_token_id=1,
        pad_token_id=0,
    )
    config.architectures = ["Qwen3ForCausalLM"]
    config.dtype = "bfloat16"
    return config


if __name__ == "__main__":
    make_tokenizer().save_pretrained(sys.argv[1])
    make_config().save_pretrained(sys.argv[1])
