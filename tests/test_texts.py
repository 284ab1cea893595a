from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.texts import cut, tokens


def test_tokens_are_about_four_characters_or_one_that_is_not_ascii() -> None:
    assert tokens("") == 0
    assert tokens("word by word, internationally") == 1 + 1 + 1 + 1 + 4
    assert tokens("東京駅") == 3


def test_a_cut_ends_with_a_sentence_where_it_can() -> None:
    text = "First find the unit. Then convert it. Then round."
    assert cut(text, 100) == text
    assert cut(text, 10) == "First find the unit. Then convert it."[: len("First find the unit.")]
    assert cut("word " * 50, 3) == "word word word"
    assert cut("x" * 100, 5) == "x" * 20


@given(st.text(max_size=200), st.integers(0, 40))
def test_a_cut_is_a_beginning_within_the_limit(text: str, limit: int) -> None:
    kept = cut(text, limit)
    assert text.startswith(kept) and tokens(kept) <= limit
