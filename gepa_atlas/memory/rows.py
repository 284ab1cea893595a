"""From a line to rows: a lesson of ours (a line of traces.jsonl) or a session of ATLAS's SDK. Pure; no database, no clock.

The whole line is kept as it came, as ASCII JSON with its keys in order (`body`); the columns beside it are what is asked for.
Identity: a lesson is (run, candidate, example, sample); a session is its content, numbered where a file holds it more than once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from gepa_atlas.errors import DataError
from gepa_atlas.memory.config import Redactor, writable
from gepa_atlas.types import digest

State = Literal["pending", "approved", "quarantined", "golden"]
STATES: tuple[State, ...] = ("pending", "approved", "quarantined", "golden")
MARK = "memory"  # the key under which an exported lesson says what the store knew of it and which keys the store added
SHOWN = 2000  # characters of a question that are kept beside the line, for lists and searches
_REVIEW = ("review_status", "review_notes")


@dataclass(frozen=True)
class Trace:
    """One line and what is known of it. `before`, `after` in [0, 1], `delta` in [-1, 1], None where unscored; `created` in Unix seconds."""

    id: str
    kind: Literal["lesson", "session"]
    line: Mapping[str, Any]
    run_id: str = ""
    operation: str = ""
    candidate_id: str = ""
    example_id: str = ""
    sample: int = 0
    split: str = ""
    question: str = ""
    before: float | None = None
    after: float | None = None
    delta: float | None = None
    failure: str = ""  # its kind, where there is no reward
    created: float = 0.0
    state: State = "pending"
    attempts: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    rewards: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def row(self, redactor: Redactor) -> dict[str, Any]:
        """The row of `traces`, without anything that must not be written."""
        clean = {
            name: writable(redactor.text(getattr(self, name)))
            for name in ("kind", "run_id", "operation", "candidate_id", "example_id", "split", "question", "failure")
        }
        figures = {name: getattr(self, name) for name in ("id", "sample", "before", "after", "delta", "created", "state")}
        return clean | figures | {"given_state": self.state, "body": redactor.document(self.line)}


def trace_id(run_id: str, candidate_id: str, example_id: str, sample: int) -> str:
    """The id of a lesson in every store: what the hand-off asks the review state of."""
    return digest(["lesson", run_id, candidate_id, example_id, sample], 20)


def is_lesson(line: Mapping[str, Any]) -> bool:
    return isinstance(line.get("example"), dict) and "candidate" in line


def lesson(line: Mapping[str, Any], run_id: str, operation: str, created: float) -> Trace:
    """A line of traces.jsonl. DataError says what a line lacks."""
    state = _given_state(line.get("review_status"))
    line, run_id, operation, created = _as_exported(line, run_id, operation, created)
    try:
        example = line["example"]
        before, after = line["before"], line["after"]
        cell = (str(line["candidate"]), str(example["id"]), _count(line["sample"], 2**31) or 0)
        trace = Trace(
            trace_id(run_id, *cell),
            "lesson",
            line,
            run_id,
            operation,
            *cell,
            str(example.get("split", "")),
            str(example["question"])[:SHOWN],
            _score(before["value"]),
            _score(after["value"]),
            None if before["value"] is None or after["value"] is None else after["value"] - before["value"],
            _failure(line["baseline"], before, line["second"], after),
            created,
            state=state,
            attempts=(_attempt("baseline", line["baseline"]), _attempt("second", line["second"])),
            rewards=(*_rewards("before", before["parts"]), *_rewards("after", after["parts"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"this is no lesson of a traces.jsonl ({type(error).__name__}: {error})") from None
    return trace


def session(line: Mapping[str, Any], operation: str, created: float, occurrence: int = 0) -> Trace:
    """A session trace of ATLAS. `operation` is used where the line has no learning key. DataError says what a line lacks."""
    if not isinstance(line.get("task"), str) or not ({"final_answer", "steps"} & line.keys()):
        raise DataError("this is neither a lesson (example, candidate, ...) nor a session trace (task, final_answer, steps, ...)")
    meta = line.get("session_metadata")
    meta = meta if isinstance(meta, dict) else {}
    reward, failure = _session_reward(line)
    key = line.get("learning_key") or meta.get("learning_key") or operation
    content = {name: value for name, value in line.items() if name not in _REVIEW}
    return Trace(
        digest(["session", content, occurrence], 20),
        "session",
        line,
        operation=key if isinstance(key, str) else operation,
        sample=occurrence,
        question=line["task"][:SHOWN],
        after=reward,
        failure=failure,
        created=_when(line, meta, created),
        state=_given_state(line.get("review_status")),
        rewards=tuple(_session_judges(line)),
    )


def exported(line: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The line as it leaves the store: a lesson says what the store knew of it, a session says how it was reviewed since."""
    reviewed = {} if row["state"] == row["given_state"] and "review_status" in line else {"review_status": row["state"]}
    if row["kind"] == "session":
        return dict(line) if row["state"] == row["given_state"] else {**line, **reviewed}
    more = ({} if "run_id" in line else {"run_id": row["run_id"]}) | reviewed
    added = [name for name in more if name not in line]
    return {**line, **more, MARK: {"operation": row["operation"], "created": row["created"], "added": added}}


# -- parts of a lesson ------------------------------------------------------------------------------------------------


def _as_exported(line: Mapping[str, Any], run_id: str, operation: str, created: float) -> tuple[dict[str, Any], str, str, float]:
    """(the line as it was, run, operation, time): what comes from a store keeps its identity."""
    known = line.get(MARK)
    given = line.get("run_id", run_id)
    if not isinstance(known, dict):
        return dict(line), given if isinstance(given, str) else run_id, operation, created
    names, moment = known.get("added"), _number(known.get("created"))
    operation = known.get("operation", operation)
    if not isinstance(names, list) or not isinstance(operation, str) or not isinstance(given, str) or moment is None:
        raise DataError(f"the key {MARK!r} of this lesson is not as it was exported (operation, created, added)")
    return {key: value for key, value in line.items() if key != MARK and key not in names}, given, operation, moment


def _given_state(value: object) -> State:
    """`golden` is a promotion, which no file can give: approved."""
    return "approved" if value in ("approved", "golden") else "quarantined" if value == "quarantined" else "pending"


def _attempt(side: str, row: Mapping[str, Any]) -> dict[str, Any]:
    usage, error = row["usage"], row["error"]
    return {
        "side": side,
        "stop": str(row["stop"]),
        "error": str(error["kind"]) if error else "",
        "input_tokens": _count(usage["input_tokens"], 2**63),
        "output_tokens": _count(usage["output_tokens"], 2**63),
        "dollars": _figure(usage["dollars"]),
        "seconds": _figure(usage["seconds"]),
    }


def _rewards(side: str, parts: Any) -> list[dict[str, Any]]:
    return [
        {
            "side": side,
            "position": at,
            "judge": str(part["judge"]),
            "value": _score(part["value"]),
            "uncertainty": _figure(part["uncertainty"]),
            "missing": str(part["missing"]["kind"]) if part["missing"] else "",
        }
        for at, part in enumerate(parts)
    ]


def _failure(baseline: Any, before: Any, second: Any, after: Any) -> str:
    for reason in (baseline["error"], before["missing"], second["error"], after["missing"]):
        if reason is not None:
            return str(reason["kind"])
    return ""


def _number(value: object) -> float | None:
    """A finite number, and neither true nor false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(value: object, below: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ValueError(f"a count is a whole number from 0 on, not {value!r:.40}")
    return value


def _figure(value: object) -> float | None:
    number = _number(value)
    if value is not None and number is None:
        raise ValueError(f"this takes a finite number or null, not {value!r:.40}")
    return number


def _score(value: object) -> float | None:
    if value is None:
        return None
    number = _number(value)
    if number is None or not 0.0 <= number <= 1.0:
        raise ValueError(f"a reward is a number in [0, 1] or null, not {value!r:.40}")
    return number


# -- parts of a session -----------------------------------------------------------------------------------------------


def _session_reward(line: Mapping[str, Any]) -> tuple[float | None, str]:
    """The score of the session: never that of an error, never a 0 for what is missing."""
    for name, keys in (("session_reward", ("score",)), ("reward_stats", ("score", "score_mean")), ("reward_summary", ("score",))):
        found = line.get(name)
        for key in keys:
            value = found.get(key) if isinstance(found, dict) else None
            if value is not None:
                try:
                    return _score(value), ""
                except ValueError:
                    return None, "garbled"
    return None, "unscored"


def _session_judges(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    reward = line.get("session_reward")
    judges = reward.get("judges") if isinstance(reward, dict) else None
    found = []
    for at, judge in enumerate(judges if isinstance(judges, list) else []):
        if isinstance(judge, dict):
            value = _number(judge.get("score"))
            value = value if value is not None and 0.0 <= value <= 1.0 else None
            missing = "garbled" if value is None else ""
            name = str(judge.get("identifier", at))
            found.append({"side": "after", "position": at, "judge": name, "value": value, "uncertainty": None, "missing": missing})
    return found


def _when(line: Mapping[str, Any], meta: Mapping[str, Any], default: float) -> float:
    for source in (line, meta):
        for key in ("completed_at", "created_at"):
            value = source.get(key)
            seconds = _number(value)
            if seconds is not None:
                return seconds
            if isinstance(value, str):
                try:
                    moment = datetime.fromisoformat(value)
                except ValueError:
                    continue
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return default
