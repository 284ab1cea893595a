"""Whether two answers say the same, where an answer is in a text, and when guidance gives it away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.answers import WITHHELD, final, given_away, same, withhold


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1,000", "1000"), ("1000.0", "1000"), (".5", "0.5"), ("0.75", "3/4"), (r"\frac{3}{4}", "0.75"), (r"\dfrac34", "3/4"),
        ("1 1/2", "1.5"), ("-3/4", "-0.75"), ("\u22125", "-5"), ("$5", "5"), ("$5", "5 dollars"), ("$-5", "-$5"), ("5 USD", "$5.00"),
        ("12 km", "12 kilometres"), ("5 km", "5000 m"), ("5km", "5"), ("2 hours", "120 minutes"), ("50%", "0.5"), ("50%", "50"),
        (r"50\%", "50 percent"), ("1.5e3", "1500"), (r"1.5 \times 10^3", "1500"), (r"1.5\cdot 10^{-2}", "0.015"),
        (r"\boxed{42}", "42"), (r"$\boxed{\frac{1}{2}}$", "1/2"), (r"\(7\)", "7"), (r"$x^2$", "x^2"), (r"90^\circ", "90 degrees"),
        (r"\text{Paris}", "paris"), ("Paris.", "Paris"), ('"Paris"', "paris"), ("New  York", "new york"), ("(B)", "B"), ("b.", "B"),
        ("(1, 2)", "(1,2)"), (r"\left(1, \frac{1}{2}\right)", "(1, 0.5)"), ("12 apples", "12"), ("**42**", "42"), (r"3{,}000", "3000"),
    ],
)  # fmt: skip
def test_the_same_said_differently(a: str, b: str) -> None:
    assert same(a, b) and same(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("0.001", "0.004"), ("5 km", "5 m"), ("5 kg", "5 km"), ("$5", "€5"), ("-5", "5"), ("1/0", "0"), ("12", "12 and 13"),
        ("1,2", "12"), ("(1, 2)", "(2, 1)"), ("(1, 2)", "(1, 2, 3)"), ("Paris", "Pari"), ("A", "B"), ("", "0"), ("50%", "5"),
        ("0", "1"), ("1e99999", "1"), (r"\frac{1", "1"), ("3.14", "3.1"),
    ],
)  # fmt: skip
def test_different_answers(a: str, b: str) -> None:
    assert not same(a, b) and not same(b, a)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", "42"),
        ("So it is <solution> 42 </solution>.", "42"),
        (r"First \boxed{1}, then \boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"<thinking>\boxed{9}</thinking><solution>The answer is \boxed{8}</solution>", "8"),
        (r"cut off \boxed{\frac{1}{2", r"\frac{1}{2"),
        ("Step 1: 3.\nThe final answer is 3.5 km.", "3.5 km"),
        ("Answer: **Paris**\n", "Paris"),
        ("<thinking>The answer is 1</thinking>The answer is 2. I am sure.", "2"),
        ("no cue, 7 apples", "no cue, 7 apples"),
    ],
)
def test_where_an_answer_is(text: str, answer: str) -> None:
    assert final(text) == answer


@pytest.mark.parametrize(
    ("text", "answers", "seen", "told"),
    [
        ("Multiply, and you get 1,536.", ["1536"], [], f"Multiply, and you get {WITHHELD}."),
        ("Half of it is 3/4.", ["0.75"], [], f"Half of it is {WITHHELD}."),
        ("Use 1536 from the question.", ["1536"], ["There are 1,536 tiles."], None),
        ("2. Then divide by 4.", ["4"], [], None),
        ("Step 4: so the answer is 4.", ["4"], [], f"Step 4: so the answer is {WITHHELD}."),
        ("Then x = 4", ["4"], [], f"Then x = {WITHHELD}"),
        (r"Write \boxed{4}", ["4"], [], rf"Write \boxed{{{WITHHELD}}}"),
        ("Think of a capital in the north.", ["a"], [], None),
        ("The correct option is (B).", ["B"], [], f"The correct option is ({WITHHELD})."),
        ("Say yes only when it holds.", ["yes"], [], None),
        ("The answer is yes.", ["yes"], [], f"The answer is {WITHHELD}."),
        ("It was  new\nYORK, of course", ["New York"], [], f"It was  {WITHHELD}, of course"),
        ("Newark is close.", ["New"], [], None),
        ("You said Paris; keep it.", ["Paris"], ["I would say Paris"], None),
        ("It is Paris or Lutetia.", ["Paris", "Lutetia"], [], f"It is {WITHHELD} or {WITHHELD}."),
        ("Nothing to hide.", [], [], None),
        ("The order VT-41189 is late.", ["VT-41189"], [], f"The order {WITHHELD} is late."),
    ],
)
def test_what_gives_an_answer_away(text: str, answers: list[str], seen: list[str], told: str | None) -> None:
    assert withhold(text, answers, seen) == (text if told is None else told)
    assert bool(given_away(text, answers, seen)) == (told is not None)


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_can_be_read_and_compared(a: str, b: str) -> None:
    assert same(a, a)
    same(final(a), final(b))
    withhold(a, [b])


@given(st.fractions(min_value=-10_000, max_value=10_000, max_denominator=50))
def test_a_number_equals_its_spellings(value: object) -> None:
    top, bottom = value.numerator, value.denominator  # type: ignore[attr-defined]
    sign = "-" if top < 0 else ""
    assert same(str(value), rf"{sign}\frac{{{abs(top)}}}{{{bottom}}}")
    assert same(str(value), f"{sign}{abs(top) // bottom} {abs(top) % bottom}/{bottom}")
