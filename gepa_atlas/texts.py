"""Text that is evolved is data: one-pass named substitution, contracts checked before a candidate costs anything.

`str.format` is never used on evolved text: a brace in a prompt or a question is a brace (`reference`: format-string attacks).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gepa_atlas.types import Candidate, Component

_PIECE = re.compile(r"\w+|[^\w\s]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` for each declared name, once, left to right; what was put in is never looked at again."""
    if not values:
        return template
    names = "|".join(re.escape(name) for name in sorted(values, key=len, reverse=True))
    return re.sub(r"\{(" + names + r")\}", lambda found: values[found[1]], template)


def tokens(text: str) -> int:
    """About how many tokens a model makes of `text`, without its tokenizer: four ASCII characters of a word, or one other character."""
    return sum(_weight(piece) for piece in _PIECE.findall(text))


def cut(text: str, limit: int) -> str:
    """The beginning of `text` of at most about `limit` tokens; it ends with a sentence where one ends in the second half."""
    left, end = limit, 0
    for piece in _PIECE.finditer(text):
        if _weight(piece[0]) > left:
            end = piece.start() + max((n for n in range(len(piece[0]) + 1) if _weight(piece[0][:n]) <= left), default=0)
            break
        left, end = left - _weight(piece[0]), piece.end()
    else:
        return text
    kept = text[:end].rstrip()
    stops = [m.end() for m in re.finditer(r"[.!?](?=\s|$)|\n", kept)]
    return kept[: stops[-1]].rstrip() if stops and stops[-1] > len(kept) / 2 else kept


def _weight(piece: str) -> int:
    plain = sum(c.isascii() for c in piece)
    return -(-plain // 4) + len(piece) - plain


def broken_contract(candidate: Candidate, components: Sequence[Component]) -> str | None:
    """One line that names the first rule the candidate breaks, or None."""
    known = {c.name: c for c in components}
    given = dict(candidate.texts)
    for name in given.keys() - known.keys():
        return f"component {name!r} is not one of {', '.join(sorted(known))}"
    for name, component in known.items():
        if name not in given:
            return f"component {name!r} is missing"
        text = given[name]
        for placeholder in component.placeholders:
            if "{" + placeholder + "}" not in text:
                return f"component {name!r} lost its required placeholder {{{placeholder}}}"
        if len(text) > component.max_chars:
            return f"component {name!r} has {len(text)} characters; the limit is {component.max_chars}"
        if _CONTROL.search(text):
            return f"component {name!r} contains a control character or a lone surrogate"
    return None


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks: the unit of n-gram comparisons."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def shingles(text: str, n: int = 3) -> frozenset[tuple[str, ...]]:
    tokens = words(text)
    if len(tokens) < n:
        return frozenset([tuple(tokens)]) if tokens else frozenset()
    return frozenset(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of word trigrams in [0, 1]; 1.0 for texts that differ in case or spacing only."""
    left, right = shingles(a), shingles(b)
    if not left and not right:
        return 1.0
    return len(left & right) / len(left | right)
