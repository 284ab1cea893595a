"""A baseline is run once and shared; whoever rests a decision on a failed one is known to the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gepa_atlas.answers import WITHHELD
from gepa_atlas.calls import SLOT, Calls
from gepa_atlas.classroom import Classroom
from gepa_atlas.errors import BadRequest
from gepa_atlas.ports import Endpoint
from gepa_atlas.protocols import build_protocol
from gepa_atlas.protocols.playbook import Playbook
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.panel import build_panel
from gepa_atlas.store import Run
from gepa_atlas.testing.scripted import ScriptedModel
from gepa_atlas.types import Attempt, Candidate, Example, Task

EXAMPLE = Example("x1", "What is 2 + 2?", ("4",))


class Student:
    """Refuses every question until `works`; counts."""

    identity = "student"
    endpoint = Endpoint("student")

    def __init__(self, works: bool) -> None:
        self.works, self.asked = works, 0

    async def run(self, task: Task) -> Attempt:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.works:
            raise BadRequest("no")
        return Attempt("4")


def classroom(student: Student, run: Run) -> Classroom:
    panel = build_panel(RimConfig.model_validate({"judges": ["exact"]}), model=lambda spec: None)  # type: ignore[arg-type, return-value]
    return Classroom(Calls(run).agent(student), panel, Playbook())


def opened(directory: Path) -> Run:
    return Run.open(directory, manifest={}, config={})


@pytest.mark.parametrize("works", [True, False])
def test_a_baseline_is_paid_for_once(tmp_path: Path, works: bool) -> None:
    student = Student(works)

    async def story(room: Classroom) -> None:
        sides = await asyncio.gather(*[room.baseline(EXAMPLE) for _ in range(5)])
        assert len({side.reward.value for side in sides}) == 1 and student.asked == 1

    with opened(tmp_path) as run:
        asyncio.run(story(classroom(student, run)))


@pytest.mark.parametrize("told", [True, False])
def test_a_failed_baseline_stays_with_every_slot_that_was_told_of_it(tmp_path: Path, told: bool) -> None:
    """Slot 11 asks first, slot 7 shares its answer and is told; a new process must give slot 7 the same answer, and may try again
    where nothing was told."""

    async def first(room: Classroom, run: Run) -> None:
        for slot in (11, 7):
            SLOT.set(slot)
            assert (await room.baseline(EXAMPLE)).attempt.error is not None
        if told:
            await run.tell(7, "slot", {"seen": "a failure"})

    async def second(room: Classroom) -> str | None:
        SLOT.set(7)
        return (await room.baseline(EXAMPLE)).attempt.output

    with opened(tmp_path) as run:
        asyncio.run(first(classroom(Student(works=False), run), run))
    with opened(tmp_path) as run:
        assert asyncio.run(second(classroom(Student(works=True), run))) == (None if told else "4")


def test_a_taught_lesson_never_shows_the_student_the_gold_answer(tmp_path: Path) -> None:
    class Told(Student):
        seen: tuple[str, ...] = ()

        async def run(self, task: Task) -> Attempt:
            self.seen = (*self.seen, task.question.text)
            answers = ("<solution>5</solution>", "I add.", "<solution>4</solution>")
            return Attempt(answers[len(self.seen) - 1])

    student, teacher = Told(works=True), ScriptedModel(["<support>heavy</support><teaching>Count up; the answer is 4.</teaching>"])
    panel = build_panel(RimConfig.model_validate({"judges": ["exact"]}), model=lambda spec: teacher)
    protocol = build_protocol("probe", teacher, student)
    lesson = asyncio.run(Classroom(student, panel, protocol).teach(Candidate.of(protocol.seed_texts()), EXAMPLE))
    assert (lesson.before.value, lesson.after.value, lesson.support) == (0.0, 1.0, "heavy")
    assert WITHHELD in student.seen[2] and "answer is 4" not in student.seen[2]
    assert lesson.to_json()["support"] == "heavy"
