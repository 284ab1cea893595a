"""What teaching is worth: three arms judged by the same panel, and every figure of the results page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gepa_atlas.cli import app, paired
from gepa_atlas.cli.evaluate import _block, _page
from gepa_atlas.errors import CallTimeout, DataError
from gepa_atlas.ports import Agent, ChatRequest, Completion, Endpoint
from gepa_atlas.protocols.lesson import Lesson
from gepa_atlas.rim import Panel, RimConfig, build_panel
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Candidate, Example, Task, Usage

RIM = Path(__file__).parents[2] / "configs" / "rim_programs.yaml"


class Student:
    """Right on easy questions alone, on hard ones when taught; a second try of its own helps on one in four."""

    identity = "student"
    endpoint = Endpoint("student")

    async def run(self, task: Task) -> Attempt:
        number = int(task.question.text.split()[-1])
        if number == 19:
            raise CallTimeout("the agent sleeps")
        taught, again = "carry the one" in task.guidance.text, "You answered" in task.guidance.text
        right = "easy" in task.question.text or taught or (again and number % 4 == 1)
        return Attempt(str(number if right else -1), Usage(20 if taught else 10, 5, 0.0, 0.5, 1))


class Teacher:
    identity = "teacher"
    endpoint = Endpoint("teacher")

    async def complete(self, request: ChatRequest) -> Completion:
        return Completion("<teaching>carry the one</teaching>", Usage(30, 4, 0.0, 0.1, 1))


EXAMPLES = [
    Example(f"e{n}", f"{'easy' if n % 2 == 0 else 'hard'} {n}", (str(n),), split="test", tags=("easy" if n % 2 == 0 else "hard",))
    for n in range(20)
]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    panel: Panel = build_panel(load(RimConfig, {"judges": ["exact"]}, "rim"), model=lambda spec: Teacher())
    protocol = Lesson(Teacher())
    student: Agent = Student()
    trials = asyncio.run(paired.evaluate(student, protocol, Candidate.of(protocol.seed_texts()), panel, EXAMPLES, samples=2))
    assert [t.example.id for t in trials[:3]] == ["e0", "e0", "e1"]
    assert "Delta: +1.000" in _block(trials[2], True)
    return paired.results(trials)


def test_the_figures(page: dict[str, Any]) -> None:
    assert (page["examples"], page["trials"], page["scored"]) == (20, 40, 38)
    assert page["unscored"] == {"timeout": 4}
    assert page["accuracy"]["before"] == pytest.approx(20 / 38) and page["accuracy"]["after"] == 1.0
    assert page["gain"] == pytest.approx(18 / 38) and page["maximum_improvement"] == 1.0
    assert page["gain_interval"][0] > 0 and page["p_value"] < 0.01
    assert page["non_degradation_rate"] == 1.0 and 0.8 < page["non_degradation_low"] < 1.0
    assert page["completion_rate"] == {"before": 38 / 40, "after": 38 / 40}
    assert page["tokens"]["change"] == pytest.approx(10 / 15)
    assert page["teaching_efficiency"] == pytest.approx((18 / 38) * (38 / 40) / 0.004)
    assert page["by_tag"]["easy"]["reward"]["change"] == 0.0 and page["by_tag"]["hard"]["reward"]["change"] == 1.0
    assert len(page["folds"]) == 5 and page["learning_curve"][-1] == [38, pytest.approx(18 / 38)]


def test_a_second_try_is_not_credited_to_teaching(page: dict[str, Any]) -> None:
    refine = page["self_refine"]
    assert refine["gain_of_a_second_try"] == pytest.approx(10 / 38)
    assert refine["gain_beyond_it"] == pytest.approx(8 / 38)
    assert refine["interval"][0] <= refine["gain_beyond_it"] <= refine["interval"][1]


def test_the_page_is_lines(page: dict[str, Any]) -> None:
    text = "\n".join(_page(page))
    for word in (
        "completion rate",
        "non-degradation rate",
        "teaching efficiency",
        "second try, no teacher",
        "learning curve",
        "hard: 18 trials",
    ):
        assert word in text
    assert json.dumps(page)


def test_sign_flip_by_hand() -> None:
    assert paired.sign_flip(np.zeros(5)) == 1.0
    assert paired.sign_flip(np.ones(5)) == pytest.approx(2 / 32)
    assert paired.sign_flip(np.ones(40)) < 0.001
    assert paired.sign_flip(np.array([1.0, -1.0] * 20)) == 1.0


def test_nothing_scored_is_said(tmp_path: Path) -> None:
    panel: Panel = build_panel(load(RimConfig, {"judges": ["exact"]}, "rim"), model=lambda spec: Teacher())
    protocol = Lesson(Teacher())
    trials = asyncio.run(paired.evaluate(Student(), protocol, Candidate.of(protocol.seed_texts()), panel, [EXAMPLES[19]]))
    assert "nothing can be said" in _page(paired.results(trials))[-1]
    assert "Delta: none" in _block(trials[0], False)
    (tmp_path / "q.jsonl").write_text('{"answer": 1}')
    with pytest.raises(DataError, match="has a `question` text"):
        paired.load_questions(tmp_path / "q.jsonl")


@pytest.mark.local
def test_on_the_embedded_model_without_a_key(tmp_path: Path, local_model: Any) -> None:
    run = CliRunner()
    limits = ["--reward-config", str(RIM), "--student-max-output", "24", "--teacher-max-output", "24"]
    said = run.invoke(app, ["evaluate", "--question", "What is the capital of France?", "--answer", "Paris", *limits, "--verbose-judges"])
    assert said.exit_code == 0, said.output
    for line in (
        "Baseline student answer:",
        "Teacher guidance:",
        "Student with teaching:",
        "Per-judge (baseline): {'says it': ",
        "Delta: ",
    ):
        assert line in said.output
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps({"question": f"Say the word {w}.", "answer": w}) for w in ("red", "blue")))
    said = run.invoke(app, ["evaluate", "--dataset", str(tmp_path / "q.jsonl"), *limits, "--json", str(tmp_path / "o.json")])
    assert said.exit_code == 0, said.output
    assert json.loads((tmp_path / "o.json").read_text())["trials"] == 2
