"""probe: the two-pass protocol of the ATLAS teacher.

The student states its approach under a cap, the teacher diagnoses it and teaches in `<teaching>` tags, lightly or heavily by need,
and the student answers with the teaching in hand. The baseline is the bare question.
"""

from __future__ import annotations

from gepa_atlas.errors import BudgetExhausted, CallError, ConfigError
from gepa_atlas.ports import Agent, ChatModel
from gepa_atlas.protocols.base import Prepared, untaught
from gepa_atlas.protocols.lesson import STUDENT, TEACHER, LessonOptions, ask_teacher, prompt, wrapped
from gepa_atlas.protocols.tags import without
from gepa_atlas.texts import fill
from gepa_atlas.types import Attempt, Candidate, Component, Failure, Guidance, Question, Task, digest

DIAGNOSTIC = "student_diagnostic_template"


class ProbeOptions(LessonOptions):
    student_template: bool = True
    max_approach_chars: int = 2_000  # of the approach that the teacher reads: 500 tokens, ATLAS's cap


class Probe:
    """Three evolvable templates; one teacher call and two rollouts a lesson."""

    name = "probe"
    student_calls = 2

    def __init__(self, teacher: ChatModel | None, student: Agent, options: ProbeOptions | None = None) -> None:
        if teacher is None:
            raise ConfigError("protocol 'probe' needs a teacher model: configure agents.teacher, or choose protocol 'playbook'")
        self._teacher = teacher
        self._student = student
        self._options = options or ProbeOptions()

    @property
    def identity(self) -> str:
        return f"probe:{digest([self._options.model_dump(), self._teacher.identity, self._student.identity], 16)}"

    def components(self) -> tuple[Component, ...]:
        cap = self._options.max_chars
        diagnostic = Component(DIAGNOSTIC, ("question",), cap, "asks the student for its approach, not yet for the answer")
        teacher = Component(TEACHER, ("question", "approach"), cap, "asks a teacher to diagnose the approach and to teach by need")
        student = Component(STUDENT, ("question", "teaching"), cap, "puts question and teaching to the student")
        return (diagnostic, teacher, student) if self._options.student_template else (diagnostic, teacher)

    def seed_texts(self) -> dict[str, str]:
        names = {DIAGNOSTIC: DIAGNOSTIC, TEACHER: "teacher_probe", STUDENT: STUDENT}
        return {c.name: prompt(names[c.name]) for c in self.components()}

    async def prepare(self, candidate: Candidate, question: Question, baseline: Attempt, sample: int) -> Prepared:
        values = {"question": question.text, "context": question.context}
        asked = Task(Question(question.example_id, fill(candidate.text(DIAGNOSTIC), values), question.context), Guidance(), sample)
        try:
            first = await self._student.run(asked)
        except CallError as error:
            return untaught(question, sample, Failure(error.kind, f"the student stated no approach: {error}"), None, (asked,))
        except BudgetExhausted as error:
            return untaught(question, sample, Failure("budget_exhausted", f"the student was not asked for its approach: {error}"))
        if first.output is None:
            failure = first.error or Failure("no_approach", "the student stated no approach")
            return untaught(question, sample, failure, None, (asked,))
        approach = without(first.output, "thinking")[: self._options.max_approach_chars]
        values |= {"approach": approach, "attempt": baseline.output or ""}
        taught, usage = await ask_teacher(self._teacher, self._options, fill(candidate.text(TEACHER), values), sample)
        if isinstance(taught, Failure):
            return untaught(question, sample, taught, usage, (asked,))
        guidance = Guidance(taught, candidate.demos, candidate.settings)
        if self._options.student_template:
            task = wrapped(candidate, question, taught, sample, approach=approach)
        else:
            task = Task(question, guidance, sample)
        return Prepared(task, guidance, usage, None, (asked,))
