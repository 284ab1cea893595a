"""docs/registry.md: its commands run in their order, its tables are complete, its example is an evaluator."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.cli import run
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.gate import ADAPTER, decide
from tests.ship.world import GAIN, easy, effects, packaged, suite, with_values

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "registry.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    packaged(tmp_path / "runs" / "teacher-grpo", easy())
    packaged(tmp_path / "runs" / "next-grpo", easy(), effects(GAIN, 40, seed=1))
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 12
    for command in commands:
        assert run(shlex.split(command)[1:]) == 0, command
    assert "2 bundles and 1 operations are whole" in capsys.readouterr().out
    assert run(["registry", "resolve", "triage"]) == 0
    assert "When a ticket names" in (Path(capsys.readouterr().out.strip()) / "prompt.txt").read_text()


def test_the_table_names_every_criterion_and_every_key() -> None:
    found = suite(effects(GAIN, 60), 0.5, 0.5)
    found = with_values(with_values(found, "student", holdout_reward=0.2), "adapter+evolved", holdout_reward=0.9)
    decided = decide(found, ADAPTER, GateConfig(bootstrap=200, min_refusal=0.5), adapter_problems=[])
    named = set(re.findall(r"`([\w+]+)`", "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))))
    assert {c.name for c in decided.criteria} <= named
    documented = set(re.findall(r"[`.]([a-z_]+)[`:]", PAGE))
    assert GateConfig.model_fields.keys() - documented - {"bootstrap"} == set()


def test_the_example_is_an_evaluator(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(blocks("python")[0])
    scope: dict[str, Any] = runpy.run_path(str(tmp_path / "example.py"))
    rows = [row.model_dump() for row in effects(GAIN, 20).rows]
    answer = scope["golden"]({"cells": rows, "subject": {"treated": "adapter+evolved"}})
    assert answer["passed"] is True and answer["value"] == 1.0
