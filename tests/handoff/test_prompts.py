"""What the trainee reads and writes."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.handoff import prompts
from gepa_atlas.handoff.prompts import TeacherFormat
from gepa_atlas.protocols.lesson import TEACHER, prompt
from gepa_atlas.types import Candidate, Demo, Example, Guidance

HOW = TeacherFormat()
WORDS = st.text(string.ascii_letters + " .,{}<%$é\n", max_size=40).map(lambda text: " ".join(text.split()))
TEXTS = st.lists(WORDS.filter(bool), max_size=4).map("\n\n".join)
DEMOS = st.builds(Demo, st.just("x"), WORDS.filter(bool), WORDS, WORDS)


@given(TEXTS, st.lists(DEMOS, max_size=3))
def test_guidance_survives_being_written(text: str, demos: list[Demo]) -> None:
    guidance = Guidance(text, tuple(demos))
    for protocol in ("playbook", "lesson"):
        read = prompts.read_completion(prompts.completion(guidance, protocol, "light" if protocol == "lesson" else ""))
        assert read.text == text
        assert [(d.question, d.answer, d.context) for d in read.demos] == [(d.question, d.answer, d.context) for d in demos]


def test_a_teachers_template_points_to_the_message_that_holds_the_task() -> None:
    system = prompts.system_prompt(Candidate.of({TEACHER: prompt("teacher_lesson")}), "lesson", HOW)
    assert "{" not in system and "see the next message" in system and "<teaching>" in system


def test_a_playbook_is_shown_to_the_teacher_with_its_demonstrations() -> None:
    candidate = Candidate.of({"guidance": "Reply with {braces}."}, (Demo("d", "2 + 2?", "4"),))
    system = prompts.system_prompt(candidate, "playbook", HOW)
    assert "Reply with {braces}." in system and "Question: 2 + 2?\nAnswer: 4" in system
    assert prompts.system_prompt(candidate, "playbook", TeacherFormat(system="")) == ""
    assert [turn["role"] for turn in prompts.messages("", "hello")] == ["user"]


def test_what_is_not_known_leaves_no_gap() -> None:
    task = Example("e", "Why {attempt}?", (), "A context.")
    known = prompts.task_prompt("", task, "Because.", HOW)[0]["content"]
    unknown = prompts.task_prompt("", task, None, HOW)[0]["content"]
    assert known == "Question:\nWhy {attempt}?\n\nContext:\nA context.\n\nThe student's first attempt:\nBecause."
    assert unknown == "Question:\nWhy {attempt}?\n\nContext:\nA context."


def test_a_population_takes_turns_from_a_start_that_the_task_decides() -> None:
    systems = ["a", "b", "c"]
    groups = [[prompts.population_system(systems, f"task {t}", n, 7) for n in range(6)] for t in range(20)]
    assert all(sorted(group) == ["a", "a", "b", "b", "c", "c"] for group in groups)
    assert len({group[0] for group in groups}) == 3


def test_form() -> None:
    assert prompts.well_formed("<teaching>Do.</teaching>", "lesson") and not prompts.well_formed("Do.", "lesson")
    assert not prompts.well_formed("<teaching>Do.", "lesson") and not prompts.well_formed("<teaching> </teaching>", "lesson")
    assert prompts.well_formed("Do.", "playbook") and not prompts.well_formed(" \n", "playbook")
    assert prompts.read_completion("<thinking>hm</thinking> Do.") == Guidance("Do.")
