"""What changed between two texts: by line first, then by word inside the lines that differ. Pure; lossless on both sides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Op = Literal["=", "-", "+"]

_WORDS = re.compile(r"\n|\S+[^\S\n]*|[^\S\n]+")
_FINE = 4_000_000  # words times words up to which a block is compared word by word


class Piece(NamedTuple):
    """`=` stands in both texts, `-` in the old one only, `+` in the new one only."""

    op: Op
    text: str


def pieces(old: str, new: str) -> list[Piece]:
    """The old text is the join of all but `+`, the new one of all but `-`. Neighbours of one kind are one piece."""
    found: list[Piece] = []
    a, b = old.splitlines(keepends=True), new.splitlines(keepends=True)
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        before, after = "".join(a[i1:i2]), "".join(b[j1:j2])
        if tag == "replace":
            found += _by_word(_WORDS.findall(before), _WORDS.findall(after))
        elif tag == "equal":
            found.append(Piece("=", before))
        else:
            found += [Piece("-", before), Piece("+", after)]
    return _merged(found)


def edits(old: str, new: str) -> list[int | str]:
    """The same as a recipe: a number keeps so many characters of the old text, a negative one drops them, a text is put in."""
    size = {"=": 1, "-": -1}
    return [piece.text if piece.op == "+" else size[piece.op] * len(piece.text) for piece in pieces(old, new)]


def brief(found: Sequence[Piece], around: int = 80) -> list[Piece]:
    """The same with what stayed cut to about so many characters on either side of a change; a cut is an ellipsis."""
    if len(found) == 1:
        return list(found)
    last = len(found) - 1
    return [p if p.op != "=" else Piece("=", _cut(p.text, around if i else 0, around if i < last else 0)) for i, p in enumerate(found)]


def _cut(text: str, head: int, tail: int) -> str:
    """The first and the last characters of a stretch, by whole words."""
    if len(text) <= 2 * (head + tail):
        return text
    first = text[:head].rsplit(None, 1)[0] + " " if head else ""
    rest = text[len(text) - tail :].split(None, 1)[-1] if tail else ""
    return f"{first}… {rest}"


def _by_word(a: Sequence[str], b: Sequence[str]) -> list[Piece]:
    if len(a) * len(b) > _FINE:
        return [Piece("-", "".join(a)), Piece("+", "".join(b))]
    found = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Piece("=", "".join(a[i1:i2])))
        else:
            found += [Piece("-", "".join(a[i1:i2])), Piece("+", "".join(b[j1:j2]))]
    return found


def _merged(found: Sequence[Piece]) -> list[Piece]:
    """Between two stretches that stand in both: what was dropped, then what was put in."""
    merged: list[Piece] = []
    gone, come = "", ""

    def flush() -> None:
        nonlocal gone, come
        merged.extend(piece for piece in (Piece("-", gone), Piece("+", come)) if piece.text)
        gone, come = "", ""

    for op, text in found:
        if op == "-":
            gone += text
        elif op == "+":
            come += text
        elif text:
            flush()
            if merged and merged[-1].op == "=":
                merged[-1] = Piece("=", merged[-1].text + text)
            else:
                merged.append(Piece("=", text))
    flush()
    return merged
