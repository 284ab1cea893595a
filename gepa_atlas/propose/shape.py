"""Instructions read off the train answers: their labels, form, length and case. What a person would say about the data at a glance."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from gepa_atlas.types import Demo

MANY = 4  # answers below which nothing is inferred


def fragments_of(pool: tuple[Demo, ...]) -> tuple[str, ...]:
    """Sentences that are true of (nearly) all answers of the pool, most telling first; none for a small pool."""
    answers = [d.answer.strip() for d in pool if d.answer.strip()]
    if len(answers) < MANY:
        return ()
    found = [*_labels(answers), *_json_keys(answers), *_mask(answers), *_numbers(answers), *_case(answers), *_length(answers)]
    copied = sum(d.answer.strip() in d.question + "\n" + d.context for d in pool)
    if copied >= 0.9 * len(pool):
        found.append("Copy the answer from the text exactly as it is written there.")
    return tuple(dict.fromkeys(found))


def _labels(answers: Sequence[str]) -> list[str]:
    distinct = sorted(set(answers), key=lambda a: (-answers.count(a), a))
    if not 2 <= len(distinct) <= 12 or len(distinct) * 2 > len(answers) or max(map(len, distinct)) > 40:
        return []
    listed = ", ".join(distinct)
    last = " or ".join([", ".join(distinct[:-1]), distinct[-1]])
    return [f"Answer with exactly one of: {listed}.", f"Classify the text as {last}.", f"Reply with one label, {last}, and nothing else."]


def _json_keys(answers: Sequence[str]) -> list[str]:
    keys: set[tuple[str, ...]] = set()
    for answer in answers:
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict):
            return []
        keys.add(tuple(value))
    if len(keys) != 1:
        return ["Answer with one JSON object and nothing else."]
    names = ", ".join(f'"{k}"' for k in keys.pop())
    return [f"Answer with one JSON object with the keys {names}, in this order, and nothing else.", "Write the JSON on one line."]


def _mask(answers: Sequence[str]) -> list[str]:
    """One form for all, as in AA-9999: when it is not plain words or digits."""
    masks = {re.sub(r"[a-z]", "a", re.sub(r"[A-Z]", "A", re.sub(r"\d", "9", a))) for a in answers}
    if len(masks) > 1 or len(set(answers)) < MANY:
        return _affix(answers)
    mask = masks.pop()
    if len(mask) > 30 or re.fullmatch(r"[Aa]+|9+", mask):
        return _affix(answers)
    return [f"The answer has the form {mask}, where 9 is a digit and A or a is a letter.", *_affix(answers)]


def _affix(answers: Sequence[str]) -> list[str]:
    """A beginning that all share, cut back to a whole token."""
    first, last = min(answers), max(answers)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    start = re.sub(r"[\w.]+$", "", first[:same]) or (first[:same] if same >= 3 else "")
    return [f'Start the answer with "{start.strip()}".'] if len(set(answers)) > 1 and len(start.strip()) >= 2 else []


def _numbers(answers: Sequence[str]) -> list[str]:
    if all(re.fullmatch(r"-?\d+", a) for a in answers):
        return ["Answer with a whole number in digits and nothing else.", "Give only the final number, without units or words."]
    if all(re.fullmatch(r"-?[\d.,]+", a) for a in answers):
        return ["Answer with a number in digits and nothing else."]
    return []


def _case(answers: Sequence[str]) -> list[str]:
    lettered = [a for a in answers if any(c.isalpha() for c in a)]
    if len(lettered) < MANY:
        return []
    if all(a == a.lower() for a in lettered):
        return ["Write the answer in lowercase letters."]
    if all(a == a.upper() for a in lettered):
        return ["Write the answer in CAPITAL letters."]
    return []


def _length(answers: Sequence[str]) -> list[str]:
    counts = [len(a.split()) for a in answers]
    if max(counts) == 1:
        return ["Answer with exactly one word."] if all(a.isalpha() for a in answers) else []
    if min(counts) == max(counts):
        return [f"Answer with exactly {max(counts)} words."] if max(counts) <= 12 else []
    if max(counts) <= 12:
        return [f"Answer in at most {max(counts)} words."]
    return []
