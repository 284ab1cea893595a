"""contains: the output has the accepted answer, or given texts, in it; and none of the forbidden ones."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program


class ContainsSettings(JudgeSettings):
    """Without `texts` the accepted answers are looked for: `any` of them is enough, or `all` must be there."""

    type: Literal["contains"] = "contains"
    texts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    absent: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    mode: Literal["any", "all"] = "any"
    ignore_case: bool = False
    whole_words: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.texts or self.absent else frozenset({ANSWER})

    def within(self, text: str, output: str) -> bool:
        if self.ignore_case:
            text, output = text.casefold(), output.casefold()
        if self.whole_words:
            return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", output) is not None
        return text in output

    def grade(self, case: Case) -> Verdict:
        for text in self.absent:
            if self.within(text, case.output):
                return WRONG, f"contains {text!r}, which must be absent"
        wanted = self.texts or (case.example.answers if ANSWER in self.needs else ())
        found = [text for text in wanted if self.within(text, case.output)]
        if len(found) == len(wanted) or (found and self.mode == "any"):
            return RIGHT, "contains what is asked for"
        lost = next(text for text in wanted if text not in found)
        return WRONG, f"does not contain {lost!r}"

    def build(self, door: Door) -> ProgramJudge:
        return program(self, self.grade)
