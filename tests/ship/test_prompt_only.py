"""A prompt that was optimized, without weights: its held-out lessons go before the same gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gepa_atlas.cli import run
from gepa_atlas.errors import DataError
from gepa_atlas.ship import sums
from gepa_atlas.ship.cells import of_lessons
from gepa_atlas.ship.prompt_only import contents_of
from gepa_atlas.types import Attempt, Candidate, Demo, Example, Guidance, Lesson, Reward

ROOT = Path(__file__).parent.parent.parent


def lesson(task: str, candidate: str, before: float | None, after: float | None, sample: int = 0) -> Lesson:
    def reward(value: float | None) -> Reward:
        return Reward.none("timeout", "too late") if value is None else Reward(value)

    attempt = Attempt.failed("timeout", "too late")
    return Lesson(Example(task, "?", ()), candidate, sample, "playbook", attempt, Guidance("g"), attempt, reward(before), reward(after))


def test_lessons_become_cells_and_failures_stay_without_a_number() -> None:
    found = of_lessons(
        [lesson("a", "seed", 0.2, 0.4), lesson("a", "win", 0.2, 0.9), lesson("b", "win", None, 0.9), lesson("a", "other", 0.0, 0.0)],
        "seed", "win",
    )  # fmt: skip
    assert found.rewards("student") == {"a": 0.2}
    assert found.rewards("base+seed") == {"a": 0.4} and found.rewards("base+evolved") == {"a": 0.9, "b": 0.9}
    assert found.deltas("base+evolved") == {"a": pytest.approx(0.7)}
    assert [row.why_unscored for row in found.of("student") if row.reward is None] == ["timeout"]
    with pytest.raises(DataError, match="no row of kind task"):
        of_lessons([], "seed", "win")


def test_all_of_a_candidate_is_in_the_files() -> None:
    winner = Candidate.of({"one": "first {x}", "two": "second"}, (Demo("d", "q", "a"),), {"temperature": 0.5})
    texts = contents_of(winner).texts
    assert texts["prompt.txt"] == b"first {x}\n\nsecond"
    assert json.loads(texts["prompt.json"])["texts"] == {"one": "first {x}", "two": "second"}
    assert json.loads(texts["prompt.json"])["settings"] == {"temperature": 0.5}
    assert json.loads(texts["demos.json"])[0]["question"] == "q"


def test_a_finished_run_is_judged_packaged_and_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["optimize", str(ROOT / "configs" / "examples" / "toyworld.yaml"), "--quiet"]) == 0
    package = ["registry", "package", "runs/toyworld", "--operation", "triage"]
    assert run(package) == 3  # 48 of 48 do not show .95
    assert "48 of 48" in capsys.readouterr().err and not (tmp_path / "runs" / "toyworld" / "bundle").exists()
    assert run([*package, "--set", "min_ndrr=0.9"]) == 2
    assert "did you mean 'min_ndr'" in capsys.readouterr().err
    assert run([*package, "--set", "min_ndr_lcb=0.9"]) == 0
    bundle = tmp_path / "runs" / "toyworld" / "bundle"
    assert "adapter" not in {name.split("/")[0] for name in sums.verify(bundle)}
    assert run(["registry", "promote", "runs/toyworld"]) == 0
    assert run(["optimize", str(ROOT / "configs" / "examples" / "toyworld.yaml"), "--quiet"]) == 0  # the run still opens
