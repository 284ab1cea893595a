"""choice: the output names exactly one label of a set, and it is the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from pydantic import Field

from gepa_atlas.errors import DataError
from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program
from gepa_atlas.types import Example


class ChoiceSettings(JudgeSettings):
    """A label counts where it stands as a word of its own; the longer of two overlapping labels is taken ("not spam", "spam").

    Case is ignored, except for labels of one letter: "a" in a sentence is not option A (alone, as the whole output, it is).
    """

    type: Literal["choice"] = "choice"
    labels: tuple[str, ...] = Field(min_length=2)
    ignore_case: bool = True
    line: Literal["any", "first", "last"] = "any"  # which non-empty line is read

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({ANSWER})

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        ordered = sorted(self.labels, key=len, reverse=True)
        return re.compile("|".join(self._one(label) for label in ordered))

    def _one(self, label: str) -> str:
        flags = "(?i:" if self.ignore_case and len(label) > 1 else "(?:"
        return rf"(?<!\w){flags}{re.escape(label)})(?!\w)"

    def folded(self, text: str) -> str:
        return text.casefold() if self.ignore_case else text

    def named(self, text: str) -> set[str]:
        """The labels that `text` mentions, folded."""
        if self.folded(text.strip()) in map(self.folded, self.labels):
            return {self.folded(text.strip())}
        return {self.folded(found) for found in self.pattern.findall(text)}

    def grade(self, case: Case) -> Verdict:
        lines = [line for line in case.output.splitlines() if line.strip()]
        text = case.output if self.line == "any" or not lines else lines[0 if self.line == "first" else -1]
        named = self.named(text)
        if len(named) != 1:
            return WRONG, f"names {len(named)} of the labels ({', '.join(sorted(named)) or 'none'}); exactly one is asked for"
        label = named.pop()
        right = label in {self.folded(answer.strip()) for answer in case.example.answers}
        return (RIGHT if right else WRONG), f"says {label!r}" + ("" if right else f", not {case.example.answers[0]!r}")

    def check(self, examples: Sequence[Example]) -> None:
        known = {self.folded(label) for label in self.labels}
        for example in examples:
            for answer in example.answers:
                if self.folded(answer.strip()) not in known:
                    raise DataError(
                        f"example {example.id!r} has the answer {answer!r}, which is not one of the labels of judge {self.called!r} "
                        f"({', '.join(self.labels)}): add it to `labels` or correct the example"
                    )

    def build(self, door: Door) -> ProgramJudge:
        return program(self, self.grade)
