"""What stands in for the data sets of gepa's recorded tests, so that no hub is asked: rows rebuilt from the recording itself.

The AIME recording shows everything that its test uses of the data set: the questions in the order of the calls, and for the six train
examples that were reflected on, answer and solution. The answers of the ten validation problems are those of the competition's answer key.
PUPA's recording does not show the pieces of personal information that its test scores by, so its tests cannot be rebuilt.
"""

from __future__ import annotations

import ast
import json
import random
import re
from pathlib import Path
from types import ModuleType
from typing import Any

_SIZE = 90  # rows of AI-MO/aimo-validation-aime
_USED = (8, 9, 1, 2, 5, 3)  # positions in the trainset of the recorded examples: the first two minibatches of gepa's sampler with seed 0
_VAL_ANSWERS = ("385", "072", "144", "699", "116", "035", "245", "004", "055", "080")
_FEEDBACK = re.compile(
    r"The correct answer is '### (.*?)'.*?might be helpful:\nsolution: (.*?)(?=\n\n\n\n# Example |\n\n\n```|\Z)", re.DOTALL
)


def module(checkout: Path) -> ModuleType:
    """A module `datasets` with the one function that the tests call."""

    def load_dataset(name: str, *_: Any) -> dict[str, list[dict[str, str]]]:
        if name == "AI-MO/aimo-validation-aime":
            return {"train": _aime(checkout / "tests" / "test_aime_prompt_optimization" / "llm_cache.json")}
        if name == "MathArena/aime_2025":
            return {"train": []}
        raise LookupError(f"{name} cannot be reached from here, and its recording does not show what the test scores by")

    stand_in = ModuleType("datasets")
    stand_in.load_dataset = load_dataset  # type: ignore[attr-defined]
    return stand_in


def _aime(cache: Path) -> list[dict[str, str]]:
    asked: list[str] = []
    shown: list[tuple[str, str]] = []
    for key in json.loads(cache.read_text("utf-8")):
        kind, body = ast.literal_eval(key)
        if kind == "task_lm":
            question = json.loads(body)[1]["content"]
            asked += [] if question in asked else [question]
        else:
            shown += _FEEDBACK.findall(body)
    blank = {"problem": "not recorded", "solution": "", "answer": "0"}
    wanted = [blank] * _SIZE
    for at, question, (answer, solution) in zip(_USED, asked[10:], shown, strict=True):
        wanted[at] = {"problem": question, "solution": solution, "answer": answer}
    for at, (question, answer) in enumerate(zip(asked, _VAL_ANSWERS, strict=False)):
        wanted[_SIZE // 2 + at] = {"problem": question, "solution": "", "answer": answer}
    places = list(range(_SIZE))  # the test shuffles the rows with seed 0: lay them so that they come out as wanted
    random.Random(0).shuffle(places)
    rows = [blank] * _SIZE
    for at, place in enumerate(places):
        rows[place] = wanted[at]
    return rows
