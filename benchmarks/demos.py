"""A worked example as one line of a prompt, so that every optimizer can carry it in plain text and no sentence splitter cuts it."""

from __future__ import annotations

import json
import re

_MARK = "Example: "
_END = re.compile(r"(?<=[.!?]) ")


def line(question: str, answer: str) -> str:
    """`Example: {"input": ..., "output": ...}` in one line."""
    body = json.dumps({"input": question, "output": answer}, ensure_ascii=False)
    return _MARK + _END.sub(r"\\u0020", body)


def take(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text without its example lines, and those examples in order; a line that cannot be read stays text."""
    rest, found = [], []
    for row in text.splitlines():
        bare = row.strip().lstrip("-*• ").strip()
        pair = _pair(bare[len(_MARK) :]) if bare.startswith(_MARK) else None
        if pair is None:
            rest.append(row)
        else:
            found.append(pair)
    return "\n".join(rest).strip(), found


def _pair(body: str) -> tuple[str, str] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    if isinstance(value, dict) and isinstance(value.get("input"), str) and isinstance(value.get("output"), str):
        return value["input"], value["output"]
    return None
