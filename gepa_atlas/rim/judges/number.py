"""number: the number in the output equals the number in an accepted answer, within a tolerance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from gepa_atlas.errors import DataError
from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program, shown
from gepa_atlas.types import Example

_MAX_CHARS = 200_000
_EXPONENT = 300  # numbers beyond 1e+-300 are not answers, and arithmetic on them is not free


class NumberSettings(JudgeSettings):
    """Reads numbers with a sign, thousands separators (1,000 or 1_000), a decimal point, an exponent and a currency sign.

    Without tolerances 0.5 equals 0.50 and nothing else. `units` maps what may follow a number to its factor, for example
    {km: 1000, m: 1}: both sides are converted, and a number with another unit behind it keeps its value.
    """

    type: Literal["number"] = "number"
    rel: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # allowed difference as a share of the gold number
    abs: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # allowed difference in the gold number's unit
    pick: Literal["last", "first", "only"] = "last"
    after: str | None = None  # read only what follows the last occurrence of this marker ("####", "Answer:")
    units: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({ANSWER})

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        units = "|".join(re.escape(unit) for unit in sorted(self.units, key=len, reverse=True))
        return re.compile(
            r"(?:(?<![\w)\]])(?P<sign>[-+\u2212]))?(?:[$\u20ac\u00a3\u00a5](?P<lead>[-+\u2212])?)?"
            r"(?P<digits>\d{1,3}(?:[,_\u202f]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<exp>[eE][-+]?\d{1,4}(?!\d))?"
            + (rf"(?:\s?(?P<unit>{units})(?!\w))?" if units else "(?P<unit>(?!))?")
        )

    def read(self, text: str) -> list[Decimal]:
        """Every number in `text`, in order, in base units."""
        found = []
        for match in self.pattern.finditer(text[-_MAX_CHARS:]):
            digits = re.sub("[,_\u202f]", "", match["digits"])
            try:
                value = Decimal(digits + (match["exp"] or ""))
            except InvalidOperation:
                continue
            if value and abs(value.adjusted()) > _EXPONENT:
                continue
            if (match["sign"] or match["lead"]) in ("-", "\u2212"):
                value = -value
            found.append(value * Decimal(str(self.units[match["unit"]])) if match["unit"] else value)
        return found

    def picked(self, text: str) -> Decimal | None:
        if self.after is not None:
            _, marker, tail = text.rpartition(self.after)
            text = tail if marker else ""
        found = self.read(text)
        if not found or (self.pick == "only" and len(set(found)) > 1):
            return None
        return found[0 if self.pick == "first" else -1]

    def gold(self, example: Example) -> list[Decimal]:
        return [numbers[-1] for numbers in map(self.read, example.answers) if numbers]

    def grade(self, case: Case) -> Verdict:
        given = self.picked(case.output)
        if given is None:
            return WRONG, f"no {'single ' if self.pick == 'only' else ''}number in {shown(case.output)}"
        right = any(self.close(given, gold) for gold in self.gold(case.example))
        return (RIGHT if right else WRONG), f"reads {given}" + ("" if right else f", not {case.example.answers[0]}")

    def close(self, given: Decimal, gold: Decimal) -> bool:
        if given == gold:
            return True
        allowed = max(Decimal(str(self.rel)) * abs(gold), Decimal(str(self.abs)))
        return abs(given - gold) <= allowed if allowed else False

    def check(self, examples: Sequence[Example]) -> None:
        for example in examples:
            if example.answers and not self.gold(example):
                raise DataError(
                    f"example {example.id!r} has no number in its answer {example.answers[0]!r}, which judge {self.called!r} compares: "
                    "correct the example or take another judge"
                )

    def build(self, door: Door) -> ProgramJudge:
        return program(self, self.grade)
