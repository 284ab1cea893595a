"""What the trainee reads and writes: one place for SFT, GRPO, distillation and evaluation, so that they never differ.

The trainee is the teacher. It reads a system prompt (the evolved text) and a user message (the question and the student's first attempt),
and writes guidance. Where the optimization had a teacher (protocols `lesson` and `probe`) the evolved text is that teacher's template:
its places for question and attempt point to the user message. Where it had none (`playbook`) the evolved text is guidance itself, and
the system prompt shows it to the teacher as what has helped so far.

Demonstrations are part of guidance. In a completion they are written as `Question: ... / Answer: ...` blocks after the text, and
`read_completion` turns such blocks into demonstrations again, so the student gets them where its connector puts demonstrations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from pydantic import Field, field_validator

from gepa_atlas.protocols.lesson import TEACHER
from gepa_atlas.settings import Settings
from gepa_atlas.tags import inside, teaching, without
from gepa_atlas.texts import fill
from gepa_atlas.types import Candidate, Demo, Example, Guidance, digest

Turn = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}

_PLACES = {
    "question": "(the question: see the next message)",
    "context": "",
    "attempt": "(the student's first attempt: see the next message)",
    "approach": "(the student's first attempt: see the next message)",
}
_BLOCK = re.compile(r"^(?:Context: (?P<context>.*?)\n)?Question: (?P<question>.*?)\nAnswer:(?P<answer>.*)$", re.DOTALL)
_SPLIT = re.compile(r"\n\n(?=(?:Context|Question): )")


def shipped(name: str) -> str:
    """A template that lies beside this file."""
    return (files("gepa_atlas.handoff") / "prompts" / f"{name}.md").read_text("utf-8").strip()


class TeacherFormat(Settings):
    """How the two messages to the teacher are put together. An empty `system` sends no system message: for tiny models."""

    system: str | None = None  # with {prompt}, the evolved text; None: the text itself (lesson, probe) or the shipped frame (playbook)
    user: str = Field(default_factory=lambda: shipped("user"))  # with {question}; {context} and {attempt} where they belong
    context: str = "{question}\n\nContext:\n{context}"  # puts a context into {question} where `user` has no place for it

    @field_validator("user")
    @classmethod
    def _asks(cls, template: str) -> str:
        if "{question}" not in template:
            raise ValueError("the template must contain {question}")
        return template


def system_prompt(candidate: Candidate, protocol: str, how: TeacherFormat) -> str:
    """The teacher's system prompt for this candidate; empty where `how.system` is."""
    if protocol == "playbook":
        evolved = written(Guidance("\n\n".join(text for _, text in candidate.texts), candidate.demos))
        frame = shipped("playbook") if how.system is None else how.system
    else:
        texts = dict(candidate.texts)
        evolved = re.sub(r"\n{3,}", "\n\n", fill(texts.get(TEACHER, "\n\n".join(texts.values())), _PLACES)).strip()
        frame = "{prompt}" if how.system is None else how.system
    return fill(frame, {"prompt": evolved})


def user_message(question: str, context: str, attempt: str | None, how: TeacherFormat) -> str:
    """The task and the student's first attempt. Without an attempt (not known yet, or failed) the lines that introduce it stay out."""
    if context and "{context}" not in how.user:
        question, context = fill(how.context, {"question": question, "context": context}), ""
    template = how.user
    if attempt is None:
        template = "\n\n".join(part for part in template.split("\n\n") if "{attempt}" not in part)
    return fill(template, {"question": question, "context": context, "attempt": attempt or ""}).strip()


def messages(system: str, user: str) -> list[Turn]:
    """The prompt of one row. No system message where there is nothing to say in it."""
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def task_prompt(system: str, task: Example, attempt: str | None, how: TeacherFormat) -> list[Turn]:
    """`messages` of one task: what every stage of training asks the teacher."""
    return messages(system, user_message(task.question, task.context, attempt, how))


def population_system(systems: Sequence[str], task_id: str, sample: int, seed: int) -> str:
    """The system prompt of sample n of a task's group (mode `population`): the front in turn, from a start that only the task decides."""
    if not systems:
        raise ValueError("population_system needs at least one prompt")
    start = int(digest([seed, task_id], 8), 16)
    return systems[(start + sample) % len(systems)]


# -- guidance as text -------------------------------------------------------------------------------------------------


def written(guidance: Guidance) -> str:
    """Text and demonstrations as one text. Settings and named texts are no text: see `is_text`."""
    blocks = [guidance.text] if guidance.text else []
    for demo in guidance.demos:
        context = f"Context: {demo.context}\n" if demo.context else ""
        blocks.append(f"{context}Question: {demo.question}\nAnswer: {demo.answer}")
    return "\n\n".join(blocks)


def is_text(guidance: Guidance) -> bool:
    """Whether a teacher could have written this: no settings and no texts of a composed agent in it."""
    return not guidance.settings and not guidance.texts


def completion(guidance: Guidance, protocol: str, support: str = "") -> str:
    """What the teacher is taught to write: tagged where its prompt asks for tags."""
    text = written(guidance)
    if protocol == "playbook":
        return text
    level = f"<support>{support}</support>\n" if support else ""
    return f"{level}<teaching>\n{text}\n</teaching>"


def well_formed(text: str, protocol: str) -> bool:
    """Whether a completion has the form its prompt asks for."""
    if protocol == "playbook":
        return bool(text.strip())
    return bool(inside(text, "teaching")) and "</teaching>" in text.lower()


def read_completion(text: str) -> Guidance:
    """Guidance from what a teacher wrote: its `<teaching>` or all of it, with `Question / Answer` blocks as demonstrations."""
    plain = teaching(without(text, "support") if inside(text, "support") is not None else text).strip()
    parts = _SPLIT.split("\n\n" + plain)
    demos = [(part, _BLOCK.match(part)) for part in parts[1:]]
    words = [parts[0].strip(), *(part for part, found in demos if found is None)]
    shown = tuple(
        Demo(f"written-{at}", found["question"].strip(), found["answer"].strip(), (found["context"] or "").strip())
        for at, found in enumerate((found for _, found in demos if found is not None), 1)
    )
    return Guidance("\n\n".join(word for word in words if word), shown)


def guidance_of(row: dict[str, Any]) -> Guidance:
    """A Guidance from its JSON (a line of traces.jsonl)."""
    return Guidance(
        row.get("text", ""),
        tuple(Demo.from_json(demo) for demo in row.get("demos", ())),
        tuple(row.get("settings", {}).items()),
        tuple(row.get("texts", {}).items()),
    )


__all__ = [
    "TeacherFormat", "completion", "guidance_of", "is_text", "messages", "population_system", "read_completion", "system_prompt",
    "task_prompt", "user_message", "well_formed", "written",
]  # fmt: skip
