from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.tags import inside, solution, teaching


@pytest.mark.parametrize(
    ("text", "taught"),
    [
        ("plain", "plain"),
        ("<teaching>a</teaching>", "a"),
        ("< Teaching >a</ TEACHING >", "a"),
        ("before <teaching>a</teaching> after", "a"),
        ("<teaching>first</teaching> <teaching>last</teaching>", "last"),
        ("<teaching>kept</teaching> <teaching></teaching>", "kept"),
        ("<teaching>never closed", "never closed"),
        ("never opened</teaching> rest", "never opened"),
        ("<teaching>outer <teaching>inner</teaching> end</teaching>", "outer inner end"),
        ("<thinking>t <teaching>draft</teaching></thinking><teaching>real</teaching>", "real"),
        ("<thinking>t</thinking> no tags", "no tags"),
        ("<thinking>all of it <teaching>still inside</teaching>", "still inside"),
        ("<teaching>x < y and {z}</teaching>", "x < y and {z}"),
        ("<thinking>cut", ""),
        ("", ""),
    ],
)
def test_teaching(text: str, taught: str) -> None:
    assert teaching(text) == taught


def test_solution_falls_back_to_what_is_not_thinking() -> None:
    assert solution("<thinking>7?</thinking>\n<solution> 8 </solution>") == "8"
    assert solution("<thinking>7?</thinking>\nIt is 8.") == "It is 8."
    assert solution("8") == "8"


@given(st.lists(st.sampled_from(["<teaching>", "</teaching>", "<thinking>", "</thinking>", "a", " b\n"]), max_size=12).map("".join))
def test_no_tag_survives_and_nothing_raises(text: str) -> None:
    found = inside(text, "teaching")
    assert found is None or "teaching>" not in found
    assert "teaching>" not in teaching(text)
    solution(text)
