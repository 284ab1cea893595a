"""Students and judges for training tests, loaded by their file name: each answers at once and says the same for the same guidance."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def graded(question: str, guidance: str) -> str:
    """Perfect alone, and worse with any guidance: a number between .1 and .6, by the guidance."""
    if not guidance:
        return "1.0"
    return str(round(0.1 + 0.5 * int(hashlib.sha256(guidance.encode()).hexdigest()[:4], 16) / 65535, 3))


def read(output: str, example: object) -> float:
    """A judge: the number that the student said."""
    return float(output)


def read_half(output: str, example: object) -> float:
    """Judges of another family: half of it."""
    return float(output) / 2


def fragile(question: str, guidance: str) -> str:
    """`graded`, and down as soon as a file named by the environment is there; fails at once for guidance with the word "fail"."""
    if "fail" in guidance:
        raise RuntimeError("this guidance cannot be read")
    if (switch := os.environ.get("STUDENT_DOWN")) and Path(switch).exists():
        raise ConnectionError("nobody answers")
    return graded(question, guidance)


def coin(question: str, guidance: str) -> str:
    """Right three times in four: which times, the process remembers."""
    _seen.append(question)
    return "0.0" if len(_seen) % 4 == 0 else "1.0"


_seen: list[str] = []
