"""A judge that compares the two sides of a delta, asked in both orders: a preference that flips with the order is a tie."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from gepa_atlas import texts
from gepa_atlas.errors import BudgetExhausted, CallError
from gepa_atlas.ports import Case, ChatModel, ChatRequest
from gepa_atlas.rim import fence, meter
from gepa_atlas.rim.judges.base import Door
from gepa_atlas.rim.judges.llm import LlmSettings, on_the_floor
from gepa_atlas.rim.replies import read_preference
from gepa_atlas.settings import Settings
from gepa_atlas.types import Failure, Message, canonical, digest

_PROMPT = Path(__file__).parent / "prompts" / "compare.md"
_SCHEMA = canonical(
    {
        "type": "object",
        "properties": {
            "principles": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4},
            "rationale": {"type": "string"},
            "preference": {"enum": ["first", "second", "tie"]},
        },
        "required": ["principles", "rationale", "preference"],
        "additionalProperties": False,
    }
)


class CompareSettings(Settings):
    """Two calls a delta. Its word, -1, 0 or 1, is averaged with the pointwise delta by `weight` (the panel's judges together weigh 1)."""

    name: str = "compare"
    model: str | dict[str, Any] | None = None
    rubric: str = "quality"
    criterion: str = ""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=1024, ge=16)
    show_answer: bool = True

    def build(self, door: Door) -> Comparer:
        as_judge = LlmSettings(name=self.name, rubric=self.rubric, criterion=self.criterion, show_answer=self.show_answer)
        rubric, criterion = as_judge.rubric_text(door.base_dir), as_judge.criterion_text()
        prompt = texts.fill(_PROMPT.read_text("utf-8"), {"rubric": rubric, "criterion": criterion})
        model = door.model(self.model)
        identity = f"compare:{digest([self.model_dump(mode='json'), model.identity, prompt, _SCHEMA, fence.VERSION], 24)}"
        return Comparer(self, model, prompt, identity)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`value` 1 when the second side is better in both orders, -1 the first, 0 a tie or a flip; None with the reason when unread."""

    judge: str
    value: float | None
    rationale: str = ""
    flipped: bool = False
    missing: Failure | None = None


@dataclass(frozen=True)
class Comparer:
    settings: CompareSettings
    model: ChatModel
    prompt: str
    identity: str

    async def compare(self, before: Case, after: Case) -> Comparison:
        name = self.settings.name
        if before.output == after.output:
            return Comparison(name, 0.0, "the answers are the same")
        empty = on_the_floor(before), on_the_floor(after)
        if any(empty):
            return Comparison(name, float(empty[0]) - float(empty[1]), "floor: an answer is empty or has no content")
        one, other = await asyncio.gather(self._ask(before, before.output, after.output), self._ask(before, after.output, before.output))
        for said in (one, other):
            if isinstance(said, Failure):
                return Comparison(name, None, missing=said)
        assert not isinstance(one, Failure) and not isinstance(other, Failure)
        agree = one[0] == -other[0]
        return Comparison(name, float(one[0]) if agree else 0.0, one[1] if agree else f"flips with the order: {one[1]}", not agree)

    async def _ask(self, case: Case, first: str, second: str) -> tuple[int, str] | Failure:
        """(1 when the second is preferred, -1 the first, 0 a tie; why). An unreadable reply is asked once more."""
        fields = {"task": case.example.question}
        if case.example.context:
            fields["context"] = case.example.context
        if self.settings.show_answer and case.example.answer is not None:
            fields["reference_answer"] = case.example.answer
        text = "Compare `first` and `second`.\n" + fence.fenced({**fields, "first": first, "second": second})
        for sample in (0, 1):
            request = ChatRequest(
                messages=(Message("system", self.prompt), Message("user", text)),
                max_tokens=self.settings.max_tokens,
                temperature=self.settings.temperature,
                seed=sample,
                json_schema=_SCHEMA,
                sample=sample,
            )
            try:
                completion = await self.model.complete(request)
            except (CallError, BudgetExhausted) as error:
                return Failure(error.kind, str(error))
            meter.add(self.settings.name, request, completion.usage)
            said = read_preference(completion.text)
            if said is not None:
                return said
        return Failure("garbled", "the reply holds no preference")
