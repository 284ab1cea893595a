"""Text that is evolved is data: one-pass named substitution, contracts checked before a candidate costs anything.

`str.format` is never used on evolved text: a brace in a prompt or a question is a brace (`reference`: format-string attacks).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gepa_atlas.types import Candidate, Component

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` for each declared name, once, left to right; what was put in is never looked at again."""
    if not values:
        return template
    names = "|".join(re.escape(name) for name in sorted(values, key=len, reverse=True))
    return re.sub(r"\{(" + names + r")\}", lambda found: values[found[1]], template)


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
