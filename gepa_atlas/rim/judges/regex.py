"""regex: the output matches a pattern; or what a group of it captured is an accepted answer.

The standard library's engine backtracks, so a careless pattern such as `(a+)+$` can take exponential time on a text of thirty
characters, and no cap on the text helps: patterns are written by whoever writes the configuration, never by a model or a data set.
Use possessive quantifiers (`a++`) or atomic groups (`(?>...)`), which Python 3.11 has, where alternatives overlap.
`max_chars` bounds the polynomial cases: the output is read up to that many characters.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal

from pydantic import Field, field_validator, model_validator

from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program, shown


class RegexSettings(JudgeSettings):
    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, max_length=2000)
    mode: Literal["search", "fullmatch"] = "search"  # fullmatch reads the output without surrounding whitespace
    group: str | int | None = None  # compare what this group captured with the accepted answers
    ignore_case: bool = False
    multiline: bool = False  # ^ and $ match at line breaks
    dotall: bool = False  # . matches a line break
    max_chars: int = Field(default=20_000, ge=1, le=1_000_000)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _group_exists(self) -> RegexSettings:
        compiled = re.compile(self.pattern)
        if isinstance(self.group, str) and self.group not in compiled.groupindex:
            raise ValueError(f"the pattern has no group named {self.group!r}")
        if isinstance(self.group, int) and not 0 <= self.group <= compiled.groups:
            raise ValueError(f"the pattern has {compiled.groups} groups, not {self.group}")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.group is None else frozenset({ANSWER})

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        flags = [(self.ignore_case, re.I), (self.multiline, re.M), (self.dotall, re.S)]
        return re.compile(self.pattern, sum(flag for on, flag in flags if on))

    def grade(self, case: Case) -> Verdict:
        text = case.output[: self.max_chars]
        found = self.compiled.search(text) if self.mode == "search" else self.compiled.fullmatch(text.strip())
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
