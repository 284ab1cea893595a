"""What a prompt may not carry, and what it may."""

from __future__ import annotations

import pytest

from gepa_atlas.evolve.guard import leak_guard
from gepa_atlas.types import Candidate, Example

TRAIN = [Example("t1", "The parcel I was promised for last Tuesday has still not come to my door.", ("late delivery",))]
HELD_OUT = [
    Example("v1", "My neighbour's blue bicycle was scratched by your driver on the way out.", ("damage to third party",), split="val"),
    Example("x1", "The parcel I was promised for last Tuesday has still not come to my door, again.", ("late delivery",), split="test"),
]
SEED = Candidate.of({"guidance": "Say what the complaint is about in a few words."})
GUARD = leak_guard(TRAIN, HELD_OUT, [SEED])


def leak(text: str) -> str | None:
    return GUARD(SEED.child("edit", texts={"guidance": text}))


@pytest.mark.parametrize(
    "text",
    [
        "Some complaints are Damage to THIRD party.",
        "For example: my neighbour's blue bicycle was scratched by your driver.",
        "Answers: late delivery; damage  to\nthird party",
    ],
)
def test_held_out_text_and_answers_are_refused_by_name(text: str) -> None:
    assert "v1" in (leak(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        "Say what the complaint is about in a few words.",
        "Typical: late delivery.",
        "A neighbour's bicycle is a third party's property.",
        "The parcel I was promised for last Tuesday has still not come to my door: late delivery.",
        "",
    ],
)
def test_labels_of_train_and_shared_phrases_are_no_leak(text: str) -> None:
    assert leak(text) is None
