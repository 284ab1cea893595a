"""What every judge shares: its settings, its seat's needs, and the border between our code and a program's verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from gepa_atlas.errors import CallError, UserError
from gepa_atlas.ports import Case, ChatModel, Judge
from gepa_atlas.settings import Settings
from gepa_atlas.types import Example, Failure, JudgeScore, digest

# A program's verdict: a value in [0, 1] and one line that says why.
Verdict = tuple[float, str]
RIGHT = 1.0
WRONG = 0.0

# What a judge may need beside the question and the output. "answer" and "spec" belong to the example and are on both sides of
# a delta; the others belong to one attempt: `guidance` of the case, or a name of `Case.inputs`.
ANSWER, SPEC, GUIDANCE, PLAN, TRACE, BASELINE = "answer", "spec", "guidance", "plan", "trace", "baseline"


@dataclass(frozen=True)
class Door:
    """What a judge is built with: a way to a model, and the folder that relative paths start from."""

    model: Callable[[Any], ChatModel]
    base_dir: Path = field(default_factory=Path.cwd)


class JudgeSettings(Settings):
    """Keys that every judge has. A subclass adds its own and `build`."""

    type: str
    name: str | None = None  # default: the type
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @property
    def called(self) -> str:
        return self.name or self.type

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def draw_count(self) -> int:
        """How many draws its score is the mean of."""
        return 1

    def build(self, door: Door) -> Judge:
        raise NotImplementedError

    def check(self, examples: Sequence[Example]) -> None:
        """Raise DataError when the examples lack something this judge reads, gold apart (the panel checks gold)."""

    def fingerprint(self) -> str:
        """Digest of everything written in the configuration that can change a score (the weight is the panel's)."""
        return digest(self.model_dump(mode="json", exclude={"name", "weight", "concurrency"}), 16)


@dataclass(frozen=True)
class ProgramJudge:
    """A judge that is a plain function of the case: no model, no noise (uncertainty 0), free."""

    name: str
    identity: str
    needs_answer: bool
    grade: Callable[[Case], Verdict]

    async def judge(self, case: Case) -> JudgeScore:
        try:
            value, why = self.grade(case)
        except CallError as error:
            return missing(self.name, error.kind, str(error))
        except UserError as error:  # found at load in a run (`check`); where examples come one by one, the example has no score
            return missing(self.name, "bad_example", str(error))
        return JudgeScore(self.name, value, why, 0.0)


def program(settings: JudgeSettings, grade: Callable[[Case], Verdict]) -> ProgramJudge:
    return ProgramJudge(settings.called, f"{settings.type}:{settings.fingerprint()}", ANSWER in settings.needs, grade)


def missing(judge: str, kind: str, reason: str, rationale: str = "") -> JudgeScore:
    return JudgeScore(judge, None, rationale, None, Failure(kind, reason))


def shown(text: str, limit: int = 60) -> str:
    """`text` as a short quoted piece of a rationale."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
