"""A run with a teacher and with reflection, against servers on loopback that keep what they were sent."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.story.school import School, opened
from tests.story.stage import Stage
from tests.story.witness import digest, files, open_calls, rollouts

WORD = "sesame"


def rows() -> list[dict[str, str]]:
    """Questions about items; each gold answer carries a mark that says which split it may never leave."""
    splits = ["train"] * 16 + ["val"] * 16 + ["test"] * 24
    return [{"id": f"x{n}", "question": f"What is in box {n}?", "answer": f"GOLD-{s}-{n}", "split": s} for n, s in enumerate(splits)]


ANSWERS = {row["question"]: row["answer"] for row in rows()}


def student(body: dict[str, Any]) -> str:
    """Knows every box, and opens it to who says the word."""
    question = re.search(r"What is in box \d+\?", body["prompt"])
    assert question is not None
    return ANSWERS[question[0]] if WORD in body["prompt"] else "I cannot open it."


def edit(component: str, text: str) -> str:
    change = {"component": component, "op": "add", "item": None, "text": text}
    return json.dumps({"diagnosis": "it does not say the word", "edits": [change]})


def write(directory: Path, **changes: Any) -> Path:
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    tree: dict[str, Any] = {"data": {"path": "rows.jsonl"}, "rim": {"judges": ["exact"]}, "max_metric_calls": 200, "operators": ["reflect"]}
    (directory / "run.yaml").write_text(yaml.safe_dump(tree | changes))
    return directory / "run.yaml"


def result(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "optimized_prompts.json").read_text())
    return found


def assert_no_gold(school: School) -> None:
    """Neither student nor teacher is ever told an answer; the reflection model is told those of train examples only."""
    assert "GOLD" not in school.raw("student") and "GOLD" not in school.raw("teacher")
    told = set(re.findall(r"GOLD-(\w+)-", school.raw("reflection")))
    assert told <= {"train"}, told


def test_reflection_finds_the_word(stage: Stage, tmp_path: Path) -> None:
    school = School(student=student, reflection=lambda body: edit("guidance", f"Say {WORD}."))
    with opened(school):
        config = write(tmp_path, agents={"student": school.agent()}, reflection_lm=school.model("reflection"))
        stage.done("optimize", config, "--run-dir", tmp_path / "run", "--quiet")
        found = result(tmp_path / "run")
        assert found["verdict"]["ruling"] == "ship" and found["best_score"] == 1.0 and found["initial_score"] == 0.0
        assert WORD in found["best_candidate"]["guidance"]
        assert found["spend"]["reflection"]["calls"] == len(school.sent["reflection"]) > 0
        assert found["spend"]["student"]["calls"] == len(school.sent["student"]) == rollouts(tmp_path / "run") <= 200
        assert_no_gold(school)

        before, sent = files(tmp_path / "run"), {who: len(bodies) for who, bodies in school.sent.items()}
        stage.done("optimize", config, "--run-dir", tmp_path / "run", "--quiet")
        assert files(tmp_path / "run") == before and {who: len(bodies) for who, bodies in school.sent.items()} == sent


@pytest.mark.parametrize("protocol", ["lesson", "probe"])
def test_a_taught_run(stage: Stage, tmp_path: Path, protocol: str) -> None:
    """The teacher says the word once its own prompt tells it to; reflection finds that prompt."""

    def teacher(body: dict[str, Any]) -> str:
        return f"<teaching>Say {WORD}.</teaching>" if "generous" in body["messages"][-1]["content"] else "<teaching>Look harder.</teaching>"

    school = School(student, teacher, lambda body: edit("teacher_adaptive_template", "Be generous with words."))
    with opened(school):
        agents = {"student": school.agent(), "teacher": school.model("teacher")}
        config = write(tmp_path, agents=agents, reflection_lm=school.model("reflection"), protocol=protocol, max_metric_calls=300)
        stage.done("optimize", config, "--run-dir", tmp_path / "run", "--quiet")
        found = result(tmp_path / "run")
        assert found["verdict"]["ruling"] == "ship" and found["best_score"] == 1.0 and found["protocol"] == protocol
        assert "generous" in found["best_candidate"]["teacher_adaptive_template"]
        assert found["spend"]["teacher"]["calls"] == len(school.sent["teacher"])
        assert rollouts(tmp_path / "run") == len(school.sent["student"]) <= 300
        assert_no_gold(school)
        assert any("I cannot open it." in asked for asked in school.asked("teacher"))  # it reads the first attempt

        sent = len(school.sent["teacher"]), len(school.sent["student"])
        want = digest(tmp_path / "run")
        stage.done("optimize", config, "--run-dir", tmp_path / "run", "--quiet")
        assert (len(school.sent["teacher"]), len(school.sent["student"])) == sent and digest(tmp_path / "run") == want


@pytest.mark.chaos
def test_a_taught_run_that_is_killed(stage: Stage, tmp_path: Path) -> None:
    """Calls of every role are kept: however often it is killed, no more is asked again than was under way."""
    school = School(student, lambda body: f"Say {WORD}." if "generous" in body["messages"][-1]["content"] else "Look harder.")
    school.reflection = lambda body: edit("teacher_adaptive_template", f"Be generous, {sum(map(ord, json.dumps(body))) % 5}.")
    with opened(school):
        agents = {"student": school.agent(), "teacher": school.model("teacher")}
        config = write(tmp_path, agents=agents, reflection_lm=school.model("reflection"), max_metric_calls=120)
        stage.done("optimize", config, "--run-dir", tmp_path / "whole", "--quiet")
        whole = [(who, json.dumps(body)) for who in school.sent for body in school.sent[who]]
        school.sent = {who: [] for who in school.sent}
        begun: set[str] = set()
        in_flight = 0
        for write_number in (4, 9, 17, 30, 45, 60, 35, 20, 50, 80, 0):
            ended = stage.run("optimize", config, "--run-dir", tmp_path / "run", "--quiet", die_at_write=write_number)
            assert ended.code in (0, -signal.SIGKILL), ended
            left = open_calls(tmp_path / "run")
            in_flight += len(left - begun)
            begun = left
        assert digest(tmp_path / "run") == digest(tmp_path / "whole")
        bodies = [(who, json.dumps(body)) for who in school.sent for body in school.sent[who]]
        assert set(bodies) == set(whole) and len(bodies) - len(whole) <= in_flight
        assert_no_gold(school)


def test_a_lesson_whose_teacher_failed_is_unscored_and_not_zero(stage: Stage, tmp_path: Path) -> None:
    """Half of what the teacher says is empty: those lessons are unscored, and say why; the run goes on."""
    school = School(student, lambda body: "" if "box 1" in body["messages"][-1]["content"] else f"<teaching>{WORD}</teaching>")
    with opened(school):
        agents = {"student": school.agent(), "teacher": school.model("teacher")}
        config = write(tmp_path, agents=agents, operators=["edit"], max_metric_calls=80)
        stage.done("optimize", config, "--run-dir", tmp_path / "run", "--quiet", "--set", "stop.error_share=1")
    traces = [json.loads(line) for line in (tmp_path / "run" / "traces.jsonl").read_text().splitlines()]
    failed = [t for t in traces if "box 1" in t["example"]["question"]]
    assert failed and all(t["after"]["value"] is None and t["delta"] is None for t in failed)
    assert all(t["second"]["error"]["kind"] == "empty_answer" for t in failed)
    assert all(t["delta"] == 1.0 for t in traces if t not in failed)


def test_a_reflection_model_that_writes_junk_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    junk = ["", "Sorry, I cannot.", "{", "[]", '{"edits": 3}', '{"edits": [{"component": "x"}]}', edit("guidance", ""), "\u0000" * 40]
    school = School(student=student)
    school.reflection = lambda body: junk[len(school.sent["reflection"]) % len(junk)]
    with opened(school):
        config = write(tmp_path, agents={"student": school.agent()}, reflection_lm=school.model("reflection"), max_metric_calls=120)
        stage.done("optimize", config, "--run-dir", tmp_path / "run", "--quiet")
    found = result(tmp_path / "run")
    assert found["verdict"]["ruling"] != "ship" and found["improvement"] == 0.0 and len(found["pareto_frontier"]) == 1
    assert_no_gold(school)
