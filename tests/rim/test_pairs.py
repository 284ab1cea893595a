"""Pairwise replays: a flip is a tie, a panel that is not sure abstains, nothing is below chance."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gepa_atlas.cli.rim import app
from gepa_atlas.errors import DataError
from gepa_atlas.rim.pairs import Pairs, bench_pairs, calibrate_pairs, load_pairs, steadiness

LLMBAR = Path(__file__).parents[1] / "data" / "llmbar" / "slice.jsonl.gz"


def part(pairs: Pairs, rows: slice) -> Pairs:
    return dataclasses.replace(
        pairs,
        keys=pairs.keys[rows],
        groups=pairs.groups[rows],
        votes=pairs.votes[rows],
        first=pairs.first[rows],
        digests=pairs.digests[rows],
    )


def test_llmbar_is_never_below_chance() -> None:
    pairs = load_pairs(LLMBAR)
    fitted, figures = calibrate_pairs(part(pairs, slice(0, 60)))
    held_out = part(pairs, slice(60, 120))
    plain, panel = bench_pairs(held_out)["rows"][0], bench_pairs(held_out, fitted)["rows"][0]
    assert plain["tie_credit"] >= 0.5
    assert panel["tie_credit"] > 0.7
    assert panel["accuracy_when_decided"] > 0.75
    assert figures["decided"] > 0.5
    assert fitted["weights"]["GPT-4"] > max(w for name, w in fitted["weights"].items() if name != "GPT-4")
    alone = {row["policy"]: row for row in bench_pairs(held_out, fitted)["rows"] if row["policy"].startswith("judge")}
    assert alone["judge ChatGPT/Vanilla_NoRules"]["tie_credit"] < 0.5  # fooled, and not listened to
    assert alone["judge Falcon/Vanilla"]["prefers_first"] != pytest.approx(0.5, abs=0.05)
    assert 0 < alone["judge GPT-4/Vanilla"]["consistency"] <= 1
    assert bench_pairs(held_out, fitted)["meta"]["held_out"] is True
    assert bench_pairs(pairs, fitted)["meta"]["held_out"] is False


def test_a_panel_of_fooled_judges_abstains_and_says_so() -> None:
    pairs = load_pairs(LLMBAR)
    fooled = [k for k, judge in enumerate(pairs.judges) if judge.startswith("ChatGPT/")]
    only = dataclasses.replace(
        pairs, judges=tuple(pairs.judges[k] for k in fooled), votes=pairs.votes[:, fooled], first=pairs.first[:, fooled]
    )
    fitted, _ = calibrate_pairs(part(only, slice(0, 60)))
    result = bench_pairs(part(only, slice(60, 120)), fitted)
    assert result["rows"][0]["abstained"] == 1.0
    assert result["rows"][0]["tie_credit"] == 0.5
    assert result["meta"]["abstains"].startswith("always")


def test_both_spellings_of_an_answer(tmp_path: Path) -> None:
    rows = [
        {
            "pair_id": "1",
            "label": "A>B",
            "judges": {"j": [{"decision": "A>B"}, {"decision": "B>A"}], "k": ["A>B", "A>B"], "l": ["A=B", "A=B"]},
        },
        {"subset": "s", "i": 2, "label": 2, "judges": {"j": ["2", "2"], "k": ["1", "2"], "l": [None, "1"]}},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    pairs = load_pairs(path)
    assert np.nan_to_num(pairs.votes, nan=9).tolist() == [[[1, 1], [1, -1], [0, 0]], [[1, 1], [-1, 1], [9, -1]]]
    assert pairs.first[0, 1].tolist() == [1, 1]  # k prefers what is shown first, twice
    (tmp_path / "bad.jsonl").write_text('{"label": "C"}')
    with pytest.raises(DataError, match="a pair has `label`"):
        load_pairs(tmp_path / "bad.jsonl")
    for said in (5, "A>B", [], ["A>B", "A>B", "A>B"], {"decision": "A>B"}):
        (tmp_path / "bad.jsonl").write_text(json.dumps({"label": "A>B", "judges": {"j": said}}))
        with pytest.raises(DataError, match=":1: a judge of a pair gives a list of one or two answers"):
            load_pairs(tmp_path / "bad.jsonl")


def test_the_commands(tmp_path: Path) -> None:
    out, result = tmp_path / "p.json", tmp_path / "o.json"
    run = CliRunner()
    assert run.invoke(app, ["calibrate", "--pairs", str(LLMBAR), "--out", str(out)]).exit_code == 0
    said = run.invoke(app, ["bench", "--pairs", str(LLMBAR), "--profile", str(out), "--json", str(result)])
    assert said.exit_code == 0, said.output
    assert json.loads(result.read_text())["rows"][0]["policy"] == "panel"


def test_without_labels_judges_that_flip_count_for_less() -> None:
    pairs = load_pairs(LLMBAR)
    names = tuple(sorted({judge.split("/")[0] for judge in pairs.judges}))
    weights = dict(zip(names, steadiness(pairs, names), strict=True))
    assert weights["GPT-4"] == max(weights.values()) and weights["Falcon"] == 0.0
    rows = [row for row in bench_pairs(pairs)["rows"] if row["policy"] == "panel" and row["n"] >= 10]
    assert len(rows) > 3 and all(row["tie_credit"] >= 0.5 for row in rows)
    once = dataclasses.replace(pairs, votes=np.where(np.arange(2) == 1, np.nan, pairs.votes))
    assert set(steadiness(once, names)) == {1.0}


def test_a_judge_that_said_nothing_has_no_row(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"label": "A>B", "judges": {"j": [None, None], "k": ["A>B", "B>A"]}}))
    result = bench_pairs(load_pairs(tmp_path / "pairs.jsonl"))
    assert [row["policy"] for row in result["rows"]] == ["panel", "judge k"] and "NaN" not in json.dumps(result)
