"""What makes a line more or less likely to be tried."""

from __future__ import annotations

from dataclasses import replace

from gepa_atlas.pieces import split
from gepa_atlas.propose.bank import bank, kind_of
from gepa_atlas.propose.fragments import Credit, FragmentOptions, Fragments
from gepa_atlas.types import Attempt, Candidate
from tests.propose.briefs import brief, demo, lesson

SEED = Candidate.of({"guidance": "Answer the question."})
OWN = ("When it names vorn, cite quell.", "When it names zint, cite prax.", "Third line.", "Fourth line.")
ONLY_OWN = FragmentOptions(fragments=OWN, builtin=False, from_data=False)


def test_the_bank_is_of_known_kinds_and_single_items() -> None:
    assert set(bank()) == {"role", "task", "format", "constraint"}
    assert all(len(split(line)) == 1 for line in kind_of())


def test_lines_of_good_candidates_weigh_more_and_of_rejected_ones_less() -> None:
    good = SEED.child("x", texts={"guidance": f"Answer the question.\n{OWN[0]}"})
    bad = SEED.child("x", texts={"guidance": f"Answer the question.\n{OWN[1]}"})
    weights = Fragments(ONLY_OWN).weighed(brief(SEED, mates=[good], rejected=[bad]), "guidance")
    assert weights[OWN[0]] > weights[OWN[2]] > weights[OWN[1]]


def test_an_item_that_rejected_children_dropped_is_kept_rather() -> None:
    parent = Candidate.of({"guidance": "One.\nTwo.\nThree."})
    bad = parent.child("x", texts={"guidance": "Two.\nThree."})
    good = parent.child("x", texts={"guidance": "One.\nThree."})
    credit = Credit(brief(parent, mates=[good], rejected=[bad]), "guidance")
    assert credit.for_dropping("one.") < credit.for_dropping("three.") < credit.for_dropping("two.")


def test_lines_that_speak_of_a_failed_question_weigh_more() -> None:
    pool = [demo(i) for i in range(10)]
    failed = lesson(1, 0.0, SEED, question="Item 1: it names vorn today")
    weights = Fragments(ONLY_OWN).weighed(brief(SEED, pool=pool, lessons=[failed]), "guidance")
    assert weights[OWN[0]] > weights[OWN[2]]


def test_failures_of_form_call_for_lines_on_form() -> None:
    right = lesson(1, 0.0, SEED)
    right = replace(right, second=Attempt(f"I think it is {right.example.answers[0]}, surely."))
    options = FragmentOptions(from_data=False)
    plain, told = (Fragments(options).weighed(brief(SEED, lessons=lessons), "guidance") for lessons in ([], [right]))
    assert told["Output only the answer."] > plain["Output only the answer."]
    assert told["Answer the question."] == plain["Answer the question."]


def test_own_lines_can_be_given_by_component() -> None:
    options = FragmentOptions(fragments={"guidance": OWN[:1], "other": OWN[1:]}, builtin=False, from_data=False)
    assert list(Fragments(options).weighed(brief(SEED), "guidance")) == [OWN[0]]
