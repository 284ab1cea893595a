"""exact: the output is one of the accepted answers, character by character."""

from __future__ import annotations

from typing import Literal

from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program, shown


class ExactSettings(JudgeSettings):
    """By default only surrounding whitespace is taken off; case, inner spaces and punctuation count."""

    type: Literal["exact"] = "exact"
    strip: bool = True  # surrounding whitespace
    ignore_case: bool = False
    collapse_spaces: bool = False  # runs of whitespace become one space

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({ANSWER})

    def plain(self, text: str) -> str:
        if self.strip:
            text = text.strip()
        if self.collapse_spaces:
            text = " ".join(text.split())
        return text.casefold() if self.ignore_case else text

    def grade(self, case: Case) -> Verdict:
        given = self.plain(case.output)
        if any(given == self.plain(answer) for answer in case.example.answers):
            return RIGHT, "equals an accepted answer"
        return WRONG, f"{shown(given)} is not {shown(self.plain(case.example.answers[0]))}"

    def build(self, door: Door) -> ProgramJudge:
        return program(self, self.grade)
