"""ATLAS session traces (AtlasSessionTrace JSON lines) as lessons without a baseline. Nothing of a line is lost: see `extra`.

A session is one task that was solved in steps. Each step is a lesson: what the executor was asked is its question, what the teacher said
is its guidance, what came out is its second attempt, and the judges' score is the reward of that attempt. No baseline was ever run, so
there is no delta. The split is drawn by the text of the task, so all steps of a session, and all sessions of one task, are in one split.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.lines import Line, Placed, read_lines
from gepa_atlas.types import Split, digest

_NO_BASELINE = {"kind": "no_baseline", "reason": "ATLAS sessions record no attempt without guidance"}
_USAGE = {"input_tokens": None, "output_tokens": None, "dollars": None, "seconds": 0.0, "calls": 0}


def is_session(line: Mapping[str, Any]) -> bool:
    """Whether this is a line of an ATLAS session export and not a lesson."""
    return "example" not in line and "task" in line and ("steps" in line or "final_answer" in line)


def split_of(task: str, eval_ratio: float) -> Split:
    """By the hash of the task's text alone: `eval_ratio` of the tasks are val, and as many again test."""
    at = int(digest(["session split", " ".join(task.split()).casefold()], 13), 16) / 16**13
    return "train" if at >= 2 * eval_ratio else "val" if at >= eval_ratio else "test"


def lessons(path: Path, eval_ratio: float) -> Iterator[Placed]:
    """One lesson a step, in the order of the file; a session without steps is one lesson. DataError names file and line."""
    seen: Counter[str] = Counter()
    for found in read_lines(path):
        session, place = found.line, found.place
        if not is_session(session):
            raise DataError(f"{place}: not an ATLAS session (it needs task, and steps or final_answer); keep other lines in another file")
        if not isinstance(session["task"], str) or not session["task"].strip():
            raise DataError(f"{place}: task is {session['task']!r:.60}; an ATLAS session has the text of its task there")
        steps = _parsed(session.get("steps")) or []
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise DataError(f"{place}: steps is {steps!r:.60}; an ATLAS session has a list of objects there")
        rest = {name: value for name, value in session.items() if name != "steps" or isinstance(value, str)}
        name = digest(session, 16)
        for at, step in enumerate(steps or [None]):
            line = _lesson(session, step, eval_ratio, place)
            more: Line = {"session_id": name, "step_at": at, "step": step}
            if at == 0:
                more |= {"session": rest}  # once a session: it may be long
            cell = line["example"]["id"]
            yield Placed(place, line | {"sample": seen[cell], "atlas": more} | _review(session))
            seen[cell] += 1


def _lesson(session: Line, step: Line | None, eval_ratio: float, place: str) -> Line:
    question = session["task"] if step is None else _asked(session["task"], step)
    context = "" if step is None else _shown(step.get("context") or step.get("prior_results") or step.get("context_outputs"))
    reward = _parsed(session.get("session_reward") if step is None else step.get("evaluation") or step.get("reward"))
    output = session.get("final_answer") if step is None else step.get("output")
    metadata = _parsed(session.get("session_metadata"))
    truth = metadata.get("ground_truth") if isinstance(metadata, dict) else None
    example: Line = {
        "id": digest([question, context], 16),
        "question": question,
        "answers": [truth] if isinstance(truth, str) and truth and (step is None or len(session.get("steps") or []) == 1) else [],
        "split": split_of(session["task"], eval_ratio),
    }
    guidance = [] if step is None else step.get("guidance") or []
    said = guidance if isinstance(guidance, list) else [guidance]
    return {
        "example": example | ({"context": context} if context else {}),
        "candidate": "",
        "protocol": "session",
        "baseline": {"output": None, "usage": _USAGE, "stop": "failed", "messages": [], "error": _NO_BASELINE},
        "guidance": {"text": "\n\n".join(_shown(part) for part in said), "demos": [], "settings": {}},
        "second": _second(output),
        "before": {"value": None, "parts": [], "rationale": "", "uncertainty": None, "missing": _NO_BASELINE},
        "after": _reward(reward, place),
        "delta": None,
        "teacher_usage": _USAGE,
        "requests": [],
    }


def _asked(task: str, step: Line) -> str:
    """What the executor of a step was asked: the task, the step, its tool and parameters."""
    parts = [f"Task: {task}"]
    for label, name in (("Step", "step_id"), ("Description", "description"), ("Tool", "tool"), ("Parameters", "tool_params")):
        if step.get(name) not in (None, "", {}, []):
            parts.append(f"{label}: {_shown(step[name])}")
    return "\n".join(parts)


def _second(output: Any) -> Line:
    if output in (None, ""):
        error = {"kind": "empty_answer", "reason": "the session has no output here"}
        return {"output": None, "usage": _USAGE, "stop": "failed", "messages": [], "error": error}
    return {"output": _shown(output), "usage": _USAGE, "stop": "done", "messages": [], "error": None}


def _reward(reward: Any, place: str) -> Line:
    """A missing score is missing; ATLAS itself reads it as 0."""
    breakdown = _parsed(reward.get("reward", reward)) if isinstance(reward, dict) else {"score": reward}
    breakdown = breakdown if isinstance(breakdown, dict) else {"score": breakdown}
    value = breakdown.get("score")
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or not math.isfinite(value)
    ):
        raise DataError(f"{place}: a reward score of {value!r:.40}; scores are numbers from 0 to 1, or absent")
    judges = breakdown.get("judges")
    parts = [_part(judge) for judge in judges if isinstance(judge, dict)] if isinstance(judges, list) else []
    missing = {"kind": "no_score", "reason": "the session has no score here"}
    rationale = breakdown.get("rationale")
    return {
        "value": None if value is None else float(value),
        "parts": parts,
        "rationale": rationale if isinstance(rationale, str) else "",
        "uncertainty": None,
        "missing": missing if value is None else None,
    }


def _part(judge: Line) -> Line:
    value, rationale = judge.get("score"), judge.get("rationale")
    scored = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return {
        "judge": _shown(judge.get("identifier", "judge")),
        "value": float(value) if scored and isinstance(value, int | float) else None,
        "rationale": rationale if isinstance(rationale, str) else "",
        "uncertainty": None,
        "missing": None if scored else {"kind": "no_score", "reason": "the judge gave no score from 0 to 1"},
    }


def _parsed(value: Any) -> Any:
    """A database export may hold a JSON document as text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _review(session: Line) -> Line:
    state = session.get("review_status")
    return {"review_status": state} if isinstance(state, str) else {}


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
