"""lesson: a teacher model reads the question and the first attempt and writes guidance for this example."""

from __future__ import annotations

from importlib.resources import files

from gepa_atlas.errors import BudgetExhausted, CallError, ConfigError
from gepa_atlas.ports import ChatModel, ChatRequest
from gepa_atlas.protocols.base import Prepared, untaught
from gepa_atlas.protocols.tags import teaching
from gepa_atlas.settings import Settings
from gepa_atlas.texts import fill
from gepa_atlas.types import Attempt, Candidate, Component, Failure, Guidance, Message, Question, Task, Usage, digest

TEACHER = "teacher_adaptive_template"
STUDENT = "student_with_teaching_template"


class LessonOptions(Settings):
    max_tokens: int = 512  # of one guidance
    temperature: float = 0.0
    max_chars: int = 8_000  # the longest template a candidate may carry
    student_template: bool = False  # also evolve how the teaching is put to the student, as one text with the question


def prompt(name: str) -> str:
    """A template shipped beside this file."""
    return (files("gepa_atlas.protocols") / "prompts" / f"{name}.md").read_text("utf-8").strip()


def wrapped(candidate: Candidate, question: Question, taught: str, sample: int, **more: str) -> Task:
    """A task whose question is `student_with_teaching_template` filled in: the student receives one text."""
    text = fill(candidate.text(STUDENT), {"question": question.text, "teaching": taught, "context": question.context, **more})
    return Task(Question(question.example_id, text, question.context), Guidance("", candidate.demos, candidate.settings), sample)


class Lesson:
    """The default protocol when a teacher is configured. One teacher call and one rollout a lesson."""

    name = "lesson"
    student_calls = 1

    def __init__(self, teacher: ChatModel | None, options: LessonOptions | None = None) -> None:
        if teacher is None:
            raise ConfigError(
                "protocol 'lesson' needs a teacher model: configure agents.teacher, or choose protocol 'playbook', which needs none"
            )
        self._teacher = teacher
        self._options = options or LessonOptions()

    @property
    def identity(self) -> str:
        return f"lesson:{digest([self._options.model_dump(), self._teacher.identity], 16)}"

    def components(self) -> tuple[Component, ...]:
        purpose = "asks a teacher for guidance that helps a student answer a question better than in its first attempt"
        teacher = Component(TEACHER, ("question", "attempt"), self._options.max_chars, purpose)
        if not self._options.student_template:
            return (teacher,)
        return (teacher, Component(STUDENT, ("question", "teaching"), self._options.max_chars, "puts question and teaching to the student"))

    def seed_texts(self) -> dict[str, str]:
        return {c.name: prompt(c.name if c.name == STUDENT else "teacher_lesson") for c in self.components()}

    async def prepare(self, candidate: Candidate, question: Question, baseline: Attempt, sample: int) -> Prepared:
        if baseline.output is None:
            return untaught(question, sample, baseline.error or Failure("no_baseline", "there is no first attempt to teach from"))
        values = {"question": question.text, "attempt": baseline.output, "context": question.context}
        taught, usage = await ask_teacher(self._teacher, self._options, fill(candidate.text(TEACHER), values), sample)
        if isinstance(taught, Failure):
            return untaught(question, sample, taught, usage)
        guidance = Guidance(taught, candidate.demos, candidate.settings)
        if self._options.student_template:
            return Prepared(wrapped(candidate, question, taught, sample), guidance, usage)
        return Prepared(Task(question, guidance, sample), guidance, usage)


async def ask_teacher(teacher: ChatModel, options: LessonOptions, text: str, sample: int) -> tuple[str | Failure, Usage]:
    """Guidance, or the named reason why there is none, and what the call took."""
    request = ChatRequest((Message("user", text),), max_tokens=options.max_tokens, temperature=options.temperature, sample=sample)
    try:
        completion = await teacher.complete(request)
    except CallError as error:
        return Failure(error.kind, f"the teacher failed: {error}"), Usage()
    except BudgetExhausted as error:
        return Failure("budget_exhausted", f"the teacher was not asked: {error}"), Usage()
    taught = teaching(completion.text)
    if not taught:
        return Failure("empty_answer", "the teacher wrote no guidance"), completion.usage
    return taught, completion.usage
