"""The user's own files of questions are checked by line, and their contents are part of what the evaluation depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gepa_atlas.errors import DataError
from gepa_atlas.train import suites
from tests.train import room


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("regression", '{"prompt": "2 + 2?"}', "q.jsonl:2: no question in text"),
        ("regression", '["2 + 2?"]', "q.jsonl:2: no question in text"),
        ("regression", '{"question": "2 + 2?"}', "q.jsonl:2: no answer in text"),
        ("regression", '{"question": "2 + 2?", "answer": [4]}', "q.jsonl:2: no answer in text"),
        ("regression", '{"question": "2 + 2?", "answer": []}', "q.jsonl:2: no answer in text"),
        ("underspecified", '{"question": 3}', "q.jsonl:2: no question in text"),
        ("underspecified", '{"question": "2 + 2?", "context": 1}', "q.jsonl:2: no question in text"),
        ("underspecified", "{", "q.jsonl:2: "),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, line: str, said: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n' + line + "\n")
    work, config = room.workspace(tmp_path, "validate"), room.config(eval={name: "q.jsonl"})
    with pytest.raises(DataError, match=said):
        suites.check(work, config)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data file"):
        suites.check(room.workspace(tmp_path, "validate"), room.config(eval={"regression": "none.jsonl"}))


def test_another_question_is_another_evaluation(tmp_path: Path) -> None:
    work, config = room.workspace(tmp_path, "eval"), room.config(eval={"underspecified": "q.jsonl"})
    room.write(tmp_path / "q.jsonl", [{"question": "How many?"}])
    before = suites.inputs(work, config)
    room.write(tmp_path / "q.jsonl", [{"question": "How much?"}])
    assert before.keys() == {"underspecified"} and suites.inputs(work, config) != before
