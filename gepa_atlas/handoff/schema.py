"""Rows of the hand-off. Schema gepa-atlas.trace/1; docs/handoff.md names every field, docs/handoff.schema.json is made of these models."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TRACE_SCHEMA: Literal["gepa-atlas.trace/1"] = "gepa-atlas.trace/1"
MANIFEST_SCHEMA = "gepa-atlas.handoff/1"
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Sd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SplitName = Literal["train", "val", "test"]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(Row):
    role: Literal["system", "user", "assistant"]
    content: str


class JudgeScore(Row):
    judge: str
    score: Score | None
    uncertainty: Sd | None  # standard deviation of the score
    rationale: str
    status: Literal["ok", "failed"]


class RimResult(Row):
    """The panel's word on one attempt."""

    score: Score | None
    uncertainty: Sd | None
    judges: list[JudgeScore]
    status: Literal["ok", "partial", "failed"]
    why: str = ""  # kind of the failure

    @model_validator(mode="after")
    def _failed_is_unscored(self) -> Self:
        if (self.status == "failed") != (self.score is None):
            raise ValueError("status is failed exactly where there is no score")
        return self


class Baseline(Row):
    """The student without guidance, over `n` attempts at the task."""

    mean: Score | None
    std: Sd | None  # None: one attempt only
    n: int = Field(ge=0)
    student_hash: str  # identity of the student in the optimization run; empty: not known


class TokenBlock(Row):
    """What a model of ours generated, token by token; only for replays with the same model and tokenizer."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[Finite] | None = None
    tokenizer_sha256: str  # of tokenizer.json
    model_sha256: str

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if self.logprobs is not None and len(self.logprobs) != len(self.completion_ids):
            raise ValueError("logprobs has one number for each of completion_ids")
        return self


class TraceRecord(Row):
    """One exported lesson. `messages` is what the teacher is asked, without the system prompt, which prompts.jsonl has by `prompt_hash`."""

    schema_version: Literal["gepa-atlas.trace/1"] = TRACE_SCHEMA
    trace_id: str
    run_id: str  # empty: not known
    candidate_id: str
    generation: int | None  # steps from the seed prompt; None: not known
    prompt_hash: str  # sha256:... of the candidate's content; empty: not known
    parent_hashes: list[str]
    task_id: str
    task_hash: str  # sha256:... of question and context
    split: SplitName
    protocol: str
    sample: int = Field(ge=0)
    messages: list[Turn]
    teacher_completion: str
    student_baseline: str | None
    student_taught: str | None
    rim: RimResult  # of the second attempt
    rim_before: RimResult  # of the first
    baseline: Baseline
    delta: float | None = Field(ge=-1, le=1, allow_inf_nan=False)
    delta_low: Finite | None  # lower bound: delta less z standard errors
    usage_json: str  # of the second attempt
    teacher_usage_json: str
    finish_reason: str
    truncated: bool
    student_model: str
    teacher_model: str
    tokens: TokenBlock | None
    review: str  # state of the review; empty: not reviewed
    redactions: int = Field(ge=0)
    extra_json: str = "{}"  # what the source said beside all this

    @model_validator(mode="after")
    def _delta_needs_both(self) -> Self:
        expected = None if self.rim.score is None or self.rim_before.score is None else self.rim.score - self.rim_before.score
        if (expected is None) != (self.delta is None):
            raise ValueError("delta is null exactly where a side is unscored")
        if expected is not None and self.delta is not None and not math.isclose(self.delta, expected, abs_tol=1e-9):
            raise ValueError("delta is not rim.score - rim_before.score")
        return self


class TaskRow(Row):
    """tasks.jsonl: every task of the run, test included, as question and answers."""

    task_id: str
    split: SplitName
    question: str
    context: str = ""
    answers: list[str]
    spec: str = ""  # what a program judge needs beside the answer, canonical JSON


class PromptRow(Row):
    """prompts.jsonl: a candidate of the optimization run."""

    prompt_hash: str
    candidate_id: str
    system: str  # the teacher's system prompt made of it
    texts: dict[str, str]
    demos_json: str
    settings_json: str
    parent_hashes: list[str]
    origin: str
    generation: int
    pareto: bool
    role: Literal["seed", "best", "seed and best", ""]
    val_delta: Finite | None  # mean over val tasks
    val_delta_low: Finite | None
    val_tasks: int
    scores_json: str  # mean delta by task id, train and val


class BaselineRow(Row):
    task_id: str
    split: SplitName
    mean: Score | None
    std: Sd | None
    n: int = Field(ge=0)
    uncertainty: Sd | None
    student_hash: str
    attempt: str | None  # a first attempt, as the teacher is shown it


class SftRow(Row):
    prompt: list[Turn]
    completion: list[Turn]
    task_id: str
    trace_id: str | None  # None: evidence is the candidate's val score
    candidate_id: str
    delta: Finite
    delta_low: Finite
    evidence: Literal["lesson", "candidate"]
    attempt_known: bool  # False: the prompt has no first attempt yet


class DpoRow(Row):
    prompt: list[Turn]
    chosen: list[Turn]
    rejected: list[Turn]
    task_id: str
    chosen_trace_id: str
    rejected_trace_id: str
    gap: Finite


class KtoRow(Row):
    prompt: list[Turn]
    completion: list[Turn]
    label: bool
    task_id: str
    trace_id: str
    delta: Finite


class GrpoRow(Row):
    prompt: list[Turn]
    task_id: str
    baseline_reward: Score | None  # None: not measured yet
    baseline_n: int = Field(ge=0)
    prompt_hash: str  # sha256:... of the system prompt's text
    weight: float = Field(gt=0, allow_inf_nan=False)
    privileged_context: str = ""  # prompt mode distil: the evolved prompt, which is then not in `prompt`


ROWS: dict[str, type[Row]] = {
    "traces": TraceRecord, "prompts": PromptRow, "baselines": BaselineRow, "tasks": TaskRow, "sft": SftRow, "dpo": DpoRow, "kto": KtoRow,
    "grpo_train": GrpoRow, "grpo_val": GrpoRow,
}  # fmt: skip


def json_schema() -> dict[str, Any]:
    """One JSON schema with a definition for each file's rows."""
    definitions: dict[str, Any] = {}
    files: dict[str, Any] = {}
    for name, model in ROWS.items():
        made = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= made.pop("$defs", {})
        definitions[model.__name__] = made
        files[f"{name}.jsonl"] = {"$ref": f"#/$defs/{model.__name__}"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Rows of a hand-off, {MANIFEST_SCHEMA} with {TRACE_SCHEMA}",
        "files": files,
        "$defs": dict(sorted(definitions.items())),
    }


if __name__ == "__main__":  # python -m gepa_atlas.handoff.schema > docs/handoff.schema.json
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
