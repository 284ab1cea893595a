"""Lines of traces.jsonl, and of an ATLAS export, for tests."""

from __future__ import annotations

from typing import Any

USAGE = {"input_tokens": 12, "output_tokens": 3, "dollars": 0.0, "seconds": 0.25, "calls": 1}


def attempt(output: str | None) -> dict[str, Any]:
    error = None if output is not None else {"kind": "timeout", "reason": "too late"}
    return {"output": output, "usage": USAGE, "stop": "done" if output is not None else "failed", "messages": [], "error": error}


def reward(value: float | None, judge: str = "exact") -> dict[str, Any]:
    missing = None if value is not None else {"kind": "timeout", "reason": "too late"}
    part = {"judge": judge, "value": value, "rationale": "said so", "uncertainty": None, "missing": missing}
    return {"value": value, "parts": [part], "rationale": "", "uncertainty": None, "missing": missing}


def lesson_line(
    example: str, candidate: str = "c0", before: float | None = 0.0, after: float | None = 1.0, *, question: str = "", split: str = "val"
) -> dict[str, Any]:
    return {
        "example": {"id": example, "question": question or f"What is {example}?", "answers": ["gold"], "split": split},
        "candidate": candidate,
        "sample": 0,
        "protocol": "playbook",
        "baseline": attempt("wrong" if before is not None else None),
        "guidance": {"text": "Say gold.", "demos": [], "settings": {}},
        "second": attempt("gold" if after is not None else None),
        "before": reward(before),
        "after": reward(after),
        "delta": None if before is None or after is None else after - before,
        "teacher_usage": USAGE,
        "requests": [f"{candidate}-{example}"],
    }


def session_line(task: str = "Reset the password", score: Any = 0.8, **more: Any) -> dict[str, Any]:
    """Every field of the SDK's export line."""
    return {
        "task": task,
        "final_answer": "done",
        "plan": {"steps": [{"id": 1, "description": "look"}]},
        "steps": [{"step_id": 1, "description": "look", "trace": "t", "output": "o", "reward": {"score": 1.0}, "guidance": ["g"]}],
        "session_metadata": {"created_at": "2026-11-01T10:00:00+00:00", "agent": "helpdesk", "tags": ["a", "b"]},
        "execution_mode": "paired",
        "review_status": "approved",
        "review_notes": "fine",
        "reward_stats": {"score": score, "score_mean": score, "score_stddev": 0.1, "sample_count": 3},
        "reward_audit": [{"prompt": "p", "response": "r"}],
        "session_reward": {"score": score, "judges": [{"identifier": "process", "score": 0.7, "rationale": "ok"}], "rationale": "fine"},
        "student_learning": "learn",
        "teacher_learning": "teach",
        "adaptive_summary": {"mode": "paired", "confidence": 0.7},
        "triage_dossier": {"risks": []},
        "learning_key": "helpdesk-key",
        "learning_history": {"entries": [], "count": 0},
        "teacher_notes": ["n"],
        "reward_summary": {"score": score},
        "drift": {"z": 0.1},
        "drift_alert": False,
        "trajectory_events": [{"id": 7, "event": {"deep": [1, 2.5, None, True]}}],
        **more,
    }
