"""ATLAS session traces as input."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.sessions import split_of
from gepa_atlas.types import canonical
from tests.handoff.desk import Settings, Sft, document, export, rows, validate

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
STEP_FIELDS = (
    "trace",
    "tool",
    "tool_params",
    "context",
    "validation",
    "metadata",
    "runtime",
    "depends_on",
    "artifacts",
    "deliverable",
    "x_new",
)
SESSION_FIELDS = (
    "plan",
    "trajectory_events",
    "student_learning",
    "teacher_learning",
    "learning_history",
    "adaptive_summary",
    "drift",
    "x_new",
)


@st.composite
def steps(draw: st.DrawFn) -> dict[str, Any]:
    score = draw(st.sampled_from([0.0, 0.5, 1.0, None]))
    judges = [{"identifier": "accuracy", "score": score, "rationale": "so", "samples": [{"score": 0.5, "temperature": 0.2}]}]
    step = {
        "step_id": draw(st.integers(1, 3)),
        "description": draw(st.sampled_from(["look", "write it down"])),
        "output": draw(st.sampled_from(["found", ""])),
        "reward": {"score": score, "judges": judges} if draw(st.booleans()) else score,
        "guidance": draw(st.sampled_from([[], ["be brief"], [{"text": "nested"}]])),
        "attempts": draw(st.integers(1, 2)),
    }
    return step | {name: draw(JSON) for name in draw(st.sets(st.sampled_from(STEP_FIELDS)))}


@st.composite
def sessions(draw: st.DrawFn) -> dict[str, Any]:
    session = {"task": f"task {draw(st.integers(0, 30))}", "final_answer": draw(st.sampled_from(["done", ""]))}
    session["steps"] = draw(st.lists(steps(), max_size=3))
    session["session_metadata"] = draw(st.sampled_from([{}, {"ground_truth": "gold", "id": 7}]))
    return session | {name: draw(JSON) for name in draw(st.sets(st.sampled_from(SESSION_FIELDS)))}


def write(found: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(session) + "\n" for session in found))
    return path


def plain(task: int, **more: Any) -> dict[str, Any]:
    return {
        "task": f"task {task}",
        "final_answer": "done",
        "steps": [{"step_id": 1, "description": "d", "output": "o", "reward": 0.5}],
    } | more


@given(st.lists(sessions(), min_size=1, max_size=6), st.sampled_from([0.1, 0.3]))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_no_field_is_lost_and_sessions_stay_whole(found: list[dict[str, Any]], ratio: float) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        place = Path(name)
        path = write(found + [plain(n) for n in range(100, 110)], place / "export.jsonl")  # so that there is a train task
        export(path, place, sft=False, eval_ratio=ratio)
        again: dict[str, dict[str, Any]] = defaultdict(dict)
        splits: dict[str, set[str]] = defaultdict(set)
        for row in rows(place, "traces"):
            extra = json.loads(row["extra_json"])["atlas"]
            session = again[extra["session_id"]]
            session |= extra.get("session", {})
            splits[session["task"]].add(row["split"])
            if extra["step"] is not None:
                session.setdefault("steps", {})[extra["step_at"]] = extra["step"]
            assert row["delta"] is None and row["baseline"]["n"] == 0
        whole = {canonical(s | {"steps": [step for _, step in sorted(s.get("steps", {}).items())]}) for s in again.values()}
        shown = {canonical(s) for s in found if split_of(s["task"], ratio) != "test"}
        assert shown <= whole and not {canonical(s) for s in found if split_of(s["task"], ratio) == "test"} & whole
        assert all(len(names) == 1 for names in splits.values())
        assert document(place, "manifest.json")["lessons"]["read"] == sum(max(1, len(s["steps"])) for s in found) + 10
        assert rows(place, "sft") == rows(place, "dpo") == rows(place, "kto") == []
        tasks = {row["task_id"]: row["split"] for row in rows(place, "tasks")}
        assert {tasks[row["task_id"]] for row in rows(place, "grpo_train")} == {"train"}


def test_every_train_and_val_session_can_be_put_together_again(tmp_path: Path) -> None:
    found = [plain(n, x_unknown={"deep": [n]}) for n in range(40)]
    export(write(found, tmp_path / "s.jsonl"), tmp_path, sft=False)
    split = {row["question"].splitlines()[0].removeprefix("Task: "): row["split"] for row in rows(tmp_path, "tasks")}
    assert set(split.values()) == {"train", "val", "test"}
    again = [json.loads(row["extra_json"])["atlas"] for row in rows(tmp_path, "traces")]
    assert [a["session"] | {"steps": [a["step"]]} for a in again] == [s for s in found if split[s["task"]] != "test"]
    prompts = rows(tmp_path, "prompts")
    assert [row["role"] for row in prompts] == ["seed and best"] and "teacher" in prompts[0]["system"]
    assert validate(tmp_path, settings=Settings(sft=Sft(False))).figures["errors"] == 0


def test_the_forms_that_a_session_comes_in(tmp_path: Path) -> None:
    score = {"score": 0.25, "judges": [{"identifier": "process", "score": 0.25, "rationale": "so"}]}
    forms = [0.25, score, {"reward": score}, json.dumps(score), {"reward": json.dumps(score)}]
    found = [plain(n, steps=[{"step_id": 1, "output": {"as": "object"}, "reward": forms[n % 5]}]) for n in range(60)]
    found += [plain(n, steps=json.dumps([{"step_id": 1, "output": "o", "evaluation": score}])) for n in range(60, 70)]
    found += [{"task": f"task {n}", "final_answer": "done", "session_reward": score} for n in range(70, 80)]
    export(write(found, tmp_path / "s.jsonl"), tmp_path, sft=False)
    traces = rows(tmp_path, "traces")
    assert {row["rim"]["score"] for row in traces} == {0.25} and {row["rim_before"]["why"] for row in traces} == {"no_baseline"}
    assert {row["student_taught"] for row in traces} == {'{"as": "object"}', "o", "done"}
    assert len({row["task_id"] for row in rows(tmp_path, "tasks")}) == 80


def test_unreviewed_sessions_stay_at_home_when_review_is_on(tmp_path: Path) -> None:
    states = ["approved", "golden", "pending", "quarantined", None]
    found = [plain(n) | ({"review_status": states[n % 5]} if states[n % 5] else {}) for n in range(60)]
    path = write(found, tmp_path / "s.jsonl")
    for level, allowed in (("off", {"approved", "golden", "pending", ""}), ("approved", {"approved", "golden"}), ("golden", {"golden"})):
        export(path, tmp_path / level, sft=False, review=level)
        assert {row["review"] for row in rows(tmp_path / level, "traces")} == allowed
        counts = document(tmp_path / level, "manifest.json")["lessons"]
        assert counts["read"] == 60 == sum(counts["removed"].values()) + counts["exported"]
        assert counts["removed"].keys() >= {"review_quarantined"} | ({f"review_not_{level}"} if level != "off" else set())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"task": 3, "steps": []}', r"s.jsonl:2: task is 3; an ATLAS session has the text of its task there"),
        ('{"task": "t", "steps": ["a"]}', r"s.jsonl:2: steps is \['a'\]"),
        ('{"task": "t", "steps": [{"reward": {"score": 7}}]}', r"s.jsonl:2: a reward score of 7; scores are numbers from 0 to 1"),
        ('{"task": "t", "steps": [{"reward": NaN}]}', r"s.jsonl:2: not a JSON object \(NaN is not JSON\)"),
        ('{"example": {}}', r"s.jsonl:2: not an ATLAS session"),
        ("[1]", r"s.jsonl:2: a JSON list where each line is an object"),
        ('{"task": ', r"s.jsonl:2: not a JSON object"),
    ],
)
def test_a_bad_session_is_named(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps(plain(1)) + "\n" + line + "\n")
    with pytest.raises(DataError, match=said) as caught:
        export(tmp_path / "s.jsonl", tmp_path, sft=False)
    assert "\n" not in str(caught.value) and not list((tmp_path / "handoff").iterdir())
