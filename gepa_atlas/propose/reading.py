"""What a reflection model is shown, and what is taken from its answer. Its input is untrusted data behind a nonce; so is its output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from gepa_atlas import pieces as p
from gepa_atlas.ports import Brief, ChatRequest
from gepa_atlas.propose.drafts import clip, editable
from gepa_atlas.secrets import scrub
from gepa_atlas.texts import fill, words
from gepa_atlas.types import Candidate, Lesson, Message, canonical, digest

FIELD = 1500  # characters of one question or answer that a model is shown
_REFUSAL = re.compile(
    r"^\W*(i['’]?m (very |so )?sorry|sorry\b|i apologi[sz]e|i can(not|['’]?t)\b|i am (unable|not able)\b|i won['’]?t\b"
    r"|as an ai\b|unfortunately,? i\b)",
    re.IGNORECASE,
)
_LINK = re.compile(r"https?://[^\s\"'<>)\]]+", re.IGNORECASE)


@cache
def prompt(name: str) -> tuple[str, str]:
    """System and user template of a prompt file."""
    system, user = (files("gepa_atlas.propose") / "prompts" / f"{name}.md").read_text("utf-8").split("=== user ===")
    return system.strip(), user.strip()


def request(name: str, data: Any, values: Mapping[str, str], schema: Any, *, max_tokens: int, temperature: float, seed: int) -> ChatRequest:
    """A request whose data is JSON between two marks that cannot occur in it."""
    shown = json.dumps(data, ensure_ascii=True, indent=1)
    nonce = digest(shown, 16)
    while nonce in shown:
        nonce = digest(nonce, 16)
    filled = {"placeholder_example": "{question}", "focus": "", **values, "data": shown, "nonce": nonce}
    system, user = (fill(part, filled) for part in prompt(name))
    messages = (Message("system", system), Message("user", user))
    return ChatRequest(messages, max_tokens=max_tokens, temperature=temperature, seed=seed, json_schema=canonical(schema))


def shown_candidate(brief: Brief) -> list[dict[str, Any]]:
    """The parent's components, their items numbered from 1."""
    parent = brief.parents[0]
    return [
        {
            "component": c.name,
            "purpose": c.purpose,
            "must_keep": ["{" + name + "}" for name in c.placeholders],
            "items": {str(at): item.text for at, item in enumerate(p.split(parent.text(c.name)), 1)},
        }
        for c in editable(brief)
    ]


def shown_lesson(lesson: Lesson, number: int, answers: bool) -> dict[str, Any]:
    """One lesson as a reflection model reads it."""
    row: dict[str, Any] = {"lesson": number, "question": clip(lesson.example.question, FIELD)}
    if lesson.example.context:
        row["context"] = clip(lesson.example.context, FIELD)
    row["answer_given"] = clip(lesson.second.output or "", FIELD)
    row["score"] = None if lesson.after.value is None else round(lesson.after.value, 3)
    if answers and lesson.example.answers:
        row["accepted_answers"] = [clip(a, FIELD) for a in lesson.example.answers[:3]]
    for key, text in (("feedback", lesson.after.rationale), ("teaching", lesson.guidance.text if lesson.protocol != "playbook" else "")):
        if text:
            row[key] = clip(text, FIELD)
    if lesson.delta is not None:
        row["gain_over_no_instructions"] = round(lesson.delta, 3)
    return row


def contrast(brief: Brief, others: Sequence[Candidate], limit: int) -> list[dict[str, Any]]:
    """How other candidates differ from the parent, item by item."""
    rows: list[dict[str, Any]] = []
    for other in others[-limit:]:
        theirs, changed = dict(other.texts), {}
        for component in editable(brief):
            mine, new = p.texts(brief.parents[0].text(component.name)), p.texts(theirs.get(component.name, ""))
            added, dropped = [clip(t, 300) for t in new if t not in mine], [clip(t, 300) for t in mine if t not in new]
            if added or dropped:
                changed[component.name] = {"added": added[:8], "dropped": dropped[:8]}
        if changed:
            rows.append(changed)
    return rows


def parse(text: str, finish: str) -> dict[str, Any] | str:
    """The JSON object of an answer, repaired once if it is nearly one; otherwise one line on why it cannot be read."""
    if finish != "stop":
        return f"the reflection model's answer was cut ({finish})"
    if not text.strip():
        return "the reflection model answered nothing"
    if _REFUSAL.match(text.strip()):
        return f"the reflection model refused: {clip(text.strip(), 80)!r}"
    for candidate in (text, _repaired(text)):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else f"the reflection model answered with a JSON {type(value).__name__}, not an object"
    return f"the reflection model's answer is not JSON: {clip(text.strip(), 80)!r}"


def _repaired(text: str) -> str:
    """From the first brace to the last, typographic quotes made plain outside, trailing commas removed."""
    start, end = text.find("{"), text.rfind("}")
    body = text[start : end + 1] if 0 <= start < end else text
    return re.sub(r",(\s*[}\]])", r"\1", body)


def distrust(new: str, old: str, lessons: Sequence[Lesson], copy_words: int) -> str | None:
    """Why a text that a model wrote must not become part of a prompt, or None."""
    if _REFUSAL.match(new.strip()):
        return f"the new text is a refusal: {clip(new.strip(), 80)!r}"
    links = set(_LINK.findall(new)) - set(_LINK.findall(old))
    if links:
        return f"the new text brings in a link: {clip(min(links), 80)!r}"
    if scrub(new) != new:
        return "the new text contains a secret"
    grams = _runs(new, copy_words)
    for lesson in lessons:
        if grams & (_runs(lesson.example.question, copy_words) - _runs(old, copy_words)):
            return f"the new text copies the question of example {lesson.example.id!r}"
    return None


def _runs(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
