"""Every line of `--json` is of the documented form, also of a run that goes wrong; a library call says nothing; the pulse counts right."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.calls import CallEvent
from gepa_atlas.cli import run as cli
from gepa_atlas.lanes import Traffic
from gepa_atlas.report.pulse import Pulse, endpoints_text, limits_text, sparkline
from gepa_atlas.types import Usage

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json.loads((ROOT / "docs" / "events.schema.json").read_text())
RESULT = json.loads((ROOT / "docs" / "optimized_prompts.schema.json").read_text())
OPTIMIZE = ["optimize", str(ROOT / "configs/examples/toyworld.yaml"), "--max-metric-calls", "60", "--json", "--max-tokens", "1000000"]
FAULTS = ["--set", "agents.student.params.faults.rate=0.2", "--set", "retry.first_wait=0"]


def test_every_event_of_a_real_run_is_of_the_documented_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for _ in range(2):  # and again: a resume
        assert cli([*OPTIMIZE, *FAULTS, "--run-dir", str(tmp_path / "run")]) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for event in [*told[0], *told[1]]:
        validator.validate(event)
    assert {event["event"] for event in told[0]} == {"start", "decision", "call", "finish"}
    first, last = told[0][0], told[0][-1]
    assert (first["event"], last["event"]) == ("start", "finish") and first["limits"] == {"tokens": 1_000_000}
    jsonschema.validate(last["result"], RESULT)
    decided = [[e["decision"] for e in events if e["event"] == "decision"] for events in told]
    assert decided[0] == decided[1] and told[1][0]["resumed"]
    spend = [e["state"]["spend"]["student"]["calls"] for e in told[0] if e["event"] == "decision"]
    assert spend == sorted(spend) and told[1][0]["spent"]["student"]["calls"] >= spend[-1]
    assert all(not e["state"]["endpoints"][0]["down"] for e in told[0] if e["event"] == "decision")


def test_a_library_call_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    import gepa_atlas

    examples = [{"question": f"Spell {c}{n}", "answer": f"{c}{n}"} for c in "abcde" for n in range(6)]
    gepa_atlas.optimize(spell, examples, max_metric_calls=30)
    assert capfd.readouterr() == ("", "")


def spell(question: str, guidance: str) -> str:
    return question.split()[-1]


@given(
    st.lists(st.tuples(st.sampled_from(["started", "retried", "settled", "failed", "dropped", "replayed", "shared"]), st.integers(0, 5)))
)
def test_the_pulse_counts_what_the_events_say(events: list[tuple[str, int]]) -> None:
    now = [0.0]
    pulse = Pulse({"student": Usage(1, 1, 0.0, 0.0, 1)}, clock=lambda: now[0])
    flying: set[int] = set()
    answered = 0
    for what, key in events:
        pulse.take(CallEvent(what, "student", str(key), 2 * key + 1, "e", usage=Usage(1, 0, 0.5, 0.0, 1)))  # type: ignore[arg-type]
        flying = flying | {key} if what == "started" else flying - {key} if what in ("settled", "failed", "dropped") else flying
        answered += what in ("settled", "failed")
    assert pulse.slots == sorted(flying) and pulse.by_role["student"] == len(flying)
    assert pulse.spent["student"].calls == 1 + answered == pulse.per_minute()["student"] + 1
    now[0] = 61.0
    assert pulse.per_minute()["student"] == 0


@settings(max_examples=60)
@given(st.lists(st.floats(-1, 1), max_size=300), st.integers(1, 60))
def test_a_sparkline_keeps_its_width_and_its_order(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, len(values)) and len(sparkline(values, width, plain=True).encode("ascii")) == len(line)
    rising = sparkline(sorted(abs(v) for v in values), width)
    assert list(rising) == sorted(rising)


def test_limits_and_slow_endpoints_are_said() -> None:
    spent = {"judge": Usage(1000, 200, None)}
    assert limits_text({"tokens": 50_000, "seconds": 600}, spent, 12.3) == "tokens 1,200 of 50,000; seconds 12 of 600"
    assert limits_text({"dollars": 1.5}, spent, 0) == "dollars unknown of 1.5"
    lanes = (Traffic("a", 1, 4, 16, False), Traffic("b", 0, 16, 16, False), Traffic("c", 0, 1, 8, True))
    assert endpoints_text(lanes) == "c is down; a slowed to 4 of 16 at once"
