"""The benchmark of the reward system, on the slices that come with the tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.rim import __main__ as rim
from benchmarks.rim.speed import faults, replies

DATA = Path(__file__).parents[1] / "data"


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> list[dict[str, object]]:
    monkeypatch.setattr(sys, "argv", ["rim", *arguments, "--cuts", "1", "--json", str(out)])
    rim.main()
    written = json.loads(out.read_text())
    assert written["meta"]["benchmark"].startswith("rim.")
    rows: list[dict[str, object]] = written["rows"]
    return rows


def test_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = run(monkeypatch, tmp_path / "o.json", "pairs", "--pairs", str(DATA / "llmbar" / "slice.jsonl.gz"))
    fitted = next(row for row in rows if row["policy"] == "panel, fitted on the other half: all")
    assert (fitted["halves"], fitted["n"]) == (2, 60) and float(str(fitted["tie_credit"])) > 0.7


def test_faults() -> None:
    rows = {row["faults"]: row for row in faults()}
    assert rows["30 %"]["equal_to_no_faults"] == rows["30 %"]["rewards"] == 300
    assert (rows["all"]["scored"], rows["all"]["zeros_made_up"]) == (0, 0)


def test_ten_thousand_damaged_replies() -> None:
    rows = {row["what"]: row["figure"] for row in replies()}
    assert rows["damaged replies without a traceback"] == 10_000
    assert rows["of these with a score outside [0, 1]"] == 0
    assert 1000 < rows["of these with a score"] < 9000
