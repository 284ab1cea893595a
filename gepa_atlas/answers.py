"""What a text finally answers, whether two answers say the same, and whether a text gives an answer away.

Numbers are exact: 1,000 is 1000, 0.75 is 3/4 is \\frac{3}{4}, 1.5e3 is 1.5 \\times 10^3. A unit counts when both sides have one, after
conversion (5 km is 5000 m); a side without a unit is compared by its number. Everything else is compared as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from gepa_atlas.tags import solution

_MAX_CHARS = 50_000
_MAX_EXPONENT = 300
WITHHELD = "[answer withheld]"

# unit: (kind, factor to the base unit of its kind)
_UNITS: dict[str, tuple[str, Fraction]] = {}


def _unit(kind: str, factor: str, *names: str) -> None:
    _UNITS.update({name: (kind, Fraction(factor)) for name in names})


_unit("length", "1", "m", "metre", "meter")
_unit("length", "1000", "km", "kilometre", "kilometer")
_unit("length", "1/100", "cm", "centimetre", "centimeter")
_unit("length", "1/1000", "mm", "millimetre", "millimeter")
_unit("length", "0.3048", "ft", "foot", "feet")
_unit("length", "0.0254", "in", "inch", "inche")  # "inches" less its s
_unit("length", "1609.344", "mi", "mile")
_unit("mass", "1", "kg", "kilogram")
_unit("mass", "1/1000", "g", "gram")
_unit("mass", "1/1000000", "mg", "milligram")
_unit("mass", "0.45359237", "lb", "pound")
_unit("time", "1", "s", "sec", "second")
_unit("time", "60", "min", "minute")
_unit("time", "3600", "h", "hr", "hour")
_unit("time", "86400", "day")
_unit("volume", "1", "l", "litre", "liter")
_unit("volume", "1/1000", "ml", "millilitre", "milliliter")
_unit("angle", "1", "°", "deg", "degree")
_unit("share", "1/100", "%", "percent")
_unit("dollars", "1", "$", "usd", "dollar")
_unit("dollars", "1/100", "cent", "¢")
_unit("euros", "1", "€", "eur", "euro")
_unit("yen", "1", "¥", "yen")

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_VALUE = re.compile(
    r"(?P<lead>[$€¥])?\s*(?P<sign>[-+])?\s*(?P<lead2>[$€¥])?\s*"
    rf"(?:(?:(?P<whole>\d+)\s+)?(?P<top>{_NUMBER})\s*/\s*(?P<bottom>{_NUMBER})|(?P<plain>{_NUMBER})(?:e(?P<exp>[-+]?\d{{1,4}}))?)"
    r"\s*(?P<unit>[a-z°%¢$€¥][a-z°%]*(?: [a-z]+)*)?",
)
_ANYWHERE = re.compile(rf"(?<![\w.])[-+]?[$€¥]?(?:\d+\s*/\s*\d+|(?:{_NUMBER})(?:e[-+]?\d{{1,4}})?)(?!\w*[\w/])", re.IGNORECASE)
_CUE = r"(?:answer|result|solution|total|value|equals?|get|gives?|obtain|choose|option|choice)\s*(?:should|must|will)?\s*(?:be|is|of|:|=)?"


@dataclass(frozen=True, slots=True)
class Value:
    """An answer in one spelling. `number` is None for what is no number; `unit` is a kind with its factor applied, or a word."""

    text: str
    number: Fraction | None = None  # as written
    unit: str = ""
    factor: Fraction = Fraction(1)


def final(text: str) -> str:
    """The answer that a text ends in: its last \\boxed{}, its <solution>, what follows "answer is" or "answer:", or all of it."""
    text = text[-_MAX_CHARS:]
    inner = solution(text)
    for source in (inner, text):
        if (found := boxed(source)) is not None:
            return found
    cues = list(re.finditer(r"(?i)\b(?:final\s+)?answer\s*(?:is|:|=)\s*(?P<said>[^\n]+)", inner))
    if cues:
        said = cues[-1]["said"].strip()
        return re.split(r"\.(?:\s|$)", said, maxsplit=1)[0].strip(" *`")
    return inner.strip()


def boxed(text: str) -> str | None:
    """The content of the last \\boxed{...} or \\fbox{...}, braces balanced; one that never closes runs to the end."""
    marks = list(re.finditer(r"\\(?:boxed|fbox)\s*\{", text))
    if not marks:
        return None
    depth, start = 1, marks[-1].end()
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[start:at].strip()
    return text[start:].strip()


def same(given: str, gold: str) -> bool:
    """Whether two answers say the same. Neither is searched for an answer: see `final`."""
    ours, theirs = _parts(given), _parts(gold)
    return len(ours) == len(theirs) and all(map(_equal, map(normal, ours), map(normal, theirs)))


def normal(text: str) -> Value:
    """One spelling of one answer."""
    plain = _plain(text)
    found = _VALUE.fullmatch(plain.casefold())
    if found is None:
        return Value(_words(plain))
    number = _number(found)
    if number is None:
        return Value(_words(plain))
    kind, factor = _known_unit(found["lead"] or found["lead2"] or found["unit"] or "")
    return Value(_words(plain), number, kind, factor)


def _equal(a: Value, b: Value) -> bool:
    if a.number is None or b.number is None:
        return a.text == b.text
    if not a.unit or not b.unit:
        shares = any(v.unit == "share" for v in (a, b))
        return a.number == b.number or (shares and a.number * a.factor == b.number * b.factor)
    return a.unit == b.unit and a.number * a.factor == b.number * b.factor


def _number(found: re.Match[str]) -> Fraction | None:
    try:
        if found["plain"] is not None:
            exponent = int(found["exp"] or 0)
            if abs(exponent) > _MAX_EXPONENT:
                return None
            value = Fraction(found["plain"].replace(",", "")) * Fraction(10) ** exponent
        else:
            value = Fraction(found["top"].replace(",", "")) / Fraction(found["bottom"].replace(",", "")) + int(found["whole"] or 0)
    except (ValueError, ZeroDivisionError):
        return None
    return -value if found["sign"] == "-" else value


def _known_unit(written: str) -> tuple[str, Fraction]:
    name = written.strip().rstrip(".")
    for form in (name, name.removesuffix("s"), name.removesuffix("es")):
        if form in _UNITS:
            return _UNITS[form]
    return name.removesuffix("s"), Fraction(1)


def _parts(text: str) -> list[str]:
    """The members of a tuple or set "(1, 2)"; otherwise the text itself."""
    plain = _plain(text)
    if len(plain) > 2 and plain[0] + plain[-1] in ("()", "[]", "{}") and "," in plain:
        return [part for part in re.split(r",\s*(?!\d{3}(?:\D|$))|,\s+", plain[1:-1])]
    return [text]


def _plain(text: str) -> str:
    """Without LaTeX, in ASCII signs, on one line."""
    text = text[-_MAX_CHARS:].strip()
    inner = boxed(text)
    text = inner if inner is not None else text
    text = text.replace("\u2212", "-").replace("\u2044", "/").replace("\u202f", ",").replace("\\%", "%").replace("\\$", "$")
    text = re.sub(r"^(\$\$?|\\\(|\\\[)(.*?)(\$\$?|\\\)|\\\])$", r"\2", text, flags=re.DOTALL)
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree", "°", text)
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2", text)
    text = re.sub(r"\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2", text)
    text = re.sub(r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad)(?![a-zA-Z])|\\ |~", " ", text)
    text = re.sub(r"\s*(?:\\times|\\cdot|×|\*|x)\s*10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?", r"e\1", text)
    text = re.sub(r"(?<=\d)\{,\}(?=\d)", ",", text)
    text = " ".join(text.split()).strip("*` ")
    text = re.sub(r"([-+]) (?=[\d.])", r"\1", text)
    return text.rstrip(".;,!").strip() if not text.endswith("...") else text


def _words(plain: str) -> str:
    text = plain.casefold().strip("\"'“”‘’ ")
    choice = re.fullmatch(r"\(?([a-z])\)?[.:]?", text)
    return choice[1] if choice else re.sub(r"\s+", " ", text)


# -- giving an answer away --------------------------------------------------------------------------------------------


def given_away(text: str, answers: Sequence[str], seen: Sequence[str] = ()) -> tuple[tuple[int, int], ...]:
    """Where `text` states one of the accepted answers, as (start, end), in order and without overlap.

    What stands in `seen` (the question, its context, what the student said itself) is no secret. Answers that turn up by themselves,
    such as small whole numbers, single letters, yes and no, count only where they are presented as the answer.
    """
    known = "\n".join(seen)
    spans = sorted({span for answer in answers for span in _places(text, answer, known)})
    kept: list[tuple[int, int]] = []
    for start, end in spans:
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return tuple(kept)


def withhold(text: str, answers: Sequence[str], seen: Sequence[str] = ()) -> str:
    """`text` with every place that gives an accepted answer away masked."""
    for start, end in reversed(given_away(text, answers, seen)):
        text = text[:start] + WITHHELD + text[end:]
    return text


def _places(text: str, answer: str, known: str) -> list[tuple[int, int]]:
    value = normal(answer)
    if value.number is None:
        return _phrases(text, value.text, known)
    if any(_is_number(m[0], value) for m in _ANYWHERE.finditer(known)):
        return []
    found = [m.span() for m in _ANYWHERE.finditer(text) if _is_number(m[0], value)]
    found += [m.span() for m in re.finditer(r"\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}", text) if _is_number(m[0], value)]
    common = value.number.denominator == 1 and abs(value.number) <= 10
    return [span for span in found if not common or _presented(text, *span)]


def _is_number(written: str, value: Value) -> bool:
    found = normal(written)
    return found.number is not None and found.number == value.number


def _phrases(text: str, answer: str, known: str) -> list[tuple[int, int]]:
    if not answer:
        return []
    words = [re.escape(word) for word in answer.split()]
    pattern = re.compile(r"(?<!\w)" + r"\s+".join(words) + r"(?!\w)", re.IGNORECASE)
    common = len(answer) <= 3
    if pattern.search(known) and not common:
        return []
    return [m.span() for m in pattern.finditer(text) if not common or _presented(text, *m.span())]


def _presented(text: str, start: int, end: int) -> bool:
    """Whether what stands there is called the answer: "the answer is 4", "x = 4" at the end of a line, "\\boxed{4}"."""
    before = text[max(0, start - 40) : start]
    if re.search(r"\\boxed\s*\{\s*$|" + _CUE + r"\s*[\"'(*$`]*\s*$", before, re.IGNORECASE):
        return True
    return re.search(r"=\s*[$*]*\s*$", before) is not None and re.match(r"[\s.*$)]*(?:\n|$)", text[end:]) is not None
