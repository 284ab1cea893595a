"""Every exported form is read by the tool it is for, or by its rules, and gives the texts back as they were."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from gepa_atlas.errors import ConfigError
from gepa_atlas.report.exporters import FORMS, export
from gepa_atlas.report.prompts import ATLAS_KEYS, optimized_prompts
from gepa_atlas.types import Candidate, Demo
from tests.report.records import record

TEXT = 'Cite {id}, “so”, {{like}} {% this %} {# or #} "that"\nand é 🎓.'
DEMO = Demo("toy-1", "What {is} {{it}}?", "42 {%", "a context")


def document(candidate: Candidate, protocol: str = "playbook") -> dict[str, Any]:
    found = optimized_prompts(record())
    demos = [d.to_json() for d in candidate.demos]
    return found | {
        "best_candidate": dict(candidate.texts),
        "demonstrations": demos,
        "settings": dict(candidate.settings),
        "protocol": protocol,
    }


PLAIN = document(Candidate.of({"guidance": TEXT}, (DEMO,), {"temperature": 0.5, "max_tokens": 64}))
TAUGHT = document(Candidate.of({"teacher_adaptive_template": "Teach {question} after {attempt}, not {other}. {{x}}"}), "lesson")


def read(form: str, found: dict[str, Any]) -> Any:
    return json.loads(export(found, form)[1])


def test_every_form_has_a_file_name() -> None:
    names = {export(PLAIN, form)[0] for form in FORMS}
    assert len(names) == len(FORMS) and all(re.fullmatch(r"toyworld\.[a-z.]+", name) for name in names)


def test_text() -> None:
    assert export(PLAIN, "text")[1] == f"{TEXT}\n\nQuestion: a context\n\nWhat {{is}} {{{{it}}}}?\nAnswer: 42 {{%\n"


def test_atlas() -> None:
    assert tuple(read("atlas", PLAIN)) == ATLAS_KEYS


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dspy_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    dspy = pytest.importorskip("dspy", reason="the extra [dspy] is not installed; [dev] has it")
    path = tmp_path / "program.json"
    path.write_text(export(PLAIN, "dspy")[1], encoding="utf-8")
    program = dspy.Predict("context, question -> answer")
    program.load(path)
    assert program.signature.instructions == TEXT
    assert [(d["context"], d["question"], d["answer"]) for d in program.demos] == [("a context", "What {is} {{it}}?", "42 {%")]

    class Two(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.find, self.say = dspy.Predict("question -> fact"), dspy.Predict("fact -> answer")

    path.write_text(export(document(Candidate.of({"find": "Find it.", "say": "Say it."})), "dspy")[1], encoding="utf-8")
    two = Two()
    two.load(path)
    assert [p.signature.instructions for p in two.predictors()] == ["Find it.", "Say it."]


def test_promptfoo_renders_to_the_texts() -> None:
    config = yaml.safe_load(export(PLAIN, "promptfoo")[1])
    assert set(config) == {"description", "prompts", "providers", "tests"}
    (prompt,) = config["prompts"]
    rendered = jinja2.Environment().from_string(prompt["raw"]).render(question="Q")  # Nunjucks has Jinja's marks
    messages = json.loads(rendered)
    assert messages[0] == {"role": "system", "content": TEXT}
    assert messages[1]["content"] == "a context\n\nWhat {is} {{it}}?" and messages[2]["content"] == "42 {%"
    assert messages[-1] == {"role": "user", "content": "Q"}
    assert config["tests"][0]["assert"] == [{"type": "equals", "value": "42 {%"}]


def test_mlflow_has_no_variable_but_ours() -> None:
    (prompt,) = read("mlflow", PLAIN)
    assert set(prompt) == {"name", "template", "commit_message", "tags"}
    assert all(isinstance(v, str) for v in prompt["tags"].values())
    found = [v for m in prompt["template"] for v in re.findall(r"\{\{\s*(\w+)\s*\}\}", m["content"])]
    assert found == ["question"]
    (teacher,) = read("mlflow", TAUGHT)
    assert re.findall(r"\{\{\s*(\w+)\s*\}\}", teacher["template"]) == ["question", "attempt"]


def test_openai_is_a_request_of_the_responses_api() -> None:
    responses = pytest.importorskip("openai.types.responses", reason="openai is not installed; [dev] has it")
    body = read("openai", PLAIN)
    assert body.pop("variables") == ["question"]
    assert body["instructions"] == TEXT and body["temperature"] == 0.5 and body["max_output_tokens"] == 64
    assert body["input"][-1] == {"role": "user", "content": "{{question}}"}
    assert set(body) <= set(responses.response_create_params.ResponseCreateParamsBase.__annotations__)
    (teacher,) = read("openai", TAUGHT)
    assert teacher["variables"] == ["question", "attempt"]
    assert teacher["instructions"] == "Teach {{question}} after {{attempt}}, not {other}. {{x}}"


def test_what_is_no_document_of_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match="gepa-atlas report"):
        export({"name": "x"}, "text")
    with pytest.raises(ConfigError, match="choose one of text, atlas"):
        export(PLAIN, "yaml")
