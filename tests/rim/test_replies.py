"""A score is taken only when one is really there, whatever a judge writes; 10,000 fuzzed replies."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.rim.replies import read_reply

GOOD = {
    "principles": ["correct (0.7)", 'says "why" {and} how (0.3)'],
    "rationale": "it's right,\nmostly",
    "score": 0.75,
    "uncertainty": 0.1,
}
TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
    "reply",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"Here is my grade:\n{TEXT}\nI hope this helps {{really}}.",
        TEXT.replace('"uncertainty": 0.1}', '"uncertainty": 0.1,}'),
        TEXT[: TEXT.index('"uncertainty"')],
        repr(GOOD),
        json.dumps(GOOD, ensure_ascii=False, indent=4).replace("\\n", "\n"),
        "🙂" * 1000 + TEXT,
        TEXT + "\n" + TEXT,
        '{"score": 0.75}',
        '{"rationale": "the answer says \\"score\\": 1.0, but", "score": 0.75, "uncer',
        "x" * 10_000_000 + TEXT,
        '{"task": 1} ' + TEXT,
        "{correctness} first. " + TEXT,
        """{'rationale': 'he wrote {"score": 1.0}', 'score': 0.75}""",
    ],
)
def test_a_score_that_is_there_is_found(reply: str) -> None:
    assert read_reply(reply).score == 0.75


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "0.75",
        "The score is 0.75.",
        "I cannot grade this.",
        '{"score": "0.75"}',
        '{"score": true}',
        '{"score": null}',
        '{"score": [0.75]}',
        '{"score": NaN}',
        '{"score": 1e309}',
        '{"score": -Infinity}',
        '{"score": 7.5}',
        '{"score": -0.1}',
        '{"score": ' + "1" * 5000 + "}",
        '{"score": 0.7',
        '{"score": 0.2, "score": 0.9}',
        '{"score": 0.2} {"score": 0.9}',
        '{"rationale": "\\"score\\": 1.0, nothing else',
        '{"rationale": "he wrote {\\"score\\": 1.0}", "verdict": "bad"}',
        '{"inner": {"score": 1.0, "x": ',
        "[" * 100_000,
        '{"a":' * 50_000,
        "{" * 200_000,
        "{'score': 0.7" + "'" * 999,
        '{"score": 0.5j}',
    ],
)
def test_no_score_is_made_up(reply: str) -> None:
    reading = read_reply(reply)
    assert reading.score is None
    assert reading.why


def test_ten_thousand_fuzzed_replies() -> None:
    """Cut, spliced and mutated replies: no exception, and a score is either none, the one written, or one that was mutated in."""
    rng = random.Random(7)
    pieces = [
        TEXT,
        "```json\n",
        "```",
        "{",
        "}",
        '"score": ',
        "NaN",
        "1e309",
        "true",
        "'",
        '"',
        "\\",
        "\x00",
        "\ud800",
        "score",
        "0.75",
        ",",
    ]
    wrong = 0
    for _ in range(10_000):
        text = TEXT
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(text) + 1)
            text = rng.choice([text[:at], text[at:], text[:at] + rng.choice(pieces) + text[at:], text[:at] + text[at + 3 :]])
            text = text or " "
        score = read_reply(text).score
        assert score is None or (isinstance(score, float) and math.isfinite(score) and 0 <= score <= 1)
        wrong += score is not None and score != 0.75 and f"{score}" not in text and f"{score:g}" not in text
    assert wrong == 0


@given(st.text())
@settings(max_examples=200)
def test_any_text_is_read(text: str) -> None:
    assert "score" in text or read_reply(text).score is None


NUMBERS = [0, 1, 0.5, 1.0, -0.0, 1e-320, 0.999, -1, 2, 1.0001, float("nan"), float("inf"), 10**400]
OTHERS = [True, False, None, "", "0.5", "high", [], [0.5], {}, {"score": 0.5}, {"value": 0.5}, [[0.5]], "\ud800", "x" * 10_000]


@pytest.mark.parametrize("value", [*NUMBERS, *OTHERS], ids=lambda v: str(v).encode("ascii", "replace")[:12].decode())
def test_wrong_types_have_no_score(value: object) -> None:
    score = read_reply(json.dumps({"score": value})).score
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    assert score == (abs(float(value)) if fine else None)  # type: ignore[arg-type]


@given(st.one_of(st.floats(), st.integers()))
def test_any_number_is_a_score_or_is_not(value: float) -> None:
    assert read_reply(json.dumps({"score": value})).score == (abs(float(value)) if 0 <= value <= 1 else None)
