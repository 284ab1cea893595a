"""Exports of real runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.handoff.prompts import read_completion
from gepa_atlas.handoff.schema import ROWS, json_schema
from tests.handoff.desk import ROOT, Notes, bytes_of, document, export, rows, validate

SETS = ("traces", "baselines", "sft", "dpo", "kto", "grpo_train", "grpo_val")


def test_a_taught_run_gives_every_set(taught: Path, tmp_path: Path) -> None:
    result = export(taught, tmp_path)
    assert {f"{name}.jsonl" for name in ROWS} | {"manifest.json"} == set(result.outputs)
    split = {row["task_id"]: row["split"] for row in rows(tmp_path, "tasks")}
    assert sorted(split.values()).count("test") == 12 and len(split) == 44
    for name in SETS:
        found = rows(tmp_path, name)
        assert found, name
        assert all(
            split[row["task_id"]] in (("train",) if name in ("sft", "dpo", "kto", "grpo_train") else ("train", "val")) for row in found
        )
    best = rows(tmp_path, "sft")[0]
    assert best["evidence"] == "lesson" and best["delta"] == 1.0 and best["attempt_known"]
    assert best["prompt"][0]["role"] == "system" and "generous" in best["prompt"][0]["content"]
    assert "I cannot open it." in best["prompt"][1]["content"]
    assert read_completion(best["completion"][0]["content"]).text.startswith("Say sesame")
    assert all(pair["gap"] >= 0.2 and pair["chosen"] != pair["rejected"] for pair in rows(tmp_path, "dpo"))
    assert {row["label"] for row in rows(tmp_path, "kto")} == {True, False}
    assert validate(tmp_path).figures["errors"] == 0


def test_a_playbook_run_speaks_through_its_candidates(toy: Path, tmp_path: Path) -> None:
    """No operator of that run reads train lessons, so there are none: the best candidates' own text is what the teacher learns to write."""
    export(toy, tmp_path, top_per_task=2)
    found = rows(tmp_path, "sft")
    assert {row["evidence"] for row in found} == {"candidate"} and {row["trace_id"] for row in found} == {None}
    prompts = {row["candidate_id"]: row for row in rows(tmp_path, "prompts")}
    assert all(row["completion"][0]["content"] == prompts[row["candidate_id"]]["texts"]["guidance"] for row in found)
    assert all(prompts[row["candidate_id"]]["val_delta_low"] == row["delta_low"] >= 0.02 for row in found)
    grpo = rows(tmp_path, "grpo_train")
    assert len(grpo) == 36 and all(row["baseline_reward"] is None and row["baseline_n"] == 0 and row["weight"] == 1.0 for row in grpo)
    assert "first attempt" not in grpo[0]["prompt"][1]["content"] and not found[0]["attempt_known"]
    known = json.loads((toy / "optimized_prompts.json").read_text())
    named = {part: row for row in prompts.values() for part in row["role"].split(" and ") if part}
    assert named["best"]["texts"] == known["best_candidate"] and named["seed"]["texts"] == known["seed_candidate"]["candidate"]
    by_hash = {row["prompt_hash"]: row["generation"] for row in prompts.values()}
    assert all(row["generation"] == 1 + max([by_hash[p] for p in row["parent_hashes"]], default=-1) for row in prompts.values())
    assert {line["candidate"] for line in map(json.loads, (toy / "traces.jsonl").read_text().splitlines())} <= prompts.keys()
    assert named["seed"]["generation"] == 0 and all(row["generation"] > 0 or row["origin"] == "seed" for row in prompts.values())
    assert validate(tmp_path).figures["errors"] == 0


@pytest.mark.parametrize("which", ["taught", "toy"])
def test_the_same_input_gives_the_same_bytes(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue(which)
    for name in ("a", "b"):
        export(run if name == "a" else run / "traces.jsonl", tmp_path / name, format="both")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert len(bytes_of(tmp_path / "a")) == 2 * len(ROWS) + 1


def test_parquet_says_what_the_lines_say(taught: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    export(taught, tmp_path, format="both")
    for name in ROWS:
        lines, table = rows(tmp_path, name), pq.read_table(tmp_path / "handoff" / f"{name}.parquet").to_pylist()
        assert len(lines) == len(table)
        for line, cell in zip(lines, table, strict=True):
            for key, value in line.items():
                assert cell[key] == value or json.loads(cell[key]) == value, (name, key)
    export(taught, tmp_path)
    assert not list((tmp_path / "handoff").glob("*.parquet")), "of an earlier export"


def test_rows_are_as_the_published_schema_says(taught: Path, toy: Path, tmp_path: Path) -> None:
    published = json.loads((ROOT / "docs" / "handoff.schema.json").read_text())
    assert published == json_schema(), "run: python -m gepa_atlas.handoff.schema > docs/handoff.schema.json"
    for run in (taught, toy):
        export(run, tmp_path)
        for name in ROWS:
            check = jsonschema.Draft202012Validator({**published["files"][f"{name}.jsonl"], "$defs": published["$defs"]})
            for row in rows(tmp_path, name):
                check.validate(row)


def test_val_lessons_that_stay_at_home_still_say_who_is_good(toy: Path, tmp_path: Path) -> None:
    export(toy, tmp_path / "with")
    export(toy, tmp_path / "without", include_val=False)
    assert rows(tmp_path / "without", "sft") == rows(tmp_path / "with", "sft") != []
    assert all(rows(tmp_path / "without", name) == [] for name in ("traces", "baselines", "grpo_val"))


def test_modes(taught: Path, tmp_path: Path) -> None:
    export(taught, tmp_path / "system")
    export(taught, tmp_path / "distil", prompt_mode="distil")
    export(taught, tmp_path / "seed", prompt="seed")
    system, distil, seed = (rows(tmp_path / name, "grpo_train")[0] for name in ("system", "distil", "seed"))
    assert [turn["role"] for turn in distil["prompt"]] == ["user"]
    assert distil["privileged_context"] == system["prompt"][0]["content"] and system["privileged_context"] == ""
    assert distil["prompt_hash"] == system["prompt_hash"] != seed["prompt_hash"]
    assert "generous" in system["prompt"][0]["content"] and "generous" not in seed["prompt"][0]["content"]


def test_traces_away_from_their_run_say_what_is_not_known(toy: Path, taught: Path, tmp_path: Path) -> None:
    for name, run in (("toy", toy), ("taught", taught)):
        copy = tmp_path / f"{name}.jsonl"
        shutil.copy(run / "traces.jsonl", copy)
        notes = Notes()
        if name == "toy":  # only val lessons: nothing to train on
            with pytest.raises(DataError, match="no train task"):
                export(copy, tmp_path / name, notes=notes)
            assert not list((tmp_path / name / "handoff").iterdir())
        else:
            export(copy, tmp_path / name, notes=notes)
            assert document(tmp_path / name, "manifest.json")["unknown"] == notes.said
            assert validate(tmp_path / name).figures["errors"] == 0
        assert "no run.db is beside the traces" in notes.said[0]


def test_a_relabelled_test_lesson_is_refused(taught: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(taught, copy)
    (copy / "traces.jsonl").write_text((taught / "traces.jsonl").read_text().replace('"split": "test"', '"split": "train"'))
    with pytest.raises(DataError, match=r"traces.jsonl:\d+: example 'x\d+' is said to be train, in the run it is test"):
        export(copy, tmp_path / "out")
    assert not list((tmp_path / "out" / "handoff").iterdir())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a better reward", "not on record in run.db"),
        ("other data", "the examples are no longer those of the run"),
        ("an older report", "has no seed_candidate; an older version wrote it: run `gepa-atlas report"),
        ("no report", r"optimized_prompts.json: cannot be read"),
        ("not finished", "there is no run.db"),
    ],
)
def test_what_does_not_belong_to_the_run_is_refused(what: str, said: str, taught: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(taught, copy)
    if what == "a better reward":
        row = json.loads((copy / "traces.jsonl").read_text().splitlines()[0])
        row["after"]["value"], row["delta"] = 0.5, 0.5 - row["before"]["value"]
        (copy / "traces.jsonl").write_text(json.dumps(row) + "\n")
    elif what == "other data":
        config = json.loads((copy / "config.json").read_text())
        data = Path(config["data"]["path"])
        (tmp_path / "data.jsonl").write_text(data.read_text().replace("What is in box 3?", "What is in box three?"))
        config["data"]["path"] = str(tmp_path / "data.jsonl")
        (copy / "config.json").write_text(json.dumps(config))
    elif what == "an older report":
        found = json.loads((copy / "optimized_prompts.json").read_text())
        del found["seed_candidate"]
        (copy / "optimized_prompts.json").write_text(json.dumps(found))
    elif what == "no report":
        (copy / "optimized_prompts.json").unlink()
    else:
        (copy / "run.db").unlink()
    with pytest.raises((DataError, ConfigError), match=said) as caught:
        export(copy, tmp_path / "out")
    assert "\n" not in str(caught.value) and not list((tmp_path / "out" / "handoff").iterdir())


def test_guidance_of_too_many_words_is_in_no_set_that_trains(taught: Path, tmp_path: Path) -> None:
    def said() -> list[str]:
        lines = [turn[0]["content"] for row in rows(tmp_path, "dpo") for turn in (row["chosen"], row["rejected"])]
        return lines + [row["completion"][0]["content"] for name in ("sft", "kto") for row in rows(tmp_path, name)]

    export(taught, tmp_path)
    lengths = sorted({len(text.split()) for text in said()})
    limit = lengths[0]
    assert lengths[-1] > limit
    export(taught, tmp_path, sft=False, max_words=limit)
    assert said() and {len(text.split()) for text in said()} == {limit}
    assert document(tmp_path, "manifest.json")["sft"]["removed"]["too_long"] > 0


def test_a_failed_export_leaves_the_earlier_one(taught: Path, tmp_path: Path) -> None:
    export(taught, tmp_path)
    before = bytes_of(tmp_path)
    with pytest.raises(DataError, match=r"no lesson is good enough for SFT \(.*review lessons, or loosen handoff.review \(golden\)"):
        export(taught, tmp_path, min_delta=1.0, z=3.0, max_uncertainty=1e-9, top_per_task=1, review="golden")
    assert bytes_of(tmp_path) == before
    (tmp_path / "handoff" / ".export-left").mkdir()  # by a process that was killed
    export(taught, tmp_path, sft=False, min_delta=1.0, z=3.0, review="golden")
    assert rows(tmp_path, "sft") == [] and rows(tmp_path, "grpo_train") and bytes_of(tmp_path).keys() == before.keys()
