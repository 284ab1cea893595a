"""reflect: a language model reads a minibatch of the parent's lessons and answers with item-wise edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gepa_atlas import pieces as p
from gepa_atlas.errors import BudgetExhausted, CallError
from gepa_atlas.ports import Brief, ChatModel
from gepa_atlas.propose import reading
from gepa_atlas.propose.drafts import clip, editable, objection, pick
from gepa_atlas.propose.evidence import failing, solved
from gepa_atlas.settings import Settings
from gepa_atlas.types import Draft, Lesson


class ReflectOptions(Settings):
    form: Literal["edits", "rewrite"] = "edits"
    minibatch: int = 9  # lessons shown: failures, and one success for contrast
    max_edits: int = 3
    max_tokens: int = 1500
    temperature: float = 0.7
    show_answers: bool = True  # show the accepted answers of these train examples
    copy_words: int = 12  # so many words of a question in a row are a copy, and refused
    memory: int = 4  # rejected edits, and edits of better siblings, shown


class Reflect:
    name = "reflect"

    def __init__(self, model: ChatModel, options: ReflectOptions | None = None) -> None:
        self._model = model
        self._options = options or ReflectOptions()

    async def propose(self, brief: Brief) -> Draft:
        lessons = minibatch(brief, self._options.minibatch)
        if not lessons:
            return Draft(None, "the parent fails at none of the lessons that may be read: there is nothing to reflect on")
        return await reflect(brief, self._model, self._options, self.name, lessons)


def minibatch(brief: Brief, n: int) -> list[Lesson]:
    """Up to n lessons without a repeated example: failures drawn at random, worse ones first, and one success."""
    left = list({x.example.id: x for x in reversed(failing(brief.lessons))}.values())
    right = solved(brief.lessons)
    room = max(1, n - (1 if right and n > 1 else 0))
    chosen: list[Lesson] = []
    while left and len(chosen) < room:
        lesson = pick(brief.rng, left, [1.05 - (x.after.value or 0.0) for x in left])
        left.remove(lesson)
        chosen.append(lesson)
    if chosen and right and n > 1:
        chosen.append(pick(brief.rng, right))
    return chosen


async def reflect(
    brief: Brief, model: ChatModel, options: ReflectOptions, origin: str, lessons: Sequence[Lesson], focus: str = "", why: str = ""
) -> Draft:
    """Ask for edits (or whole texts) against these lessons and build the child; every other outcome is a reason."""
    data = {
        "instructions": reading.shown_candidate(brief),
        "demonstrations_shown_to_the_agent": len(brief.parents[0].demos),
        "lessons": [reading.shown_lesson(x, at, options.show_answers) for at, x in enumerate(lessons, 1)],
        "tried_before_and_rejected": reading.contrast(brief, brief.rejected, options.memory),
        "how_other_good_versions_differ": reading.contrast(brief, brief.mates, options.memory),
    }
    if focus:
        data["focus"] = clip(focus, reading.FIELD)
    names = [c.name for c in editable(brief)]
    values = {
        "focus": "\nWork on the failure named under `focus`, and on nothing else.\n" if focus else "",
        "max_edits": str(options.max_edits),
        "names": ", ".join(names),
    }
    rewrite = options.form == "rewrite"
    asked = reading.request(
        "revise" if rewrite else "reflect",
        data,
        values,
        _texts_schema(names) if rewrite else _edits_schema(names, options.max_edits),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=int(brief.rng.integers(2**31)),
    )
    try:
        completion = await model.complete(asked)
    except CallError as error:
        return Draft(None, f"the reflection model failed: {error.kind}: {clip(str(error), 200)}")
    except BudgetExhausted as error:
        return Draft(None, f"the reflection model was not asked: {error}")
    answer = reading.parse(completion.text, completion.finish)
    if isinstance(answer, str):
        return Draft(None, answer)
    texts = _whole_texts(answer, names) if rewrite else edited(brief, answer, options.max_edits)
    if isinstance(texts, str):
        return Draft(None, texts)
    return _sound(brief, texts, options, origin, lessons, why or _diagnosis(answer))


def _sound(brief: Brief, texts: Mapping[str, str], options: ReflectOptions, origin: str, lessons: Sequence[Lesson], note: str) -> Draft:
    """The child with these texts, if nothing speaks against it."""
    parent = brief.parents[0]
    for name, new in texts.items():
        if not new.strip() and parent.text(name).strip():
            return Draft(None, f"the reflection model left component {name!r} empty")
        doubt = reading.distrust(new, parent.text(name), lessons, options.copy_words)
        if doubt:
            return Draft(None, doubt)
    child = parent.child(origin, texts=texts)
    problem = objection(brief, child)
    return Draft(None, problem) if problem else Draft(child, clip(note, 300))


def edited(brief: Brief, answer: Mapping[str, Any], max_edits: int) -> dict[str, str] | str:
    """New texts by component after all edits of an answer, or the first edit's fault in one line. Numbers mean the parent's items."""
    edits = answer.get("edits")
    if not isinstance(edits, list) or not edits:
        return "the reflection model proposed no edits"
    if len(edits) > max_edits:
        return f"the reflection model proposed {len(edits)} edits; the limit is {max_edits}"
    parent = brief.parents[0]
    names = [c.name for c in editable(brief)]
    sheets: dict[str, list[tuple[p.Piece, int]]] = {}  # items with the number they had in the parent, 0 for new ones
    for number, edit in enumerate(edits, 1):
        if not isinstance(edit, dict):
            return f"edit {number} is not an object"
        name, op, item, text = (edit.get(key) for key in ("component", "op", "item", "text"))
        if name not in names:
            return f"edit {number} names component {clip(repr(name), 60)}; there are {', '.join(names)}"
        if op not in ("add", "replace", "drop"):
            return f"edit {number} has op {clip(repr(op), 60)}, not add, replace or drop"
        if op != "drop" and (not isinstance(text, str) or not text.strip()):
            return f"edit {number} has no text"
        sheet = sheets.setdefault(name, [(piece, at) for at, piece in enumerate(p.split(parent.text(name)), 1)])
        where = _position(sheet, op, item)
        if where is None:
            return f"edit {number} names item {clip(repr(item), 60)}, which {name!r} does not have"
        bodies = [piece for piece, _ in sheet]
        marks = [mark for _, mark in sheet]
        if op == "add":
            bodies, marks = list(p.insert(bodies, where, str(text).strip())), [*marks[:where], 0, *marks[where:]]
        elif op == "replace":
            bodies = list(p.swap_in(bodies, where, str(text).strip()))
        else:
            bodies, marks = list(p.drop(bodies, [where])), [*marks[:where], *marks[where + 1 :]]
        sheets[name] = list(zip(bodies, marks, strict=True))
    return {name: p.join([piece for piece, _ in sheet]) for name, sheet in sheets.items()}


def _position(sheet: Sequence[tuple[p.Piece, int]], op: str, item: object) -> int | None:
    """Where in the sheet an edit applies; None when the parent had no such item or it is gone."""
    if op == "add" and item is None:
        return len(sheet)
    if isinstance(item, bool) or not isinstance(item, int):
        return None
    if op == "add" and item == 0:
        return 0
    at = next((at for at, (_, mark) in enumerate(sheet) if mark == item and mark > 0), None)
    return at if at is None or op != "add" else at + 1


def _whole_texts(answer: Mapping[str, Any], names: Sequence[str]) -> dict[str, str] | str:
    texts = answer.get("texts")
    if not isinstance(texts, dict) or not texts:
        return "the reflection model proposed no texts"
    for name, text in texts.items():
        if name not in names:
            return f"the reflection model wrote component {clip(repr(name), 60)}; there are {', '.join(names)}"
        if not isinstance(text, str):
            return f"the reflection model's text for {name!r} is a {type(text).__name__}"
    return {name: text.strip() for name, text in texts.items()}


def _diagnosis(answer: Mapping[str, Any]) -> str:
    said = answer.get("diagnosis")
    return said.strip() if isinstance(said, str) and said.strip() else "edited after reading lessons"


def _edits_schema(names: Sequence[str], most: int) -> dict[str, Any]:
    edit = {
        "type": "object",
        "properties": {
            "component": {"enum": list(names)},
            "op": {"enum": ["add", "replace", "drop"]},
            "item": {"type": ["integer", "null"]},
            "text": {"type": "string"},
        },
        "required": ["component", "op", "item", "text"],
        "additionalProperties": False,
    }
    edits = {"type": "array", "items": edit, "minItems": 1, "maxItems": most}
    return _object({"diagnosis": {"type": "string"}, "edits": edits})


def _texts_schema(names: Sequence[str]) -> dict[str, Any]:
    return _object({"diagnosis": {"type": "string"}, "texts": _object({name: {"type": "string"} for name in names})})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
