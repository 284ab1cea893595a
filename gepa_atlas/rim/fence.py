"""What a judge reads of a student is data: cleaned, JSON-encoded, and held between markers that it cannot have foreseen.

The nonce is a digest of what is fenced, so the same content gives the same request (and the same call key), while a text that
contains its own marker would have to contain its own hash. `<` and `>` are escaped inside, so that no marker and no chat-template
token can be closed or opened from there. Fencing stops careless injections, not optimised ones: a panel of several model families,
program judges and canaries are what stands behind it (2504.18333, 2507.08794).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping

VERSION = 1

# Letters that change how text reads without being seen: bidirectional controls and the invisible tag block.
_INVISIBLE = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF, *range(0xE0000, 0xE0080)]))

# Openers that carry no answer and still collect points from model judges (2507.08794).
_MASTER_KEYS = frozenset(
    [
        "thought process",
        "let's solve this problem step by step",
        "let's solve this step by step",
        "let's think step by step",
        "solution",
        "answer",
        "final answer",
        "the answer is",
        "explanation",
        "reasoning",
        "step 1",
        "解",
        "答案",
        "かいせつ",
        "respuesta",
        "solución",
        "lösung",
        "réponse",
    ]
)


# What an answer says to its grader rather than to whoever asked.
_STEERING = re.compile(
    r"(?:give|assign|award|grant|rate)\s+(?:this|the|my|it|me)\b[^.\n]{0,60}\b(?:score|grade|rating|mark|points|full|perfect|maximum|10/10|1\.0)"
    r"|\bscore\s+(?:of|is|:|=)\s*(?:1(?:\.0+)?|10(?:/10)?|100)\b"
    r"|[\"']score[\"']\s*:\s*[0-9.]"
    r"|(?:ignore|disregard|forget)\s+(?:all\s+|any\s+|the\s+|your\s+)*(?:previous|prior|above|earlier|grading|rubric)"
    r"|(?:note|message|instructions?)\s+(?:to|for)\s+(?:the\s+)?(?:grader|judge|evaluator|reviewer|examiner)"
    r"|</?data-|<\|(?:im_start|im_end|system|endoftext)\|?>?|\[/?INST\]",
    re.IGNORECASE,
)


def steers(output: str) -> bool:
    """Whether the answer speaks to its grader. A sign, not a proof: it caps a score only where the configuration asks for that."""
    return _STEERING.search(clean(output)) is not None


def clean(text: str, limit: int = 60_000) -> str:
    """`text` without control and invisible direction characters and lone surrogates; its middle cut out beyond `limit`."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or (c not in _INVISIBLE and unicodedata.category(c) not in ("Cc", "Cs")))


_encode = json.JSONEncoder(ensure_ascii=False).encode


def fenced(fields: Mapping[str, str], limit: int = 60_000) -> str:
    """The fields as one JSON document between markers named after their content."""
    # One field a line by hand: json's own indenting is ten times slower, and this is on the path of every call.
    lines = (f"{_encode(name)}: {_encode(clean(text, limit))}" for name, text in fields.items())
    body = "{\n" + ",\n".join(lines) + "\n}"
    body = body.replace("<", "\\u003c").replace(">", "\\u003e")
    nonce = hashlib.sha256(body.encode()).hexdigest()[:16]
    return f"<data-{nonce}>\n{body}\n</data-{nonce}>"


def degenerate(output: str) -> bool:
    """Nothing was answered: no letter, digit or symbol, or only an opener such as "Thought process:"."""
    text = clean(output[:2000]).strip()
    if not any(unicodedata.category(c)[0] in "LNS" for c in text):
        return True
    return text.casefold().strip(" \t\n.:;,!*#_`\"'“”…-") in _MASTER_KEYS
