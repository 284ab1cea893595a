"""Judges inside a run: a second tier on both sides, a watching judge in the report, an outage that ends it resumably."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.classroom import Classroom
from gepa_atlas.cli import run
from gepa_atlas.errors import BadRequest
from gepa_atlas.evolve.stats import paired_gain
from gepa_atlas.protocols.playbook import Playbook
from gepa_atlas.rim import RimConfig, build_panel
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Candidate, Example, Task
from tests.story.school import School, opened

TOY = Path(__file__).parents[2] / "configs" / "examples" / "toyworld.yaml"


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


class Student:
    identity = "student"
    endpoint = None

    async def run(self, task: Task) -> Attempt:
        if "refuse" in task.question.text:
            raise BadRequest("no")
        return Attempt("4 with help" if task.guidance else "four")


def no_model(spec: Any) -> Any:
    raise AssertionError(spec)


@pytest.mark.parametrize(("margin", "parts"), [(0.0, 1), (0.9, 2)])
def test_a_second_tier_is_asked_on_both_sides_of_a_lesson(margin: float, parts: int) -> None:
    rules = {"disagreement": 1.0, "margin": margin, "judges": [{"type": "regex", "pattern": "help"}]}
    panel = build_panel(load(RimConfig, {"judges": ["contains"], "escalate": rules}, "rim"), model=no_model)
    room = Classroom(Student(), panel, Playbook())  # type: ignore[arg-type]
    candidate = Candidate.of({"guidance": "Use digits."})
    lesson = asyncio.run(room.teach(candidate, Example("e", "2 + 2?", ("4", "four"))))
    assert (len(lesson.before.parts), len(lesson.after.parts)) == (parts, parts)
    assert lesson.delta == (0.0 if parts == 1 else 0.5)
    failed = asyncio.run(Classroom(Student(), panel, Playbook()).teach(candidate, Example("f", "refuse", ("4",))))  # type: ignore[arg-type]
    assert failed.delta is None and failed.before.parts == ()


def test_lessons_on_different_scales_are_compared_by_their_own_baselines() -> None:
    winner, seed = {"a": (0.5, 1.0), "b": (0.0, 1.0)}, {"a": (0.0, 0.5), "b": (0.0, 0.5)}
    gain, low, high, pairs = paired_gain(winner, seed)
    assert (gain, pairs) == (0.25, 2) and low is not None and high is not None and low <= 0.25 <= high


def test_the_watching_judge_is_in_the_report(at_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watch = "rim.watch={type: python, function: watch.py:never}"
    config = yaml.safe_load(TOY.read_text())
    (at_home / "toy.yaml").write_text(yaml.safe_dump(config))
    (at_home / "watch.py").write_text("def never(output, example):\n    return 0.25\n")
    assert run(["optimize", "toy.yaml", "--set", watch, "--set", "max_metric_calls=150"]) == 0
    out = capfd.readouterr().out
    found = json.loads((at_home / "runs" / "toy" / "optimized_prompts.json").read_text())["watch"]
    assert found["judge"] == "python" and found["search"]["own_gain"] == 0.0
    assert found["search"]["gap"] == found["search"]["judged_gain"] != 0.0
    assert "Watch, search: gain " in out and "+0.000 by python (gap " in out
    assert run(["optimize", "toy.yaml", "--set", "max_metric_calls=150", "--run-dir", "runs/plain"]) == 0
    assert json.loads((at_home / "runs" / "plain" / "optimized_prompts.json").read_text())["watch"] is None


def test_a_comparing_judge_is_refused_in_a_search(at_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(TOY), "--set", "rim.compare={model: local}"]) == 2
    assert "rim.compare: a search judges attempts one by one" in capfd.readouterr().err


def test_an_outage_of_the_judges_ends_the_run_resumably(at_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is scored 0.0, exit code 75; with the judges back, the command goes on to the same result, each answer once."""

    def judge(body: dict[str, Any]) -> str:
        score = 0.9 if "cite" in body["messages"][1]["content"].split('"answer"')[-1] else 0.2
        return json.dumps({"principles": ["p"], "rationale": "so", "score": score, "uncertainty": 0.1})

    config = yaml.safe_load(TOY.read_text())
    sets = ["--set", "max_metric_calls=60", "--set", "retry={attempts: 2, first_wait: 0.01, breaker: 4}"]
    with opened(School(teacher=judge)) as school:
        config["rim"] = {"judges": [{"type": "llm", "model": school.model("teacher", max_concurrency=4)}]}
        Path("toy.yaml").write_text(yaml.safe_dump(config))
        assert run(["optimize", "toy.yaml", *sets, "--run-dir", "undisturbed"]) == 0
        calls = len(school.sent["teacher"])
        calm = judge

        def failing(body: dict[str, Any]) -> str:
            if len(school.sent["teacher"]) > calls + 12:
                raise ConnectionError("down")
            return calm(body)

        school.teacher = failing
        capfd.readouterr()
        assert run(["optimize", "toy.yaml", *sets, "--run-dir", "disturbed"]) == 75
        said = capfd.readouterr()
        assert said.err.count("\n") == 1 and "run the same command again" in said.err
        school.teacher = calm
        assert run(["optimize", "toy.yaml", *sets, "--run-dir", "disturbed"]) == 0
    one, other = (json.loads(Path(d, "optimized_prompts.json").read_text()) for d in ("undisturbed", "disturbed"))
    assert one["digest"] == other["digest"]
    for spent in (one["spend_by_judge"]["llm"], other["spend_by_judge"]["llm"]):
        assert spent["calls"] == calls and spent["input_tokens"] == 10 * calls  # each answer once, however often it was used
    rewards = [json.loads(line)["after"]["value"] for line in Path("disturbed/traces.jsonl").read_text().splitlines()]
    assert None not in rewards and 0.0 not in rewards
