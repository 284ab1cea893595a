"""playbook: the evolved text itself is the guidance, with the candidate's demonstrations and settings. No teacher call."""

from __future__ import annotations

from gepa_atlas.ports import Agent, Composed
from gepa_atlas.protocols.base import Prepared, Withhold, keep
from gepa_atlas.settings import Settings
from gepa_atlas.types import Attempt, Candidate, Component, Guidance, Question, Task, digest

GUIDANCE = "guidance"


class PlaybookOptions(Settings):
    max_chars: int = 8_000  # the longest guidance a candidate may carry


class Playbook:
    """One component, `guidance`, given to the student as it is; of a student that is made of texts, those texts. One rollout a lesson."""

    name = "playbook"
    student_calls = 1

    def __init__(self, options: PlaybookOptions | None = None, student: Agent | None = None) -> None:
        self._options = options or PlaybookOptions()
        self._own = student if isinstance(student, Composed) else None

    @property
    def identity(self) -> str:
        return f"playbook:{digest(self._options.model_dump(), 16)}"

    def components(self) -> tuple[Component, ...]:
        if self._own is not None:
            return self._own.components()
        purpose = "instructions an agent reads together with each question, before its second attempt"
        return (Component(GUIDANCE, (), self._options.max_chars, purpose),)

    def seed_texts(self) -> dict[str, str]:
        return {GUIDANCE: "Answer the question."} if self._own is None else self._own.texts()

    def baseline(self, question: Question) -> Task:
        return Task(question)

    def answer(self, output: str) -> str:
        return output

    async def prepare(
        self, candidate: Candidate, question: Question, baseline: Attempt, sample: int, withhold: Withhold = keep
    ) -> Prepared:
        """Nothing to withhold: the guidance is the candidate's own text, which the leak guard has read."""
        if self._own is None:
            guidance = Guidance(candidate.text(GUIDANCE), candidate.demos, candidate.settings)
        else:
            guidance = Guidance("", candidate.demos, candidate.settings, candidate.texts)
        return Prepared(Task(question, guidance, sample), guidance)
