"""How guidance is put into a request: pure functions from a task and the user's templates to texts and turns.

Templates come from the configuration and are filled by `texts.fill`, in one pass; what evolved, what the data says and what the
user asked are data, so braces, quotes, newlines and emoji in them come out as they went in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import field_validator

from gepa_atlas.errors import BadRequest, CallError
from gepa_atlas.settings import Settings
from gepa_atlas.texts import fill
from gepa_atlas.types import Demo, Guidance, Message, Question, Scalar, Task

Where = Literal["prefix", "suffix", "system", "field", "turns"]

_REQUIRED = {
    "question_format": ("{question}",),
    "context_format": ("{context}", "{question}"),
    "demo_format": ("{question}", "{answer}"),
}


class Placement(Settings):
    """Where guidance goes, and the templates of what is rendered as text. Shared by every connector, beside its own keys.

    `guidance`: `prefix` and `suffix` put the text before or after the question, `system` makes it the system prompt, `turns` an
    exchange before the question, `field` an argument or a JSON field of its own. Demonstrations are chat turns wherever there are
    turns, a field where the request has one for them, else text rendered by `demo_format` ahead of the question.
    """

    guidance: Where = "prefix"
    question_format: str = "{question}"
    context_format: str = "{context}\n\n{question}"  # of a question, asked or shown, that has a context
    demo_format: str = "Question: {question}\nAnswer: {answer}"
    separator: str = "\n\n"

    @field_validator("question_format", "context_format", "demo_format")
    @classmethod
    def _keeps_its_placeholders(cls, template: str, info: Any) -> str:
        for placeholder in _REQUIRED[info.field_name]:
            if placeholder not in template:
                raise ValueError(f"the template must contain {placeholder}")
        return template


def with_context(text: str, context: str, how: Placement) -> str:
    return fill(how.context_format, {"context": context, "question": text}) if context else text


def asked(question: Question, how: Placement) -> str:
    """The question as the agent reads it, context included."""
    return fill(how.question_format, {"question": with_context(question.text, question.context, how)})


def demo_text(demos: Sequence[Demo], how: Placement) -> str:
    """Demonstrations as text, in order, separated; empty for none."""
    shown = ({"question": with_context(d.question, d.context, how), "answer": d.answer} for d in demos)
    return how.separator.join(fill(how.demo_format, values) for values in shown)


def demo_rows(demos: Sequence[Demo]) -> list[dict[str, str]]:
    """Demonstrations as a JSON list of {question, answer[, context]}; ids of examples stay here."""
    return [{"question": d.question, "answer": d.answer} | ({"context": d.context} if d.context else {}) for d in demos]


def join(parts: Sequence[str], how: Placement) -> str:
    return how.separator.join(part for part in parts if part)


def guidance_text(guidance: Guidance, how: Placement, *, demos_apart: bool) -> str:
    """The guidance on its own; demonstrations follow it as text unless they have a place apart."""
    return join([guidance.text, "" if demos_apart else demo_text(guidance.demos, how)], how)


def prompt_text(task: Task, how: Placement, *, demos_apart: bool = False) -> str:
    """Everything in one text, for an agent that takes one; without the guidance when that is a field of its own."""
    question = asked(task.question, how)
    if how.guidance == "field":
        return question
    demos = "" if demos_apart else demo_text(task.guidance.demos, how)
    if how.guidance == "suffix":
        return join([demos, question, task.guidance.text], how)
    return join([task.guidance.text, demos, question], how)


def chat_turns(
    task: Task, how: Placement, *, system: str = "", replace_system: bool = True, reply: str = "Understood."
) -> tuple[Message, ...]:
    """The request as chat: system prompt, demonstrations as turns, the question. `reply` answers guidance given as a turn,
    because chat templates want user and assistant to alternate."""
    text = task.guidance.text
    question = asked(task.question, how)
    opening: list[Message] = []
    if text and how.guidance == "system":
        system = text if replace_system else join([system, text], how)
    elif text and how.guidance == "prefix":
        question = join([text, question], how)
    elif text and how.guidance == "suffix":
        question = join([question, text], how)
    elif text and how.guidance == "turns":
        opening = [Message("user", text), Message("assistant", reply)]
    head = [Message("system", system)] if system else []
    for demo in task.guidance.demos:
        opening.append(Message("user", asked(Question(demo.example_id, demo.question, demo.context), how)))
        opening.append(Message("assistant", demo.answer))
    return (*head, *opening, Message("user", question))


def few_shot_text(task: Task, how: Placement, *, instruction: str, input_label: str, output_label: str) -> str:
    """The request as a plain completion: instruction, then labelled pairs, then the open pair that the model completes."""

    def pair(question: str, answer: str) -> str:
        return f"{input_label} {question}\n{output_label}{answer}"

    shown = [pair(asked(Question(d.example_id, d.question, d.context), how), " " + d.answer) for d in task.guidance.demos]
    return join([instruction, *shown, pair(asked(task.question, how), "")], how)


# -- settings ---------------------------------------------------------------------------------------------------------


def no_place_for(settings: Mapping[str, Scalar], places: Sequence[str], agent: str) -> CallError | None:
    """The error for the first setting that this agent cannot take; a setting is never dropped in silence."""
    for name in settings:
        if name not in places:
            known = ", ".join(sorted(places)) or "none"
            return BadRequest(f"{agent} has no place for the setting {name!r} of the candidate; it takes: {known}")
    return None


def encoded(text: str, what: str) -> bytes:
    """UTF-8 bytes of a text that leaves the process; BadRequest for a lone surrogate, which has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(f"{what} contains a lone surrogate at character {error.start}, which has no UTF-8 form") from None
