import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.errors import ConfigError
from autotune.load.arrivals import LoadPoint
from autotune.load.text import TextMaker, text_maker
from autotune.load.workload import Workload, offer, with_prompts
from autotune.request import OfferedLoad
from tests.support.tokenizer import WORDS, write_tokenizer

pytest.importorskip("tokenizers")
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def texts(load: OfferedLoad) -> list[str]:
    return [str(request.text) for request in load.requests]


def test_every_word_that_is_one_token_is_found(tokenizer: Path) -> None:
    maker = text_maker(tokenizer)
    assert set(maker.words) == set(WORDS)
    assert maker.special_tokens == 1


@SHARED
@given(draws=st.lists(st.integers(0, 2**30), min_size=1, max_size=50), tokens=st.integers(2, 400))
def test_a_text_has_exactly_the_tokens_asked_for_and_the_words_drawn_first(
    tokenizer: Path, draws: list[int], tokens: int
) -> None:
    maker = text_maker(tokenizer)
    with_mark, without = (maker.text(draws, tokens, special=special) for special in (True, False))
    assert maker.count(with_mark, special=True) == tokens
    assert maker.count(without, special=False) == tokens
    assert with_mark.split() == without.split()[:-1]
    assert without.split()[0] == maker.words[draws[0] % len(maker.words)]


def test_a_text_is_mended_where_words_join() -> None:
    class Joining:
        """Takes each pair of words for three tokens."""

        def encode(self, text: str, *, add_special_tokens: bool) -> "Joining":
            words = len(text.split())
            self.ids = [0] * (words + words // 2 + add_special_tokens)
            return self

    maker = TextMaker(Path("t.json"), ("ab", "cd"), 1, Joining())
    text = maker.text(range(12), 12, special=False)
    assert maker.count(text, special=False) == 12
    assert maker.count(text, special=True) == 13
    with pytest.raises(ConfigError, match="gives no text of exactly 2 tokens"):
        maker.text(range(2), 2, special=False)


@pytest.mark.parametrize(
    ("endpoint", "special"), [("completions", True), ("generate", True), ("chat", False)]
)
def test_prompts_are_exact_for_their_endpoint_and_the_same_on_every_trial(
    tokenizer: Path, endpoint: str, special: bool
) -> None:
    asked = Workload.model_validate(
        {
            "input_tokens": {"uniform": [5, 60]},
            "output_tokens": 4,
            "tokenizer": tokenizer,
            "endpoint": endpoint,
            "shared_prefix": {"groups": 2, "tokens": 4},
        }
    )
    load = offer(asked, LoadPoint(concurrency=2, requests=20), salt=3)
    made = texts(with_prompts(load, asked, vocabulary_size=1))
    counted = [text_maker(tokenizer).count(text, special=special) for text in made]
    assert counted == [request.input_tokens for request in load.requests]
    assert made == texts(with_prompts(load, asked, vocabulary_size=1))
    assert len({" ".join(text.split()[:3]) for text in made}) == 2
    assert len(set(made)) == 20


def test_texts_of_a_dataset_are_counted(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(
        '{"id": "a", "conversations": [{"from": "human", "value": "ban bart ball"}, '
        '{"from": "gpt", "value": "ben bert"}]}\n'
    )
    for endpoint, tokens in (("completions", 4), ("chat", 3)):
        asked = Workload.model_validate(
            {"dataset": path, "output_tokens": 9, "tokenizer": tokenizer, "endpoint": endpoint}
        )
        request = offer(asked, LoadPoint(concurrency=1, requests=1), salt=0).requests[0]
        assert (request.text, request.input_tokens, request.output_tokens) == ("ban bart ball", tokens, 2)


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "is no tokenizer.json"), ("{}", "is no tokenizer.json")]
)
def test_a_file_that_is_no_tokenizer_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        text_maker(path)


def test_a_tokenizer_that_cannot_make_texts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        text_maker(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="knows 2 whole words"):
        text_maker(write_tokenizer(tmp_path, words=("ban", "bert"), has_mark=False))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"autotune\[text\]"):
        text_maker(tmp_path / "other.json")
