"""Whatever is given: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import AtlasError, StoreFull, UserError
from gepa_atlas.handoff import exporter
from gepa_atlas.handoff.config import ExportConfig
from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Example, Guidance, Lesson, Reward
from tests.handoff.desk import Settings, bytes_of, export, rows, validate

GOOD = Lesson(
    Example("t", "Why?", ("So.",)), "c", 0, "lesson", Attempt("?"), Guidance("Think."), Attempt("So."), Reward(0.0), Reward(1.0)
).to_json()


def line(**changes: Any) -> str:
    return json.dumps(GOOD | changes)


BAD = [
    ("", "no lessons in it"),
    ("\n \n", "no lessons in it"),
    ("\xff", "not a JSON object"),
    ("{", "x.jsonl:1: not a JSON object"),
    ("[]", "x.jsonl:1: a JSON list where each line is an object"),
    ("[" * 100_000, "x.jsonl:1: not a JSON object"),
    ('{"a": 1}', "x.jsonl:1: example is None; a lesson has a dict there"),
    (line(example={"id": "t"}), "x.jsonl:1: example: question is None"),
    (line(example=GOOD["example"] | {"split": "dev"}), "example.split is 'dev'; it is train, val or test"),
    (line(example=GOOD["example"] | {"answers": "So."}), "example.answers is 'So.'; it is a list of texts"),
    (line(sample=True), "sample is True; it is a count from 0"),
    (line(sample=-1), "sample is -1"),
    (line(second={"output": 3}), "second.output is 3; it is text or null"),
    (line(after={"value": 1.5}), "after.value is 1.5; a reward is a number from 0 to 1"),
    (line(after={"value": True}), "after.value is True"),
    (line(after={"value": 0.5}), "delta is 1.0 and after less before is 0.5"),
    (line(delta="1"), "delta is '1'; it is a number or null"),
    (line(before={"value": None}, delta=0.0), "delta is 0.0 and after less before is None"),
    (line().replace('"delta": 1.0', '"delta": NaN'), "NaN is not JSON"),
    (line(guidance=[]), "guidance is []"),
    (line() + "\n" + line(example=GOOD["example"] | {"split": "val"}), "x.jsonl:2: task 't' is val here and train before"),
    (line() + "\n" + line(protocol="playbook"), "lessons of the protocols lesson, playbook in one file"),
    (line(after={"value": 0.0}, delta=0.0), "no lesson is good enough for SFT (1 below_min_delta); lower handoff.min_delta"),
    (line(before={"value": 1.0}, delta=0.0), "no task is left to train on (1 solved_by_baseline)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(text.encode("latin-1") if text == "\xff" else text.encode())
    with pytest.raises(UserError) as caught:
        export(path, tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not list((tmp_path / "handoff").iterdir())


def test_a_good_file_is_exported(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(line(x_later={"a": 1}) + "\n")
    export(tmp_path / "x.jsonl", tmp_path)
    assert [row["delta"] for row in rows(tmp_path, "sft")] == [1.0]
    assert json.loads(rows(tmp_path, "traces")[0]["extra_json"])["x_later"] == {"a": 1}


def test_odd_characters_come_through(tmp_path: Path) -> None:
    odd = "brace {question} \u2028 \x85 \ud800 \U0001f600"
    changes = {"guidance": {"text": odd, "demos": [], "settings": {}}, "example": GOOD["example"] | {"question": odd}}
    (tmp_path / "x.jsonl").write_text(line(**changes) + "\n")
    export(tmp_path / "x.jsonl", tmp_path, format="both")
    text = (tmp_path / "handoff" / "sft.jsonl").read_text("utf-8")
    assert len(text.splitlines()) == 1 and json.loads(text)["completion"][0]["content"] == f"<teaching>\n{odd}\n</teaching>"
    validate(tmp_path)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, "handoff.path: says where the lessons are; give --export-path TRACES"),
        ("missing.jsonl", "handoff.path: there is no "),
        (".", "holds no run (there is no run.db)"),
    ],
)
def test_a_source_that_is_none(path: str | None, said: str, tmp_path: Path) -> None:
    work = Workspace(tmp_path, "export", 0, tmp_path)
    with pytest.raises(AtlasError) as caught:
        exporter.run(work, Settings(ExportConfig(path=path)))
    assert said in str(caught.value) and caught.value.exit_code == 2


def test_keys_of_the_section_are_checked() -> None:
    for key, value in (
        ("z", -1),
        ("format", "parquet"),
        ("top_per_task", 0),
        ("min_delta", float("nan")),
        ("teacher", {"user": "no place"}),
    ):
        with pytest.raises(UserError, match=f"handoff.{key}"):
            load(ExportConfig, {key: value}, "handoff")
    with pytest.raises(UserError, match="did you mean 'min_delta'"):
        load(ExportConfig, {"min_detla": 0.1}, "handoff")


def test_secrets_stay_at_home(tmp_path: Path) -> None:
    key = "sk-" + "b" * 40
    taught = GOOD | {"guidance": {"text": f"Use {key}.", "demos": [], "settings": {}}, "baseline": GOOD["baseline"] | {"output": key}}
    (tmp_path / "x.jsonl").write_text(json.dumps(taught | {"note": {key: [key]}}) + "\n")
    export(tmp_path / "x.jsonl", tmp_path, format="both")
    assert all(key.encode() not in content for content in bytes_of(tmp_path).values())
    assert rows(tmp_path, "traces")[0]["redactions"] >= 4


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jsonl").write_text(line() + "\n")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match="the disk refused a write"):
        export(tmp_path / "x.jsonl", tmp_path)
    assert not list((tmp_path / "handoff").iterdir())
