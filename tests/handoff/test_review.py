"""Review states decide what leaves: those of a real memory, and those that its export carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.handoff import exporter
from gepa_atlas.handoff import review as from_memory
from gepa_atlas.handoff.config import ExportConfig
from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.memory.exchange import as_jsonl
from gepa_atlas.memory.ingest import ingest
from gepa_atlas.memory.query import Filter, lines
from gepa_atlas.memory.review import review
from gepa_atlas.memory.rows import trace_id
from gepa_atlas.memory.store import Memory
from tests.handoff.desk import Settings, document, export, rows


def test_a_memory_is_opened_once_a_reading(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, opened = str(tmp_path / "memory.db"), []
    with Memory.open(address) as memory:
        ingest(memory, taught)
    real = Memory.open

    def counted(url: str, **more: Any) -> Memory:
        opened.append(url)
        return real(url, **more)

    monkeypatch.setattr(Memory, "open", counted)
    monkeypatch.setattr(from_memory, "_ASKED", 3)
    export(taught, tmp_path, memory=address, sft=False)
    assert opened == [address] * 2, "an export reads its lessons twice"


def test_the_states_of_a_memory(taught: Path, tmp_path: Path) -> None:
    told = [json.loads(text) for text in (taught / "traces.jsonl").read_text().splitlines()]
    train = [line for line in told if line["example"]["split"] == "train"]
    run_id = json.loads((taught / "optimized_prompts.json").read_text())["run_id"]
    ids = [trace_id(run_id, line["candidate"], line["example"]["id"], line["sample"]) for line in train]
    address = str(tmp_path / "memory.db")
    settings = Settings(ExportConfig(path=str(taught), memory=address, review="approved"))
    with Memory.open(address) as memory:
        ingest(memory, taught)
        before = exporter.inputs(Workspace(tmp_path, "export", 0, tmp_path), settings)
        review(memory, ids[:8], "approved")
        review(memory, ids[8:10], "quarantined")
        as_jsonl(lines(memory, Filter(), None), tmp_path / "exported.jsonl")
    after = exporter.inputs(Workspace(tmp_path, "export", 0, tmp_path), settings)
    assert {name for name in before if before[name] != after[name]} == {"reviews"}
    export(taught, tmp_path / "off", memory=address, sft=False)
    export(taught, tmp_path / "approved", memory=address, review="approved", sft=False)
    assert document(tmp_path / "off", "manifest.json")["lessons"]["removed"]["review_quarantined"] == 2
    left = rows(tmp_path / "approved", "traces")
    assert len(left) == 8 and {row["review"] for row in left} == {"approved"} and {row["split"] for row in left} == {"train"}
    assert [(row["candidate_id"], row["task_id"], row["sample"]) for row in left] == [
        (line["candidate"], line["example"]["id"], line["sample"]) for line in train[:8]
    ]
    export(tmp_path / "exported.jsonl", tmp_path / "file", review="approved", sft=False)
    again = rows(tmp_path / "file", "traces")
    assert [(row["candidate_id"], row["task_id"], row["review"], row["run_id"], row["delta"]) for row in again] == [
        (row["candidate_id"], row["task_id"], row["review"], run_id, row["delta"]) for row in left
    ]
    with pytest.raises(ConfigError, match="there is no memory here yet"):
        export(taught, tmp_path / "none", memory=str(tmp_path / "other.db"))
