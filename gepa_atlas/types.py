"""The nouns of gepa_atlas. Learn these and the rest of the code reads aloud.

Example     a question with its gold answers; `.public()` is the only view a student, teacher or proposer gets
Candidate   what is evolved: named texts, demonstrations and settings; its id is the hash of its content
Guidance    what a teacher hands a student for one question
Task        what a student receives: question, context and, on the second attempt, guidance
Attempt     one run of the student agent, or the named reason why there is none
Reward      a value in [0, 1], or None with the reason; a failure is never a number
Lesson      example x candidate: baseline attempt, guidance, second attempt, reward before and after, `.delta`
Scorecard   a candidate's lessons on a set of examples, summed up with an interval
Proposal    the plan of one slot of the search, pure data; Outcome is what came of it; Decision is what was done about it
Verdict     ship, do not ship, or inconclusive, with figures and reasons

Everything here is frozen, and everything that is stored has `to_json` and, where it is read back, `from_json`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from gepa_atlas.errors import ContractError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Split = Literal["train", "val", "test"]
Scalar = str | int | float | bool
Role = Literal["student", "teacher", "judge", "reflection"]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, no NaN. The input of every digest."""
    return _CANONICAL.encode(value)


def digest(value: Any, length: int = 64) -> str:
    """Hex SHA-256 of `canonical(value)`, cut to `length` characters."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


# -- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """The public face of an example: no answer in it, by construction."""

    example_id: str
    text: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its accepted gold answers (none when the data has no gold)."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    context: str = ""
    split: Split = "train"
    tags: tuple[str, ...] = ()
    spec: str = ""  # canonical JSON of what a program judge needs beside the answer (IFEval's kwargs, a schema); never shown

    @property
    def answer(self) -> str | None:
        return self.answers[0] if self.answers else None

    def public(self) -> Question:
        return Question(self.id, self.question, self.context)

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.id, "question": self.question, "answers": list(self.answers), "split": self.split}
        for name, value in (("context", self.context), ("tags", list(self.tags)), ("spec", self.spec)):
            if value:
                row[name] = value
        return row


@dataclass(frozen=True, slots=True)
class Demo:
    """A worked example shown to the student. Made from the train split only."""

    example_id: str
    question: str
    answer: str
    context: str = ""

    @classmethod
    def of(cls, example: Example) -> Demo:
        if example.split != "train":
            raise ContractError(f"example {example.id!r} is in the {example.split} split; demonstrations come from train only")
        if example.answer is None:
            raise ContractError(f"example {example.id!r} has no gold answer; a demonstration needs one")
        return cls(example.id, example.question, example.answer, example.context)

    def to_json(self) -> dict[str, Any]:
        row = {"example_id": self.example_id, "question": self.question, "answer": self.answer}
        return row | ({"context": self.context} if self.context else {})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Demo:
        return cls(row["example_id"], row["question"], row["answer"], row.get("context", ""))


# -- what is evolved --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Component:
    """The contract of one evolvable text: what it must keep, how long it may grow, what it is for."""

    name: str
    placeholders: tuple[str, ...] = ()
    max_chars: int = 20_000
    purpose: str = ""


@dataclass(frozen=True)
class Candidate:
    """Named texts plus demonstrations and typed settings. Equal content is the same candidate, whoever proposed it."""

    texts: tuple[tuple[str, str], ...]
    demos: tuple[Demo, ...] = ()
    settings: tuple[tuple[str, Scalar], ...] = ()
    parents: tuple[str, ...] = field(default=(), compare=False)
    origin: str = field(default="seed", compare=False)
    id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(sorted(self.texts)))
        object.__setattr__(self, "settings", tuple(sorted(self.settings)))
        object.__setattr__(self, "id", digest(self.content(), 16))

    @classmethod
    def of(cls, texts: Mapping[str, str], demos: tuple[Demo, ...] = (), settings: Mapping[str, Scalar] | None = None) -> Candidate:
        return cls(tuple(texts.items()), demos, tuple((settings or {}).items()))

    def content(self) -> dict[str, Any]:
        return {
            "texts": dict(self.texts),
            "demos": [d.to_json() for d in self.demos],
            "settings": dict(self.settings),
        }

    def text(self, name: str) -> str:
        return dict(self.texts)[name]

    def child(
        self,
        origin: str,
        *,
        texts: Mapping[str, str] | None = None,
        demos: tuple[Demo, ...] | None = None,
        settings: Mapping[str, Scalar] | None = None,
        also: tuple[str, ...] = (),
    ) -> Candidate:
        """A changed copy whose lineage is this candidate (and `also`, for a merge)."""
        return Candidate(
            tuple((dict(self.texts) | dict(texts or {})).items()),
            self.demos if demos is None else demos,
            tuple((dict(self.settings) | dict(settings or {})).items()),
            (self.id, *also),
            origin,
        )

    def size(self) -> int:
        """Characters of everything that is sent with each question: the length objective."""
        return sum(len(t) for _, t in self.texts) + sum(len(d.question) + len(d.answer) + len(d.context) for d in self.demos)

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, **self.content(), "parents": list(self.parents), "origin": self.origin}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Candidate:
        return cls(
            tuple(row["texts"].items()),
            tuple(Demo.from_json(d) for d in row.get("demos", ())),
            tuple(row.get("settings", {}).items()),
            tuple(row.get("parents", ())),
            row.get("origin", "seed"),
        )


# -- what happens -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call took. None is unknown, and unknown plus anything is unknown. Seconds are wall clock."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    dollars: float | None = 0.0
    seconds: float = 0.0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        def both(a: Any, b: Any) -> Any:
            return None if a is None or b is None else a + b

        return Usage(
            both(self.input_tokens, other.input_tokens),
            both(self.output_tokens, other.output_tokens),
            both(self.dollars, other.dollars),
            self.seconds + other.seconds,
            self.calls + other.calls,
        )

    @property
    def tokens(self) -> int | None:
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    def to_json(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "dollars": self.dollars,
            "seconds": round(self.seconds, 6),
            "calls": self.calls,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Usage:
        return cls(row["input_tokens"], row["output_tokens"], row["dollars"], row["seconds"], row["calls"])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer or no score: a kind from the error tree and one clear line."""

    kind: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a teacher hands a student: text, demonstrations, settings. The connector decides where it is placed. `texts` replace an
    agent's own texts by name, for agents that are made of several."""

    text: str = ""
    demos: tuple[Demo, ...] = ()
    settings: tuple[tuple[str, Scalar], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.demos or self.settings or self.texts)

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"text": self.text, "demos": [d.to_json() for d in self.demos], "settings": dict(self.settings)}
        return row | ({"texts": dict(self.texts)} if self.texts else {})


@dataclass(frozen=True, slots=True)
class Task:
    """What a student receives. `sample` numbers repeats of the same request; it is part of a paid call's key."""

    question: Question
    guidance: Guidance = Guidance()
    sample: int = 0

    def to_json(self) -> dict[str, Any]:
        """The request as it enters the call key: everything that can change the answer."""
        q = self.question
        return {"question": q.text, "context": q.context, "guidance": self.guidance.to_json(), "sample": self.sample}


class StopReason(StrEnum):
    DONE = "done"  # the agent finished by itself
    LENGTH = "length"  # cut at a token limit; the output is what there was
    FAILED = "failed"  # no output; see error


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the student agent. Either `output` is text or `error` says why there is none; never both."""

    output: str | None
    usage: Usage = Usage()
    stop: StopReason = StopReason.DONE
    messages: tuple[Message, ...] = ()
    error: Failure | None = None

    def __post_init__(self) -> None:
        if (self.output is None) == (self.error is None):
            raise ContractError("an attempt has either an output or an error")

    @classmethod
    def failed(cls, kind: str, reason: str, usage: Usage = Usage()) -> Attempt:
        return cls(None, usage, StopReason.FAILED, (), Failure(kind, reason))

    def to_json(self) -> dict[str, Any]:
        return {
            "output": self.output,
            "usage": self.usage.to_json(),
            "stop": self.stop.value,
            "messages": [m.to_json() for m in self.messages],
            "error": self.error.to_json() if self.error else None,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Attempt:
        return cls(
            row["output"],
            Usage.from_json(row["usage"]),
            StopReason(row["stop"]),
            tuple(Message(m["role"], m["content"]) for m in row["messages"]),
            Failure(**row["error"]) if row["error"] else None,
        )


@dataclass(frozen=True, slots=True)
class JudgeScore:
    """One judge's word on one output: a value in [0, 1], or None and why."""

    judge: str
    value: float | None
    rationale: str = ""
    uncertainty: float | None = None
    missing: Failure | None = None

    def __post_init__(self) -> None:
        _check_score(self.value, self.missing)

    def to_json(self) -> dict[str, Any]:
        return {
            "judge": self.judge,
            "value": self.value,
            "rationale": self.rationale,
            "uncertainty": self.uncertainty,
            "missing": self.missing.to_json() if self.missing else None,
        }


@dataclass(frozen=True, slots=True)
class Reward:
    """The panel's word on one attempt: a value in [0, 1] with its parts, or None and why."""

    value: float | None
    parts: tuple[JudgeScore, ...] = ()
    rationale: str = ""
    uncertainty: float | None = None
    missing: Failure | None = None

    def __post_init__(self) -> None:
        _check_score(self.value, self.missing)

    @classmethod
    def none(cls, kind: str, reason: str, parts: tuple[JudgeScore, ...] = ()) -> Reward:
        return cls(None, parts, "", None, Failure(kind, reason))

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "parts": [p.to_json() for p in self.parts],
            "rationale": self.rationale,
            "uncertainty": self.uncertainty,
            "missing": self.missing.to_json() if self.missing else None,
        }


def _check_score(value: float | None, missing: Failure | None) -> None:
    if (value is None) == (missing is None):
        raise ContractError("a score has either a value or a reason why it is missing")
    if value is not None and (isinstance(value, bool) or not math.isfinite(value) or not 0.0 <= value <= 1.0):
        raise ContractError(f"a score is a finite number in [0, 1], not {value!r}")


@dataclass(frozen=True, slots=True)
class Lesson:
    """Example x candidate x sample, taught once. It is the trace: a line of traces.jsonl, reflection's evidence, a training row."""

    example: Example
    candidate_id: str
    sample: int
    protocol: str
    baseline: Attempt
    guidance: Guidance
    second: Attempt
    before: Reward
    after: Reward
    teacher_usage: Usage = Usage()
    requests: tuple[str, ...] = ()  # keys of the student runs it rests on: the baseline's and its own, each paid once per run
    support: str = ""  # light, medium or heavy: how much help the teacher thought was needed, where the protocol asks

    @property
    def delta(self) -> float | None:
        """What the teaching was worth, after minus before, in [-1, 1]; None when either side is unscored."""
        if self.before.value is None or self.after.value is None:
            return None
        return self.after.value - self.before.value

    @property
    def cell(self) -> tuple[str, str, int]:
        return (self.candidate_id, self.example.id, self.sample)

    @property
    def failure(self) -> Failure | None:
        """The first reason why this lesson has no delta."""
        for reason in (self.baseline.error, self.before.missing, self.second.error, self.after.missing):
            if reason is not None:
                return reason
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "example": self.example.to_json(),
            "candidate": self.candidate_id,
            "sample": self.sample,
            "protocol": self.protocol,
            "baseline": self.baseline.to_json(),
            "guidance": self.guidance.to_json(),
            "second": self.second.to_json(),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "delta": self.delta,
            "teacher_usage": self.teacher_usage.to_json(),
            "requests": list(self.requests),
        } | ({"support": self.support} if self.support else {})


@dataclass(frozen=True, slots=True)
class Scorecard:
    """A candidate's lessons on a set. Means are over scored lessons; `coverage` says how many those are."""

    candidate_id: str
    planned: int
    scored: int
    delta: float | None  # mean of (after - before)
    delta_low: float | None  # 95 % interval of the mean delta, clustered by example
    delta_high: float | None
    after: float | None  # mean reward with guidance
    before: float | None  # mean reward without
    harm_rate: float | None  # share of scored lessons with delta < 0
    tokens: float | None = None  # mean tokens of a second attempt; None where a connector reports none

    @property
    def coverage(self) -> float:
        return self.scored / self.planned if self.planned else 0.0

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {name: getattr(self, name) for name in Scorecard.__dataclass_fields__}
        return row | {"coverage": self.coverage}


# -- how the search moves ---------------------------------------------------------------------------------------------


class SlotKind(StrEnum):
    MEASURE = "measure"  # teach a known candidate on more examples
    CHILD = "child"  # make a child with an operator, then teach it (and its parent) on gate examples
    FINAL = "final"  # seed and winner on the untouched test split
    IDLE = "idle"  # nothing worth doing until more is told; keeps the window's clock


@dataclass(frozen=True, slots=True)
class Proposal:
    """The plan of one slot, made from the archive as it stood when slot n - width was told. Pure data."""

    n: int
    kind: SlotKind
    operator: str  # "seed", "race", "retest", "noise", "final", or the name of a proposer for a child
    parents: tuple[Candidate, ...]  # for MEASURE and FINAL: the candidates to be taught
    read: tuple[str, ...] = ()  # example ids whose lessons the proposer may read (train)
    gate: tuple[tuple[str, int], ...] = ()  # (example id, sample) cells to teach the child and its first parent on
    cost: int = 0  # rollouts reserved: an upper bound
    rejected: tuple[Candidate, ...] = ()  # children of these parents that were tried and not kept
    mates: tuple[Candidate, ...] = ()  # other good candidates an operator may draw on
    child: Candidate | None = None  # the child itself, where the search has composed it from what it knows

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "kind": self.kind.value,
            "operator": self.operator,
            "parents": [c.id for c in self.parents],
            "read": list(self.read),
            "gate": [list(cell) for cell in self.gate],
            "cost": self.cost,
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposer's answer: a candidate, or None with the reason (no idea, refused, malformed, broke a contract)."""

    candidate: Candidate | None
    note: str = ""  # with a candidate: what was changed and why; without: why there is none


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a slot: the draft of a child (None for MEASURE and FINAL) and every lesson that was taught."""

    draft: Draft | None
    lessons: tuple[Lesson, ...] = ()


class Status(StrEnum):
    """What the archive says to an addition (pyribs' idea): callers log and credit without deriving it again."""

    NEW = "new"
    IMPROVED = "improved"
    NOT_ADDED = "not added"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was done about an outcome, with the reason a person reads."""

    n: int
    kind: SlotKind
    operator: str
    candidate_id: str | None
    status: Status
    reason: str
    rollouts: int  # really spent by this slot

    def to_json(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in Decision.__dataclass_fields__}
        return row | {"kind": self.kind.value, "status": self.status.value}


class Ruling(StrEnum):
    SHIP = "ship"
    DO_NOT_SHIP = "do not ship"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word on the winner, from the test split alone. `gain` is winner minus seed, paired by example."""

    ruling: Ruling
    reasons: tuple[str, ...]
    seed: Scorecard | None
    winner: Scorecard | None
    gain: float | None = None
    gain_low: float | None = None  # 95 % paired interval
    gain_high: float | None = None
    pairs: int = 0
    judge_error: float | None = None  # standard error that judging alone gives the gain: 0 for programs, None where it is not known

    def to_json(self) -> dict[str, Any]:
        return {
            "ruling": self.ruling.value,
            "reasons": list(self.reasons),
            "seed": self.seed.to_json() if self.seed else None,
            "winner": self.winner.to_json() if self.winner else None,
            "gain": self.gain,
            "gain_low": self.gain_low,
            "gain_high": self.gain_high,
            "pairs": self.pairs,
            "judge_error": None if self.judge_error is None else round(self.judge_error, 9),
        }


__all__ = [
    "Attempt", "Candidate", "Component", "Decision", "Demo", "Draft", "Example", "Failure", "Guidance", "Json", "JudgeScore",
    "Lesson", "Message", "Outcome", "Proposal", "Question", "Reward", "Role", "Ruling", "Scalar", "Scorecard", "SlotKind",
    "Split", "Status", "StopReason", "Task", "Usage", "Verdict", "canonical", "digest", "replace",
]  # fmt: skip
