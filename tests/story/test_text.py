"""Text is data: from the configuration and the data file to the agent, from the agent to the traces, not a character is changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.story.school import School, opened
from tests.story.stage import Stage

NASTY = (
    "{question} {attempt} {0} {} {{x}} {x!r:>{9}} %s %(a)s ${HOME} $${HOME} \\n \\u0041 \\ 'single' \"double\" `tick` $(rm) ; | & <b>&amp;"
    "</b>\nsecond line\r\nthird\ttab\n\n# not a comment: *no alias, &no anchor, - no list, ---\n"
    "naïve Ελλάς русский 中文 العربية हिन्दी 👩🏽‍🚀🇪🇺 e\u0301 \u00a0\u200b\u2028\u2029\u0085\ufeff\u202eabc\u202c \U0001f600"
    " [redacted] NaN null true"
)
LONG = ("Row {n}: “quoted” {braces} 🙂 " * 4000)[:100_000]
QUESTIONS = [f"{n} {text}".strip() for n in range(6) for text in (NASTY, f"{LONG}{n}")] + [f"plain {n}" for n in range(8)]
QUESTIONS += [f"control {n} \x00\x01\x1b[31m\x7f\x08." for n in range(3)]
GUIDANCE = f"Follow {NASTY}\n{LONG}"

FUNCTION = """
import json, pathlib
def answer(question, guidance):
    seen = pathlib.Path(__file__).with_name("seen.jsonl")
    with seen.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": question, "guidance": guidance}) + "\\n")
    return question[::-1]
"""
COMMAND = """
import json, pathlib, sys
asked = json.loads(sys.stdin.buffer.read())
with pathlib.Path(__file__).with_name("seen.jsonl").open("a", encoding="utf-8") as file:
    file.write(json.dumps({"question": asked["question"], "guidance": asked["guidance"]}) + "\\n")
sys.stdout.buffer.write(asked["question"][::-1].encode())
"""
PLAIN = """
import json, pathlib, sys
text = sys.stdin.buffer.read().decode()
guidance, _, question = text.rpartition("\\n\\n@@@\\n\\n")
with pathlib.Path(__file__).with_name("seen.jsonl").open("a", encoding="utf-8") as file:
    file.write(json.dumps({"question": question, "guidance": guidance}) + "\\n")
sys.stdout.buffer.write(question[::-1].encode())
"""


def agents(directory: Path, school: School) -> dict[str, dict[str, Any]]:
    (directory / "function.py").write_text(FUNCTION)
    (directory / "command.py").write_text(COMMAND)
    (directory / "plain.py").write_text(PLAIN)
    template = {"q": "{question}", "deep": [{"g": "{guidance}", "kept": "{{question}} {other}"}]}
    return {
        "function": {"provider": "python.callable", "params": {"callable": "function.py:answer", "guidance": "field"}},
        "command": {
            "provider": "cli.command",
            "params": {"argv": [sys.executable, "-S", "-E", "command.py"], "stdin": "json", "guidance": "field", "strip": False},
        },
        "plain command": {
            "provider": "cli.command",
            "params": {"argv": [sys.executable, "-S", "-E", "plain.py"], "separator": "\n\n@@@\n\n", "strip": False},
        },
        "service": school.agent(guidance="field"),
        "service with a template": school.agent(guidance="field", request_template=template),
    }


@pytest.mark.parametrize("which", ["function", "command", "plain command", "service", "service with a template"])
def test_from_the_configuration_to_the_agent_and_back(stage: Stage, tmp_path: Path, which: str) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"question": q, "answer": q[::-1]}, ensure_ascii=False) + "\n" for q in QUESTIONS), "utf-8"
    )

    def reversed_(body: dict[str, Any]) -> str:
        return str(body.get("prompt", body.get("q")))[::-1]

    with opened(School(student=reversed_)) as school:
        tree = {
            "agents": {"student": agents(tmp_path, school)[which]},
            "protocol": {"name": "playbook", "params": {"max_chars": 300_000}},
            "seed_prompts": {"guidance": GUIDANCE.replace("${", "$${")},
            "data": {"path": "rows.jsonl", "split": {"train": 0.2, "val": 0.5, "test": 0.3}},
            "rim": {"judges": [{"type": "exact", "strip": False}]},
            "operators": ["ablate"],
            "max_metric_calls": 26,
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8")
        stage.done("optimize", tmp_path / "run.yaml", "--run-dir", tmp_path / "run", "--quiet")

    if which.startswith("service"):
        seen = [
            {"question": b["prompt"], "guidance": b["guidance"]} if "prompt" in b else {"question": b["q"], "guidance": b["deep"][0]["g"]}
            for b in school.sent["student"]
        ]
        assert all(b["deep"][0]["kept"] == "{" + b["q"] + "} {other}" for b in school.sent["student"] if "deep" in b)
    else:
        seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text("utf-8").split("\n") if line]
    assert len(seen) > 10
    assert {s["question"] for s in seen} <= set(QUESTIONS)
    assert sum(len(s["question"]) > 99_000 for s in seen) >= 2 and sum(NASTY in s["question"] for s in seen) >= 2
    assert {s["guidance"] for s in seen} >= {"", GUIDANCE}

    traces = [json.loads(line) for line in (tmp_path / "run" / "traces.jsonl").read_text("utf-8").split("\n") if line]
    for trace in traces:
        question = trace["example"]["question"]
        assert question in QUESTIONS
        assert trace["baseline"]["output"] == trace["second"]["output"] == question[::-1]
        assert trace["before"]["value"] == trace["after"]["value"] == 1.0
    assert GUIDANCE in {trace["guidance"]["text"] for trace in traces}
    assert json.loads((tmp_path / "run" / "optimized_prompts.json").read_text("utf-8"))["best_candidate"]["guidance"] == GUIDANCE
    stage.done("report", tmp_path / "run")  # config.json says the same again, and the replay finds every call
    assert json.loads((tmp_path / "run" / "optimized_prompts.json").read_text("utf-8"))["best_candidate"]["guidance"] == GUIDANCE


def test_through_a_teacher_and_back(stage: Stage, tmp_path: Path) -> None:
    """Question and attempt reach the teacher in its template, its words reach the student, all of it reaches the traces."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"question": q, "answer": q[::-1]}) + "\n" for q in QUESTIONS))
    taught = f"Mind this: {NASTY}"
    template = f"{{{{Q}}}} [{{question}}] [{{attempt}}] {NASTY.replace('{question}', '').replace('{attempt}', '')}"
    school = School(student=lambda body: body["prompt"][::-1], teacher=lambda body: f"<teaching>\n{taught}\n</teaching>")
    with opened(school):
        tree = {
            "agents": {"student": school.agent(guidance="field"), "teacher": school.model("teacher")},
            "seed_prompts": {"teacher_adaptive_template": template.replace("${", "$${")},
            "data": {"path": "rows.jsonl", "split": {"train": 0.2, "val": 0.5, "test": 0.3}},
            "rim": {"judges": [{"type": "exact", "strip": False}]},
            "operators": ["ablate"],
            "max_metric_calls": 24,
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree), "utf-8")
        stage.done("optimize", tmp_path / "run.yaml", "--run-dir", tmp_path / "run", "--quiet")
    assert {body["guidance"] for body in school.sent["student"]} == {"", taught}
    assert {body["prompt"] for body in school.sent["student"]} <= set(QUESTIONS)
    tail = template.partition("[{attempt}]")[2]
    expected = {f"{{{{Q}}}} [{q}] [{q[::-1]}]{tail}" for q in QUESTIONS}
    seeds = [asked for asked in school.asked("teacher") if asked in expected]
    assert len(seeds) >= 4 and any(len(asked) > 200_000 for asked in seeds)
    traces = [json.loads(line) for line in (tmp_path / "run" / "traces.jsonl").read_text("utf-8").split("\n") if line]
    assert {trace["guidance"]["text"] for trace in traces} == {taught}
