"""Reading `<teaching>` and its kin from what a model wrote: tags may be nested, repeated, unclosed, upper-case or missing."""

from __future__ import annotations

import re


def inside(text: str, tag: str) -> str | None:
    """The content of the last outermost `<tag>` block, or None when the tag never opens or closes.

    A block that never closes runs to the end (the model was cut), one that never opens starts at the beginning.
    A tag nested in itself is one block; the inner marks are removed.
    """
    marks = list(re.finditer(rf"<\s*(/?)\s*{re.escape(tag)}\s*>", text, re.IGNORECASE))
    if not marks:
        return None
    depth, start, blocks = 0, 0, []
    for mark in marks:
        if not mark[1]:
            start = mark.end() if depth == 0 else start
            depth += 1
        elif depth > 0:
            depth -= 1
            if depth == 0:
                blocks.append(text[start : mark.start()])
        elif not blocks:
            blocks.append(text[: mark.start()])
    if depth > 0:
        blocks.append(text[start:])
    filled = [b for b in blocks if b.strip()] or blocks
    return re.sub(rf"<\s*/?\s*{re.escape(tag)}\s*>", "", filled[-1], flags=re.IGNORECASE).strip()


def without(text: str, tag: str) -> str:
    """`text` with every block of `tag` cut out, an unclosed one to its end."""
    name = re.escape(tag)
    text = re.sub(rf"<\s*{name}\s*>.*?<\s*/\s*{name}\s*>", "", text, flags=re.IGNORECASE | re.DOTALL)
    text = re.sub(rf"<\s*{name}\s*>.*\Z", "", text, flags=re.IGNORECASE | re.DOTALL)
    return re.sub(rf"<\s*/\s*{name}\s*>", "", text, flags=re.IGNORECASE).strip()


def teaching(text: str) -> str:
    """What a teacher meant for the student: `<teaching>` if there is one, otherwise all but its `<thinking>`."""
    outside = without(text, "thinking")
    for source in (outside, text):
        found = inside(source, "teaching")
        if found:
            return found
    return without(outside, "teaching")


def solution(text: str) -> str:
    """A student's final answer: `<solution>` if there is one, otherwise all but its `<thinking>`."""
    return inside(without(text, "thinking"), "solution") or inside(text, "solution") or without(text, "thinking")
