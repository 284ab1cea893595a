"""A run directory has one owner at a time, and a run goes on only as what it was."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gepa_atlas.testing.provider import read_book
from tests.story.stage import TOY, Act, Stage
from tests.story.witness import digest, files, settled

SHORT = ["--set", "max_metric_calls=60", "--set", "data.toyworld.examples=40", "--quiet"]


def slow_run(stage: Stage, room: Path, *, latency: float = 30.0) -> Act:
    """A run whose first call is under way."""
    student = f"{{world: {{seed: 3, noise: 0.5}}, latency: {latency}, ledger: {room / 'book'}}}"
    act = stage.start("optimize", TOY, "--run-dir", room / "run", *SHORT, "--set", f"agents.student.params={student}")
    until = time.monotonic() + 60
    while not read_book(room / "book").charged:
        assert not act.ends_within(0.005) and time.monotonic() < until, act.err
    return act


def test_a_second_process_is_refused_at_once_and_told_by_whom(stage: Stage, room: Path) -> None:
    owner = slow_run(stage, room)
    before = (room / "book").read_bytes()
    began = time.monotonic()
    refused = stage.run("optimize", TOY, "--run-dir", room / "run", *SHORT, "--set", f"agents.student.params.ledger={room / 'other'}")
    seconds = time.monotonic() - began
    assert refused.code == 3
    assert f"process {owner.pid} " in refused.line and str(room / "run") in refused.line
    assert not refused.out and not (room / "other").exists() and (room / "book").read_bytes() == before  # it made no call
    assert seconds < 5, seconds  # the owner would hold the directory for a minute or more; on an idle machine this takes 0.1 s
    print(f"refused after {seconds:.2f} s")
    assert stage.run("report", room / "run").code == 2  # the run is not finished
    shown = stage.done("runs", "show", room / "run", "--json")  # looking needs no lock
    assert json.loads(shown.out)["status"] == "running"

    owner.kill()
    owner.wait()
    assert json.loads(stage.done("runs", "show", room / "run", "--json").out)["status"] == "interrupted"
    stage.done("optimize", TOY, "--run-dir", room / "run", *SHORT)  # a dead owner holds nothing
    digest(room / "run")


@pytest.fixture(scope="module")
def begun(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a finished run."""
    directory = tmp_path_factory.mktemp("begun") / "run"
    stage.done("optimize", TOY, "--run-dir", directory, *SHORT)
    return directory


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ("agents.student.params.world.seed=4", "agents.student"),
        ("agents.student.params.world.noise=0.4", "agents.student"),
        ("data.toyworld.seed=4", "data"),
        ("data.toyworld.examples=41", "data"),
        ("data.max_examples=30", "data"),
        ("rim={judges: [{type: exact, ignore_case: true}]}", "rim"),
        ("rim={judges: [exact, {type: contains, texts: [a]}]}", "rim"),
        ("seed_prompts.guidance=Answer.", "seed_prompts"),
        ("protocol={name: playbook, params: {max_chars: 100}}", "protocol"),
        ("seed=1", "seed"),
        ("width=3", "width"),
        ("minibatch=5", "minibatch"),
        ("max_metric_calls=61", "max_metric_calls"),
        ("operators=[edit, merge]", "operators"),
        ("operator_options.edit.from_data=true", "operator_options"),
        ("gain=asymmetric", "gain"),
        ("stop.plateau=9", "stop"),
        ("final_share=0.3", "final_share"),
        ("retest=1", "retest"),
    ],
)
def test_what_decides_a_result_may_not_change(stage: Stage, begun: Path, changed: str, names: str) -> None:
    before = files(begun)
    refused = stage.run("optimize", TOY, "--run-dir", begun, *SHORT, "--set", changed)
    assert refused.code == 2, refused
    assert f"other values of: {names};" in refused.line, refused.line
    assert files(begun) == before


@pytest.mark.parametrize(
    "changed",
    [
        "concurrency=1",
        "agents.student.params.latency=0.001",
        "retry={attempts: 3}",
        "budget={tokens: 1000000, dollars: 5, seconds: 600}",
        "output=elsewhere/best.json",
        "trace_storage=elsewhere/traces.jsonl",
    ],
)
def test_speed_limits_and_copies_may_change(stage: Stage, begun: Path, tmp_path: Path, changed: str) -> None:
    want, calls = digest(begun), settled(begun)
    stage.done("optimize", TOY, "--run-dir", begun, *SHORT, "--set", changed, cwd=tmp_path)
    assert digest(begun) == want and settled(begun) == calls
    copies = [name for name in ("best.json", "traces.jsonl") if (tmp_path / "elsewhere" / name).exists()]
    assert len(copies) == changed.count("elsewhere")


def test_a_run_directory_may_move(stage: Stage, begun: Path, tmp_path: Path) -> None:
    want = digest(begun)
    moved = begun.rename(tmp_path / "moved")
    try:
        stage.done("optimize", TOY, "--run-dir", moved, *SHORT)
        assert digest(moved) == want
    finally:
        moved.rename(begun)


def test_changed_data_and_a_changed_agent_are_named(stage: Stage, tmp_path: Path) -> None:
    """The files behind the configuration count, not only its words."""
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "agent.py").write_text("def answer(prompt):\n    return '4'\n")
    config = tmp_path / "run.yaml"
    config.write_text(
        "agents: {student: {provider: python.callable, params: {callable: 'agent.py:answer'}}}\n"
        "data: {path: rows.jsonl}\nrim: {judges: [exact]}\noperators: [edit]\nmax_metric_calls: 20\n"
    )
    stage.done("optimize", config, "--run-dir", tmp_path / "run", "--quiet")

    (tmp_path / "agent.py").write_text("def answer(prompt):\n    return '6'\n")
    assert "other values of: agents.student;" in stage.run("optimize", config, "--run-dir", tmp_path / "run").line
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    assert "other values of: agents.student, data;" in stage.run("optimize", config, "--run-dir", tmp_path / "run").line
