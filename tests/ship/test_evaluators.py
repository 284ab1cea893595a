"""Criteria of a customer's own package: heard, and never able to pass by breaking."""

from __future__ import annotations

from pathlib import Path

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.ship import evaluators, gate
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.gate import ADAPTER, decide
from tests.ship.world import EASY, GAIN, easy, effects, training_run

CODE = """
import sys

def golden(evidence):
    rows = [r for r in evidence["cells"] if r["cell"] == evidence["subject"]["treated"] and r["kind"] == "task"]
    share = sum(r["reward"] >= 0.5 for r in rows) / len(rows)
    return {"passed": share >= 0.9, "value": share, "threshold": 0.9, "reason": f"{share:.2f} of the golden set"}

def strict(evidence): return {"passed": False, "reason": "not on a Friday"}
def unsure(evidence): return {"passed": None}
def raises(evidence): raise RuntimeError("database is down")
def leaves(evidence): sys.exit(0)
def silent(evidence): return None
def truthy(evidence): return {"passed": 1}
def odd(evidence): return {"passed": True, "value": float("nan")}
number = 3
"""
NAMES = ("golden", "strict", "unsure", "raises", "leaves", "silent", "truthy", "odd", "number")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_checks.py").write_text(CODE)
    info = tmp_path / "their_checks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-checks\nVersion: 1.0\n")
    lines = [f"{name} = their_checks:{name}" for name in NAMES] + ["gone = no_such_module:check"]
    (info / "entry_points.txt").write_text("[gepa_atlas.evaluators]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "verdict", "says"),
    [
        ("golden", "pass", "all "),
        ("strict", "fail", "not on a Friday"),
        ("unsure", "inconclusive", "no reason"),
        ("raises", "inconclusive", "RuntimeError: database is down"),
        ("leaves", "inconclusive", "SystemExit"),
        ("silent", "inconclusive", "no `passed`"),
        ("truthy", "inconclusive", "no `passed`"),
        ("odd", "inconclusive", "no finite number"),
        ("number", "inconclusive", "not a function"),
        ("gone", "inconclusive", "cannot be imported"),
    ],
)
def test_each_answer_and_each_failure(name: str, verdict: str, says: str) -> None:
    decided = decide(effects(GAIN, 60), ADAPTER, GateConfig(**EASY, evaluators=(name,)), adapter_problems=[])
    assert decided.verdict == verdict
    assert says in decided.reasons[0]
    assert decided.criteria[-1].name == name


def test_an_unknown_name_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    work = training_run(tmp_path / "run", effects(GAIN, 40))
    with pytest.raises(ConfigError, match="did you mean 'golden'"):
        gate.run(work, easy(registry=tmp_path / "registry", evaluators=("goldn",)))
    assert not (tmp_path / "registry").exists()


def test_a_new_version_of_an_evaluator_is_asked_again() -> None:
    assert evaluators.versions(("golden", "unknown")) == {"golden": "their_checks:golden 1.0"}
