"""traces.jsonl holds every lesson once; the sentence says what was found and no more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gepa_atlas.report.summary import claims, closing, gain_text, sentence, spend_text
from gepa_atlas.report.traces import write_traces
from gepa_atlas.testing.conformance import HOSTILE, toy_lesson
from gepa_atlas.testing.toyworld import ToyWorld
from gepa_atlas.types import Candidate, Usage, Verdict
from tests.report.records import NO_TEST, SEED, SEED_WON, SHIP, UNSURE, WORSE, record


def test_every_lesson_is_a_line_and_comes_back_unchanged(tmp_path: Path) -> None:
    world = ToyWorld()
    lessons = [toy_lesson(world, Candidate.of({"guidance": text}), world.examples()[0]) for text in HOSTILE]
    path = tmp_path / "traces.jsonl"
    write_traces([*lessons, lessons[0]], path)
    lines = path.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [lesson.to_json() for lesson in lessons]
    assert [json.loads(line)["guidance"]["text"] for line in lines] == list(HOSTILE)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (
            SHIP,
            "Ship the evolved prompt: mean reward 0.100 -> 0.900 on held-out examples "
            "(gain +0.800, 95 % interval [+0.650, +0.890], 39 held-out examples).",
        ),
        (
            WORSE,
            "Do not ship, the seed is returned: mean reward 0.100 -> 0.080 on held-out examples "
            "(gain -0.020, 95 % interval [-0.100, +0.060], 40 held-out examples), so the evolved prompt is not better than the seed.",
        ),
        (
            UNSURE,
            "Inconclusive, the seed is returned: mean reward 0.100 -> 0.150 on held-out examples "
            "(gain +0.050, 95 % interval [-0.050, +0.200], 40 held-out examples), so the gain may be chance.",
        ),
        (NO_TEST, "Inconclusive, the seed is returned: there is no test split."),
    ],
)
def test_the_verdict_in_one_sentence(verdict: Verdict, expected: str) -> None:
    assert sentence(record(verdict)) == expected


def test_a_seed_that_won() -> None:
    won = record(SEED_WON, challenger=SEED)
    assert sentence(won) == (
        "Keep the seed (mean reward 0.100 on held-out examples): no candidate was better than the seed on the val split."
    )
    assert gain_text(won) == ""


def test_low_coverage_is_a_reason_of_its_own() -> None:
    few = replace(SHIP, ruling=UNSURE.ruling, reasons=("only 3 of 40 test examples were scored for both",), pairs=3)
    assert sentence(record(few)).endswith("so only 3 of 40 test examples were scored for both.")


def test_the_closing_lines_say_everything() -> None:
    lines = closing(record(), {"Prompts": "/runs/x/optimized_prompts.json"})
    assert lines[1:] == [
        "Gain: +0.800, 95 % interval [+0.650, +0.890], 39 held-out examples",
        "Rollouts: 150 of 150",
        "Spend, reflection: 2 calls, unknown tokens, unknown price, 3.0 s of answering",
        "Spend, student: 150 calls, 1260 tokens, $0.0012, 9.5 s of answering",
        "Stopped: the budget of 150 rollouts is spent",
        "Not claimed: only 40 test examples",
        "Prompts: /runs/x/optimized_prompts.json",
    ]
    assert spend_text(Usage(calls=1)) == "1 calls, 0 tokens, no price, 0.0 s of answering"


def test_no_interval_is_spoken_of_where_nothing_was_compared() -> None:
    kept = " ".join(claims(record(SEED_WON, challenger=SEED)))
    assert "No gain was put to the held-out test" in kept and "interval" not in kept
    assert "holds zero" in " ".join(claims(record(UNSURE)))
