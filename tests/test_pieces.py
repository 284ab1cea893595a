from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas import pieces as p
from tests.propose.briefs import texts


@settings(max_examples=300, deadline=None)
@given(st.one_of(texts, st.text(max_size=200)))
def test_split_and_join_keep_the_text(text: str) -> None:
    assert p.join(p.split(text)).strip() == text.strip()


@settings(max_examples=200, deadline=None)
@given(texts, st.data())
def test_drop_loses_nothing_else(text: str, data: st.DataObject) -> None:
    items = p.split(text)
    if items:
        at = data.draw(st.integers(0, len(items) - 1))
        kept = [i.text for i in p.drop(items, [at])]
        assert kept == [i.text for n, i in enumerate(items) if n != at]


def test_sentences_lines_bullets_and_fences_are_items() -> None:
    text = "First here. Second one!\n\n- bullet\n1. numbered. Not split? Yes.\n```py\na. B\n\nc\n```\ne.g. 3.5 is fine"
    assert [i.text for i in p.split(text)] == [
        "First here.",
        "Second one!",
        "- bullet",
        "1. numbered.",
        "Not split?",
        "Yes.",
        "```py\na. B\n\nc\n```",
        "e.g. 3.5 is fine",
    ]


def test_an_item_added_to_a_list_gets_its_bullet() -> None:
    items = p.split("- one\n- two")
    assert p.join(p.insert(items, 1, "new")) == "- one\n- new\n- two"
    assert p.join(p.insert(p.split("Prose here."), 1, "New.")) == "Prose here.\nNew."


def test_an_item_with_a_required_placeholder_is_locked() -> None:
    items = p.split("Ask {question} now. Be kind.")
    assert p.free(items, ("question",)) == [1]
