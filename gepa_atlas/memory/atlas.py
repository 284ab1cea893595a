"""A lesson as a session trace of ATLAS's SDK, for what reads those: every field of its export line, filled from the lesson or empty.

One step, in lane `paired`: the guidance is the step's, the second attempt its output. ATLAS has no word for the attempt without guidance;
it lies in `session_metadata.baseline`. ATLAS knows no golden: such a lesson is approved.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def as_session(line: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """`line` is a lesson, `row` what the store knows of it (id, run_id, operation, state, created)."""
    example, before, after = line["example"], _breakdown(line["before"]), _breakdown(line["after"])
    guidance = line["guidance"]["text"]
    answers = example.get("answers") or [None]
    step = {
        "step_id": 1, "description": example["question"], "trace": "", "output": line["second"]["output"], "reward": after,
        "tool": None, "tool_params": {}, "context": example.get("context", ""), "validation": {}, "attempts": 1,
        "guidance": [guidance] if guidance else [], "metadata": {},
    }  # fmt: skip
    metadata = {
        "trace_id": row["id"], "run_id": row["run_id"], "operation": row["operation"], "candidate": line["candidate"],
        "example_id": example["id"], "sample": line["sample"], "split": example.get("split"), "protocol": line["protocol"],
        "ground_truth": answers[0], "baseline": {"output": line["baseline"]["output"], "reward": before}, "delta": line["delta"],
        "created_at": _moment(row["created"]),
    }  # fmt: skip
    score = after["score"]
    return {
        "task": example["question"],
        "final_answer": line["second"]["output"],
        "plan": {"steps": [{"id": 1, "description": example["question"]}]},
        "steps": [step],
        "session_metadata": metadata,
        "execution_mode": "paired",
        "review_status": "approved" if row["state"] == "golden" else row["state"],
        "review_notes": None,
        "reward_stats": {"score": score, "score_mean": score, "sample_count": len(after["judges"])},
        "reward_audit": [],
        "session_reward": after,
        "student_learning": None,
        "teacher_learning": None,
        "adaptive_summary": {"adaptive_mode": "paired"},
        "triage_dossier": None,
        "learning_key": row["operation"],
        "learning_history": None,
        "teacher_notes": [guidance] if guidance else [],
        "reward_summary": {"score": score},
        "drift": None,
        "drift_alert": None,
        "trajectory_events": [],
    }


def _moment(seconds: float) -> str | float:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # beyond the calendar
        return seconds


def _breakdown(reward: Mapping[str, Any]) -> dict[str, Any]:
    """A reward as ATLAS writes it. Unscored stays null: ATLAS itself would read a missing score as 0."""
    judges = [
        {"identifier": part["judge"], "score": part["value"], "rationale": part["rationale"], "principles": [], "samples": []}
        for part in reward["parts"]
    ]
    return {"score": reward["value"], "judges": judges, "rationale": reward["rationale"]}
