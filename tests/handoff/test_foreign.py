"""Lines and rows of anybody: whatever is in them, the answer is a hand-off, or one line with exit code 2."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gepa_atlas.errors import UserError
from gepa_atlas.handoff.schema import ROWS
from gepa_atlas.types import Attempt, Demo, Example, Guidance, JudgeScore, Lesson, Reward
from tests.handoff.desk import Words, export, rows, validate

_JUDGED = (JudgeScore("exact", 0.0),)
LINES: list[dict[str, Any]] = [
    Lesson(
        Example(f"t{n}", f"Why {n}?", ("So.",), "c", "val" if n == 3 else "train"), "c", 0, protocol, Attempt("?"),
        Guidance("Think.", (Demo("d", "q", "a"),)), Attempt("So."), Reward(0.0, _JUDGED), Reward(1.0, (JudgeScore("exact", 1.0),)),
    ).to_json()
    for n, protocol in enumerate(["lesson", "lesson", "lesson", "lesson"])
]  # fmt: skip
_STEP = {"step_id": 1, "description": "d", "output": "o", "guidance": ["g"], "context": {}}
SESSION = {
    "task": "t",
    "final_answer": "f",
    "session_metadata": {"ground_truth": "g"},
    "session_reward": {"score": 0.5},
    "review_status": "golden",
    "steps": [_STEP | {"reward": {"score": 1.0, "judges": [{"identifier": "a", "score": 1}]}}],
}
ANY = st.sampled_from([None, True, 3, -1, 0.5, 1e400, "x", "", [], [1], ["a"], {}, {"a": 1}, [{"a": []}], [[]]])
FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, part in inner for path in paths(part, (*at, key)))]


def changed(value: Any, draw: st.DrawFn) -> Any:
    """The value with one place replaced, or taken away."""
    value = copy.deepcopy(value)
    path = draw(st.sampled_from(paths(value)[1:]))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if isinstance(holder, dict) and draw(st.booleans()):
        del holder[path[-1]]
    else:
        holder[path[-1]] = draw(ANY)
    return value


@st.composite
def one_changed(draw: st.DrawFn, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    at = draw(st.integers(0, len(lines) - 1))
    return [changed(line, draw) if n == at else line for n, line in enumerate(lines)]


@given(st.one_of(one_changed(LINES), one_changed([line | {"protocol": "playbook"} for line in LINES]), one_changed([SESSION] * 3)))
@FEW
def test_any_line(lines: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        place = Path(name)
        (place / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        try:
            export(place / "x.jsonl", place, sft=False, format="both")
        except UserError as error:
            assert "\n" not in str(error) and error.exit_code == 2 and not list((place / "handoff").iterdir())
        else:
            try:
                validate(place)
            except UserError as error:
                # One line of three without a score is more than a fifth of them.
                assert re.match(r"validate: (rows|judge_failed): \d+ found ", str(error)), error


@given(st.data())
@FEW
def test_any_row(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        place = Path(name)
        (place / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
        export(place / "x.jsonl", place)
        which = data.draw(st.sampled_from([name for name in sorted(ROWS) if rows(place, name)]))
        before = rows(place, which)
        found = data.draw(one_changed(before))
        (place / "handoff" / f"{which}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        try:
            validate(place, Words())
        except UserError as error:
            assert str(error).startswith("validate: ") and "\n" not in str(error)
        else:
            assert found == before, "the manifest's hash differs at least"
