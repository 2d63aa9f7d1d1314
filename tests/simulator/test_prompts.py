from autotune.simulator.prompts import PrefixIndex, pretend_tokens


def test_equal_texts_have_equal_tokens_and_a_longer_text_more_of_them() -> None:
    assert pretend_tokens("hello world", 1000) == pretend_tokens("hello world", 1000)
    assert len(pretend_tokens("a" * 400, 1000)) == 100
    assert all(0 <= token < 1000 for token in pretend_tokens("hello world", 1000))


def test_the_first_prompt_of_a_group_is_its_own_prefix_and_later_ones_share_what_is_equal() -> None:
    index = PrefixIndex()
    base = list(range(100))
    group, shared = index.group_of(base)
    assert shared == 100
    assert index.group_of([*base[:60], *[7] * 40]) == (group, 60)
    assert index.group_of(base) == (group, 100)
    assert index.group_of(base[:50]) == (group, 50)


def test_prompts_that_begin_differently_are_of_different_groups() -> None:
    index = PrefixIndex()
    assert index.group_of([1] * 100)[0] != index.group_of([2] * 100)[0]


def test_the_index_forgets_the_oldest_beginnings() -> None:
    index = PrefixIndex()
    first, _ = index.group_of([0])
    for token in range(1, 4097):
        index.group_of([token])
    assert index.group_of([0])[0] != first
