"""The word diff loses nothing and says no more than it must."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.report.diff import brief, edits, pieces

TEXT = st.text(st.sampled_from("ab \n\t{}é🎓"), max_size=60)


@settings(deadline=None, max_examples=300)
@given(TEXT, TEXT)
def test_both_texts_can_be_read_back(old: str, new: str) -> None:
    found = pieces(old, new)
    assert "".join(t for op, t in found if op != "+") == old
    assert "".join(t for op, t in found if op != "-") == new
    assert all(t for _, t in found)
    assert all(a != b for (a, _), (b, _) in itertools.pairwise(found))


@settings(deadline=None, max_examples=300)
@given(TEXT, TEXT)
def test_a_recipe_makes_the_new_text_of_the_old(old: str, new: str) -> None:
    made, at = "", 0
    for step in edits(old, new):
        if isinstance(step, str):
            made += step
        else:
            made += old[at : at + step] if step > 0 else ""
            at += abs(step)
    assert (made, at) == (new, len(old))


def test_a_changed_word_is_a_word() -> None:
    found = pieces("Reply with the number.\nBe brief.\n", "Reply with the order number.\nBe brief.\n")
    assert [tuple(p) for p in found] == [("=", "Reply with the "), ("+", "order "), ("=", "number.\nBe brief.\n")]


def test_what_stayed_is_cut_and_what_changed_is_not() -> None:
    old = "\n".join(f"Line {n} of a long prompt." for n in range(60))
    found = brief(pieces(old, old.replace("Line 30", "Row 30") + "\nOne more."))
    shown = "".join(p.text for p in found)
    assert len(shown) < 500 and shown.startswith("… ") and "Row " in shown and shown.endswith("One more.")
    assert [p.text for p in found if p.op != "="] == [
        p.text for p in pieces(old, old.replace("Line 30", "Row 30") + "\nOne more.") if p.op != "="
    ]
    assert brief(pieces(old, old)) == pieces(old, old)
