"""ATLAS sessions by one command, and what is possible before the extra [train] is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gepa_atlas import cli
from gepa_atlas.train import fields

ROOT = Path(__file__).parent.parent.parent
SMOKE = str(ROOT / "configs" / "train" / "cpu_smoke.yaml")
AGENT = f"{ROOT / 'agents' / 'reckoner.py'}:answer"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`grpo run` on sessions, as if a package of [train] were not there."""
    step = {"step_id": 1, "output": "{0} 😀", "guidance": ["add {x} %s"], "reward": {"score": 0.8}, "attempts": 1}
    found = [{"task": f"what is {n}?", "final_answer": "o", "steps": [{**step, "description": f"see {n}"}]} for n in range(24)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(session) + "\n" for session in found))
    monkeypatch.setattr(fields, "NEEDED", (*fields.NEEDED, "gepa_atlas_no_such_package"))
    return ["grpo", "run", "--config", SMOKE, "--export-path", str(tmp_path / "s.jsonl"), "--output-dir", str(tmp_path / "out")]


def test_sessions_are_exported_and_checked_without_a_warm_up(command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command, "--until", "validate"]) == 0
    said = capfd.readouterr().err
    assert "no SFT, DPO or KTO rows" in said and "lengths in tokens are not checked" in said and "pip install" in said
    counts = {name: len((tmp_path / "out" / "handoff" / f"{name}.jsonl").read_text().splitlines()) for name in ("sft", "grpo_train")}
    assert counts["sft"] == 0 < counts["grpo_train"]


def test_a_plan_counts_no_steps_of_a_warm_up_without_rows(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    plans = []
    student = f"student={{provider: python.callable, params: {{callable: '{AGENT}', guidance: field}}}}"
    for more in ("sft.max_steps=9", "sft.mini_gate=false"):
        sets = ["--set", "grpo.trl={}", "--set", student, "--set", "rim=[exact]", "--set", more]
        assert cli.run([*command, "--dry-run", "--json", *sets]) == 0
        plans.append(json.loads(capfd.readouterr().out)["counts"])
    assert plans[0]["sft_steps"] == 0 and plans[0] == plans[1]


def test_training_without_its_extra_is_refused_at_once(command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command, "--set", "grpo.trl={}"]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "pip install 'gepa-atlas[train]'" in said and not (tmp_path / "out").exists()
