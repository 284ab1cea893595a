"""Lessons by number, the same in every process: what a writer writes and what a check expects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gepa_atlas.memory.rows import Trace, lesson

OPERATIONS = 20
START = 1_700_000_000.0
SHARED = 0.1  # of a writer's lessons, written by every writer
_USAGE = {"input_tokens": 120, "output_tokens": 30, "dollars": 0.0, "seconds": 0.4, "calls": 1}


def line(number: int, after: float, example: int) -> dict[str, Any]:
    """About 1.4 kB, as a line of a playbook run."""

    def attempt(text: str) -> dict[str, Any]:
        return {"output": text, "usage": _USAGE, "stop": "done", "messages": [], "error": None}

    def reward(value: float) -> dict[str, Any]:
        part = {"judge": "exact", "value": value, "rationale": "", "uncertainty": 0.0, "missing": None}
        return {"value": value, "parts": [part], "rationale": "", "uncertainty": 0.0, "missing": None}

    before = float(number % 7 == 0)
    return {
        "example": {
            "id": f"e{example}",
            "question": f"Ticket {example} names a part and asks what it is for.",
            "answers": ["x"],
            "split": "val",
        },
        "candidate": f"c{number % 97}",
        "sample": number // 9700,
        "protocol": "playbook",
        "baseline": attempt(f"I do not know ticket {number}."),
        "guidance": {"text": "Read the ticket.\nCite the rule it asks for.\nAnswer in one word.", "demos": [], "settings": {}},
        "second": attempt(f"The answer to {number} is x."),
        "before": reward(before),
        "after": reward(after),
        "delta": after - before,
        "teacher_usage": _USAGE,
        "requests": [f"{number:016x}"],
    }


def trace(run: str, number: int) -> Trace:
    """Rewards spread over [0, 1]; runs of 5,000 lessons come one after the other, each of one operation, a lesson every 30 s."""
    after = (number * 2654435761 % 1000) / 999
    operation = f"op{number // 5000 % OPERATIONS}"
    return lesson(line(number, after, number % 9700 // 97), run, operation, START + 30.0 * number)


def of_writer(writer: int, count: int) -> Iterator[Trace]:
    """The lessons of one writer: its own, and those that every writer writes."""
    shared = int(count * SHARED)
    for number in range(count):
        yield trace("shared", number) if number < shared else trace(f"w{writer}", number)
