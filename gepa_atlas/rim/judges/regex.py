"""regex: the output matches a pattern; or what a group of it captured is an accepted answer.

A pattern that backtracks without end on some output gives no score, with that reason, after `seconds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from gepa_atlas.ports import Case
from gepa_atlas.rim.judges._patterns import SECONDS, compiled, find
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program, shown

if TYPE_CHECKING:
    import regex


class RegexSettings(JudgeSettings):
    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, max_length=2000)
    mode: Literal["search", "fullmatch"] = "search"  # fullmatch reads the output without surrounding whitespace
    group: str | int | None = None  # compare what this group captured with the accepted answers
    ignore_case: bool = False
    multiline: bool = False  # ^ and $ match at line breaks
    dotall: bool = False  # . matches a line break
    max_chars: int = Field(default=20_000, ge=1, le=1_000_000)
    seconds: float = Field(default=SECONDS, gt=0, le=60)  # of processor time for one output

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        compiled(pattern)  # a NotAPattern is the ValueError that names what is wrong
        return pattern

    @model_validator(mode="after")
    def _group_exists(self) -> RegexSettings:
        pattern = self.compiled
        if isinstance(self.group, str) and self.group not in pattern.groupindex:
            raise ValueError(f"the pattern has no group named {self.group!r}")
        if isinstance(self.group, int) and not 0 <= self.group <= pattern.groups:
            raise ValueError(f"the pattern has {pattern.groups} groups, not {self.group}")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.group is None else frozenset({ANSWER})

    @property
    def compiled(self) -> regex.Pattern[str]:
        return compiled(self.pattern, self.ignore_case, self.multiline, self.dotall)

    def grade(self, case: Case) -> Verdict:
        text = case.output[: self.max_chars]
        full = self.mode == "fullmatch"
        found = find(self.compiled, text.strip() if full else text, full=full, seconds=self.seconds)
        if found is None:
            return WRONG, f"{shown(text)} does not match"
        if self.group is None:
            return RIGHT, "matches"
        captured = (found[self.group] or "").strip()
        folded = str.casefold if self.ignore_case else str
        right = any(folded(captured) == folded(answer.strip()) for answer in case.example.answers)
        return (RIGHT if right else WRONG), f"captured {shown(captured)}" + ("" if right else f", not {shown(case.example.answers[0])}")

    def build(self, door: Door) -> ProgramJudge:
        return program(self, self.grade)
