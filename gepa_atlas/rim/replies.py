"""Reading a judge's reply: near-JSON is repaired, a score is taken only when one is really there.

Repaired: code fences and prose around the document, trailing commas, Python's quotes and constants, line breaks inside strings, a
document cut off after its score was complete. Refused: no score, two different ones, a string, a bool, NaN, infinity, out of range.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

_MAX_CHARS = 100_000  # a reply is a few hundred characters; of a longer one only the ends are read
_MAX_STARTS = 40  # opening braces tried


@dataclass(frozen=True, slots=True)
class Reading:
    """Either a score in [0, 1] with what came along, or why there is none."""

    score: float | None
    rationale: str = ""
    principles: tuple[str, ...] = ()
    uncertainty: float | None = None  # as the judge says it of itself; recorded, never trusted
    flags: tuple[str, ...] = ()
    why: str = ""


def read_reply(text: str) -> Reading:
    """Never raises, whatever the text."""
    if len(text) > _MAX_CHARS:
        text = text[: _MAX_CHARS // 2] + "\n" + text[-_MAX_CHARS // 2 :]
    documents = [d for d in _documents(text) if "score" in d]
    if not documents:
        return Reading(None, why="the reply holds no JSON object with a score" if text.strip() else "the reply is empty")
    problems = [bad for d in documents if (bad := _refused(d["score"]))]
    if problems:
        return Reading(None, why=problems[0])
    if len({float(d["score"]) for d in documents}) > 1:
        return Reading(None, why="the reply gives several different scores")
    last = documents[-1]
    doubt = last.get("uncertainty")
    return Reading(
        abs(float(last["score"])),
        _text(last.get("rationale")),
        _principles(last.get("principles")),
        None if doubt is None or _refused(doubt) else float(doubt),
        _principles(last.get("flags")),
    )


_PREFERENCES = {"first": -1, "tie": 0, "second": 1}


def read_preference(text: str) -> tuple[int, str] | None:
    """(-1 first, 0 tie, 1 second; why) of a comparison, or None when none, or two different ones, are there."""
    if len(text) > _MAX_CHARS:
        text = text[: _MAX_CHARS // 2] + "\n" + text[-_MAX_CHARS // 2 :]
    documents = [d for d in _documents(text) if "preference" in d]
    said = {str(d["preference"]) for d in documents}
    if len(said) != 1 or not said <= _PREFERENCES.keys():
        return None
    return _PREFERENCES[said.pop()], _text(documents[-1].get("rationale"))


def _refused(value: Any) -> str | None:
    """Why `value` is not a score, or None. An integer too large for a float is out of range like any other."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"the score is {type(value).__name__}, not a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "the score is not finite"
    return None if 0 <= value <= 1 else "the score is outside [0, 1]"


def _documents(text: str) -> list[dict[str, Any]]:
    """Top-level JSON objects in `text`, each read strictly or else repaired; what stands inside a broken one is not looked at."""
    found: list[dict[str, Any]] = []
    decoder = json.JSONDecoder(object_pairs_hook=_pairs, strict=False)
    at = text.find("{")
    for _ in range(_MAX_STARTS):
        if at < 0:
            break
        try:
            document, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            body, closed = _balanced(text[at:])
            document, end = _mended(body) if closed else _cut_off(body), at + len(body)
        if document is not None:
            found.append(document)
        at = text.find("{", end)
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


_TRAILING = re.compile(r",(\s*[}\]])")


def _mended(body: str) -> dict[str, Any] | None:
    without_commas = _lenient(_TRAILING.sub(r"\1", body))
    return _lenient(body) if without_commas is None else without_commas


def _lenient(body: str) -> dict[str, Any] | None:
    try:
        document = json.loads(body, object_pairs_hook=_pairs, strict=False)
        return document if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a reply is nobody's warning
            tree = ast.parse(body.strip(), mode="eval").body  # Python's spelling: single quotes, True, None
        if not isinstance(tree, ast.Dict):
            return None
        keys = [ast.literal_eval(key) for key in tree.keys if key is not None]
        document = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    if len(document) != len(keys) or not all(isinstance(key, str) for key in keys):
        return None
    return dict(document)


def _balanced(text: str) -> tuple[str, bool]:
    """The text up to the brace that closes the first one, quotes respected; False when it never closes."""
    depth, quote, escaped = 0, "", False
    for i, c in enumerate(text):
        if quote:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == quote:
                quote = ""
        elif c == '"' or (c == "'" and (i == 0 or not text[i - 1].isalnum())):
            quote = c
        elif c in "{[":
            depth += 1
        elif c in "}]":
            depth -= 1
            if depth == 0:
                return text[: i + 1], True
    return text, False


# A score at the top level of a document that was cut off later: the number must be ended by something, or it may be half of one.
_SCORE = re.compile(r'"score"\s*:\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?=[,\n}])')


def _cut_off(body: str) -> dict[str, Any] | None:
    head = _outside_strings(body)
    if head.count('"score"') != 1:
        return None
    match = _SCORE.search(head)
    if match is None or _depth(head[: match.start()]) != 1:
        return None
    why = re.search(r'"rationale"\s*:\s*"((?:[^"\\]|\\.)*)', body[: match.start()])
    return {"score": float(match[1]), "rationale": why[1] if why else ""}


def _outside_strings(body: str) -> str:
    """`body` with the content of string values blanked (keys kept), so that a score inside a rationale is not one."""

    def blank(found: re.Match[str]) -> str:
        return found[0] if found["colon"] is not None else '"' + "_" * (len(found[0]) - 1)

    return re.sub(r'"(?:[^"\\]|\\.)*(?:"(?P<colon>(?=\s*:))?|\Z)', blank, body, flags=re.S)


def _depth(text: str) -> int:
    return sum(text.count(c) for c in "{[") - sum(text.count(c) for c in "}]")


def _text(value: Any) -> str:
    return value[:4000] if isinstance(value, str) else ""


def _principles(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    rows = (row.get("name") or row.get("principle") or "" if isinstance(row, dict) else row for row in value[:10])
    return tuple(row[:500] for row in rows if isinstance(row, str) and row)
