"""answer: the final answer in the output says the same as an accepted one, in whatever spelling."""

from __future__ import annotations

from typing import Literal

from gepa_atlas.answers import final, normal, same
from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program, shown


class AnswerSettings(JudgeSettings):
    """Reads the last \\boxed{}, the <solution>, or what follows "answer is"; then compares numbers, fractions, units and LaTeX by
    value and everything else as text without case, outer quotes and a last full stop."""

    type: Literal["answer"] = "answer"
    whole: bool = False  # compare the whole output instead of the answer it ends in

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({ANSWER})

    def grade(self, case: Case) -> Verdict:
        given = case.output if self.whole else final(case.output)
        if any(same(given, final(answer)) for answer in case.example.answers):
            return RIGHT, f"{shown(given)} says the same as an accepted answer"
        return WRONG, f"{shown(given)} is read as {shown(normal(given).text)}, not {shown(normal(case.example.answers[0]).text)}"

    def build(self, door: Door) -> ProgramJudge:
        return program(self, self.grade)
