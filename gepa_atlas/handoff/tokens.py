"""Checks in tokens of the model that is to be trained. The tokenizer is handed in, so nothing here needs a library for models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gepa_atlas.handoff.prompts import Turn
from gepa_atlas.handoff.report import Report

CHECKS = ("prompt_context", "row_length", "completion_length", "chat_template", "other_tokenizer")


class Tokenizer(Protocol):
    """The tokenizer of the model that is to be trained, with its chat template."""

    @property
    def sha256(self) -> str | None:
        """SHA-256 of its tokenizer.json; None: it has no such file."""
        ...

    def prompt(self, turns: Sequence[Turn]) -> Sequence[int]:
        """Ids of a prompt, the mark after which the assistant speaks included."""
        ...

    def whole(self, turns: Sequence[Turn]) -> Sequence[int]:
        """Ids of a conversation that ends with the assistant's turn."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        ...


@dataclass(frozen=True)
class Lengths:
    """What has to fit, in tokens. None: no limit, or that stage is not run."""

    context: int | None = None  # of the model: prompt and completion
    completion: int | None = None  # room that GRPO leaves for one
    row: int | None = None  # of an SFT row; None: the context


@dataclass
class Counted:
    """Figures of all rows so far."""

    tokenizer: Tokenizer
    lengths: Lengths
    prompts: list[int] = field(default_factory=list)
    completions: list[int] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    rows_too_long: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def block(self, trace_id: str, tokenizer_sha256: str) -> None:
        """Tokens that came with a lesson."""
        if self.tokenizer.sha256 not in (None, tokenizer_sha256):
            self.foreign.append(trace_id)

    def prompt(self, name: str, turns: Sequence[Turn]) -> None:
        """A prompt that the model has to answer during training."""
        count = len(self.tokenizer.prompt(turns))
        self.prompts.append(count)
        if self.lengths.context is not None and count + (self.lengths.completion or 1) > self.lengths.context:
            self.too_long.append(name)

    def row(self, name: str, turns: Sequence[Turn], said: Turn) -> None:
        """A prompt with its completion."""
        start, whole = list(self.tokenizer.prompt(turns)), list(self.tokenizer.whole([*turns, said]))
        self.completions.append(len(whole) - len(start))
        limit = self.lengths.row if self.lengths.row is not None else self.lengths.context
        if limit is not None and len(whole) > limit:
            self.rows_too_long.append(name)
        if self.lengths.completion is not None and len(whole) - len(start) > self.lengths.completion:
            self.cut.append(name)
        if whole[: len(start)] != start or not self.tokenizer.text(whole[len(start) :]).strip():
            self.broken.append(name)

    def tell(self, report: Report) -> None:
        lengths, prompts, completions = self.lengths, percentiles(self.prompts), percentiles(self.completions)
        limits: dict[str, Any] = {"context": lengths.context, "completion": lengths.completion, "row": lengths.row}
        report.add(
            "prompt_context", "error", self.too_long,
            f"the prompt and {lengths.completion or 1} tokens of completion do not fit model.context {lengths.context}; the longest prompt "
            f"has {prompts['max']} tokens: raise model.context, lower grpo.max_completion_length, or take a shorter prompt",
            {"prompt_tokens": prompts, **limits},
        )  # fmt: skip
        report.add(
            "row_length", "error", self.rows_too_long,
            "prompt and completion are longer than sft.max_length or model.context: a trainer would cut or drop the row; raise it",
            {"completion_tokens": completions, **limits},
        )  # fmt: skip
        report.add(
            "completion_length", "warning", self.cut,
            f"the best guidance is longer than grpo.max_completion_length ({lengths.completion}), so training cannot reach it; raise it, "
            "or leave longer guidance out (handoff.max_words)",
        )  # fmt: skip
        report.add(
            "chat_template", "error", self.broken,
            "the tokens of a row do not begin with those of its prompt, or leave nothing to the assistant; mend the chat template",
        )  # fmt: skip
        report.add(
            "other_tokenizer", "error", self.foreign,
            "token blocks of another tokenizer than that of the model to be trained; take the model they came from, or leave them out",
        )  # fmt: skip


def percentiles(values: Iterable[int]) -> Mapping[str, int]:
    """p50, p95, p99 and max by the nearest rank; zeros where there is nothing."""
    ranked = sorted(values)
    if not ranked:
        return {"p50": 0, "p95": 0, "p99": 0, "max": 0}
    return {name: ranked[max(0, math.ceil(q * len(ranked)) - 1)] for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))}
