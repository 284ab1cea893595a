"""Validation: each check finds what it is for in files that were sound before, and nothing in those."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.config import ValidateConfig
from gepa_atlas.handoff.workspace import sha256_file
from tests.handoff.desk import Grpo, Model, Rows, Settings, Sft, Words, checks, document, export, rows, validate

Change = Callable[[Rows], Rows]
ERRORS = (
    "schema", "range", "manifest", "rows", "test_exported", "val_trained", "split_changed", "unknown_task", "duplicate_trace_id",
    "task_in_two_splits", "same_task_two_splits", "empty", "contaminated_prompt", "contaminated_row", "judge_failed", "mixed_tokenizers",
    "secrets", "prompt_context", "row_length", "chat_template", "other_tokenizer",
)  # fmt: skip
WARNINGS = (
    "noise", "same_task_two_ids", "near_duplicate_across_splits", "near_duplicate", "answer_leak", "exact_duplicate", "teacher_form",
    "truncated", "learnable", "completion_length",
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sound")
    export(taught, place)
    return place


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound / "handoff", tmp_path / "handoff", ignore=shutil.ignore_patterns("validation.json"))
    return tmp_path


def first(**changes: Any) -> Change:
    return lambda found: [found[0] | changes, *found[1:]]


def told(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_a_sound_hand_off_passes_every_check(sound: Path) -> None:
    result = validate(sound, Words())
    assert result.figures["errors"] == 0 and result.outputs == ("validation.json",)
    found = checks(sound)
    assert found.keys() == set(ERRORS) | set(WARNINGS)
    assert {name: check["severity"] for name, check in found.items()} == dict.fromkeys(ERRORS, "error") | dict.fromkeys(WARNINGS, "warning")
    assert {name for name, check in found.items() if check["status"] != "pass"} <= {
        "noise",
        "near_duplicate",
        "near_duplicate_across_splits",
    }
    assert found["prompt_context"]["figures"]["prompt_tokens"]["max"] > 50
    validate(sound)
    assert {name for name, check in checks(sound).items() if check["status"] == "skipped"} == {
        "prompt_context", "row_length", "completion_length", "chat_template", "other_tokenizer",
    }  # fmt: skip


HELD = "A question of the test split that goes on for long enough to hold fourteen words or more of it."


def with_held(found: Rows) -> Rows:
    return [row | {"question": HELD} if row["task_id"] == "x40" else row for row in found]


BROKEN: list[tuple[str, dict[str, Change]]] = [
    ("schema", {"sft": first(surprise=1)}),
    ("schema", {"traces": lambda found: [{k: v for k, v in found[0].items() if k != "rim"}, *found[1:]]}),
    ("schema", {"traces": first(delta=0.123)}),
    ("range", {"grpo_train": first(weight=0.0)}),
    ("range", {"baselines": first(mean=1.5)}),
    ("range", {"sft": first(delta=float("nan"))}),
    ("test_exported", {"grpo_val": first(task_id="x40")}),
    ("test_exported", {"sft": first(task_id="x40")}),
    ("val_trained", {"grpo_train": first(task_id="x20")}),
    ("split_changed", {"baselines": lambda found: [row | {"split": "val" if row["split"] == "train" else "train"} for row in found]}),
    ("unknown_task", {"dpo": first(task_id="nobody")}),
    ("duplicate_trace_id", {"traces": lambda found: [found[0], *found]}),
    ("task_in_two_splits", {"tasks": lambda found: [*found, found[0] | {"split": "test"}]}),
    ("same_task_two_splits", {"tasks": lambda found: [*found, found[0] | {"task_id": "new", "split": "test"}]}),
    ("same_task_two_ids", {"tasks": lambda found: [*found, found[0] | {"task_id": "new", "question": found[0]["question"].upper()}]}),
    ("empty", {"kto": first(completion=told(" "))}),
    ("empty", {"sft": first(completion=[])}),
    ("contaminated_row", {"tasks": with_held, "sft": first(completion=told(f"<teaching>{HELD}</teaching>"))}),
    ("contaminated_prompt", {"tasks": with_held, "prompts": lambda found: [row | {"system": HELD} for row in found]}),
    ("contaminated_row", {"dpo": first(rejected=told("<teaching>it is the content of box 40</teaching>"))}),
    ("answer_leak", {"sft": lambda found: [row | {"completion": told(answer(row))} for row in found]}),
    ("exact_duplicate", {"sft": lambda found: [found[0], *found]}),
    ("teacher_form", {"sft": first(completion=told("no tags"))}),
    ("judge_failed", {"traces": lambda found: [unscored(row) if n % 2 else row for n, row in enumerate(found)]}),
    ("truncated", {"traces": first(truncated=True)}),
    ("mixed_tokenizers", {"traces": lambda found: [row | {"tokens": block(str(n))} if n < 2 else row for n, row in enumerate(found)]}),
    ("secrets", {"prompts": first(origin="sk-" + "a" * 30)}),
    ("rows", {"grpo_train": lambda found: []}),
    ("learnable", {"traces": lambda found: [row for row in found if row["delta"] == 0.0 or row["split"] == "val"]}),
]  # fmt: skip


def answer(row: dict[str, Any]) -> str:
    return f"<teaching>It is content of box {row['task_id'].removeprefix('x')}.</teaching>"


def unscored(row: dict[str, Any]) -> dict[str, Any]:
    rim = row["rim"] | {"score": None, "status": "failed", "why": "timeout"}
    return row | {"rim": rim, "delta": None, "delta_low": None}


def block(name: str) -> dict[str, Any]:
    return {"prompt_ids": [1], "completion_ids": [2], "logprobs": [-0.5], "tokenizer_sha256": name, "model_sha256": "m"}


@pytest.mark.parametrize(("check", "changes"), BROKEN, ids=[f"{n}-{check}" for n, (check, _) in enumerate(BROKEN)])
def test_what_is_wrong_is_found_under_its_name(check: str, changes: dict[str, Change], copy: Path) -> None:
    for name, change in changes.items():
        (copy / "handoff" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in change(rows(copy, name))))
    with pytest.raises(DataError) as caught:  # at least the manifest's hashes differ
        validate(copy)
    assert "\n" not in str(caught.value)
    found = checks(copy)[check]
    assert found["status"] == "fail" and found["count"] >= 1 and found["ids"]
    assert checks(copy)["manifest"]["status"] == "fail"
    line = str(caught.value)
    named = next(c for c in checks(copy).values() if c["status"] == "fail" and c["severity"] == "error")
    assert line.startswith(f"validate: {named['name']}: {named['count']} found (") and all(name in line for name in named["ids"])


@pytest.mark.parametrize(
    ("settings", "dumb", "check"),
    [
        (Settings(model=Model(80)), False, "prompt_context"),
        (Settings(sft=Sft(max_length=60)), False, "row_length"),
        (Settings(), True, "chat_template"),
        (Settings(grpo=Grpo(max_completion_length=3)), False, "completion_length"),
    ],
)
def test_tokens_are_counted_with_the_models_own_tokenizer(settings: Settings, dumb: bool, check: str, copy: Path) -> None:
    if check == "completion_length":
        assert validate(copy, Words(dumb), settings).figures["warnings"] >= 1
    else:
        with pytest.raises(DataError, match=f"validate: {check}: .*x\\d+"):
            validate(copy, Words(dumb), settings)
    assert checks(copy)[check]["status"] == "fail"


def test_tokens_of_another_tokenizer_are_refused(copy: Path) -> None:
    path = copy / "handoff" / "traces.jsonl"
    lines = rows(copy, "traces")
    for name, refuses in (("words", False), ("others", True)):
        path.write_text("".join(json.dumps(row | {"tokens": block(name)}) + "\n" for row in lines))
        manifest = document(copy, "manifest.json")
        manifest["files"]["traces.jsonl"] = sha256_file(path)
        (copy / "handoff" / "manifest.json").write_text(json.dumps(manifest))
        if refuses:
            with pytest.raises(DataError, match=r"validate: other_tokenizer: \d+ found .*take the model they came from"):
                validate(copy, Words())
        else:
            validate(copy, Words())
        assert (checks(copy)["other_tokenizer"]["status"] == "fail") == refuses


def test_a_leak_may_be_made_an_error_and_others_data_is_kept_out(copy: Path) -> None:
    leaky = Settings(validation=ValidateConfig(leaks="error"))
    validate(copy, settings=leaky)
    assert checks(copy)["answer_leak"]["severity"] == "error"
    said = rows(copy, "sft")[0]["completion"][0]["content"]
    benchmark = copy / "benchmark.jsonl"
    benchmark.write_text(json.dumps({"question": f"Once upon a time somebody wrote the following words: {said}", "answer": said}) + "\n")
    with pytest.raises(DataError, match=r"validate: contaminated_row: .*benchmark.jsonl:1"):
        validate(copy, settings=Settings(validation=ValidateConfig(against=("benchmark.jsonl",))))
    benchmark.write_text('{"text": "no question"}\n')
    with pytest.raises(DataError, match=r"validation.against: .*benchmark.jsonl:1: has no text under question"):
        validate(copy, settings=Settings(validation=ValidateConfig(against=("benchmark.jsonl",))))


@pytest.mark.parametrize(("name", "text"), [("manifest.json", None), ("manifest.json", "[]"), ("manifest.json", "{"), ("kto.jsonl", None)])
def test_no_hand_off_is_no_traceback(name: str, text: str | None, copy: Path) -> None:
    path = copy / "handoff" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=name) as caught:
        validate(copy)
    assert "\n" not in str(caught.value) and not (copy / "handoff" / "validation.json").exists()
