"""The `handoff:` and `validation:` sections of a training configuration."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import Field

from gepa_atlas.handoff.prompts import TeacherFormat
from gepa_atlas.settings import Settings


class ExportConfig(Settings):
    """Which lessons leave the run, and how the sets are made of them."""

    path: str | None = None  # traces.jsonl of a run, its directory, or an ATLAS session export; --export-path replaces it
    prompt: Literal["best", "seed"] = "best"  # whose text is the teacher's system prompt
    prompt_mode: Literal["system", "population", "distil", "alternate"] = "system"  # how evolved prompts take part (docs/handoff.md)
    teacher: TeacherFormat = TeacherFormat()  # the two messages that the teacher reads
    format: Literal["jsonl", "both"] = "jsonl"  # both: a .parquet file beside each set of JSON lines
    include_val: bool = True  # val lessons and tasks, for evaluation during training only; test is never exported
    top_per_task: int = Field(default=2, ge=1)  # lessons a task gives to sft.jsonl at most, and pairs to dpo.jsonl
    top_per_candidate: int | None = Field(default=None, ge=1)  # lessons a candidate gives to sft.jsonl at most; None: no limit
    min_delta: float = Field(default=0.02, ge=0, le=1)  # reward delta (0 to 1) whose lower bound a lesson must reach
    z: float = Field(default=1.0, ge=0, allow_inf_nan=False)  # standard errors subtracted from delta before ranking
    max_words: int | None = Field(default=None, ge=1)  # words of guidance above which a lesson is not in sft, dpo and kto; None: no limit
    max_uncertainty: float | None = Field(default=None, gt=0)  # panel uncertainty above which a lesson is left out; None: no limit
    pair_gap: float = Field(default=0.2, ge=0, le=1)  # reward gap of a DPO pair, and > 2 standard deviations of the judges
    explore_share: float = Field(default=0.1, ge=0, le=1)  # share kept of the tasks that no lesson ever improved
    solved_share: float = Field(default=0.0, ge=0, le=1)  # share kept of the tasks that the student solves alone: guidance may harm them
    weight_floor: float = Field(default=0.05, gt=0, le=1)  # added to the spread of a task's deltas: its weight in GRPO
    ngram: int = Field(default=13, ge=3)  # words in a row of a held-out task for which a lesson is left out
    review: Literal["off", "golden", "approved"] = "off"  # lowest review state that may leave, where lessons are reviewed
    memory: str | None = None  # a memory across runs that knows the review states; None: those that the traces carry
    max_samples: int | None = Field(default=None, ge=1)  # at most this many train tasks; None: all
    eval_ratio: float | None = Field(default=None, gt=0, lt=0.5)  # val, and as much again test, where traces carry no split; None: .1


class ValidateConfig(Settings):
    """Limits of the named checks. A check of severity error ends the stage with exit code 2."""

    against: tuple[str, ...] = ()  # further JSONL files whose questions and answers must not be in training data
    ngram: int = Field(default=13, ge=3)  # words in a row of a held-out task that count as contamination
    near_duplicate: float = Field(default=0.9, gt=0, le=1)  # Jaccard similarity of 5-grams
    max_failed_share: float = Field(default=0.2, ge=0, le=1)  # lessons that the judges could not score
    min_learnable: int = Field(default=1, ge=0)  # tasks whose lessons differ in reward
    leaks: Literal["error", "warn"] = "warn"  # guidance that contains the gold answer


class ModelSection(Protocol):
    @property
    def context(self) -> int: ...


class SftSection(Protocol):
    @property
    def enabled(self) -> bool: ...

    @property
    def max_length(self) -> int | None: ...


class GrpoSection(Protocol):
    @property
    def enabled(self) -> bool: ...

    @property
    def max_completion_length(self) -> int: ...


class Sections(Protocol):
    """What the hand-off reads of a training configuration; lengths in tokens."""

    @property
    def handoff(self) -> ExportConfig: ...

    @property
    def validation(self) -> ValidateConfig: ...

    @property
    def model(self) -> ModelSection: ...

    @property
    def sft(self) -> SftSection: ...

    @property
    def grpo(self) -> GrpoSection: ...
