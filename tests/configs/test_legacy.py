"""Configurations of ATLAS: what is read, what is moved, what is refused and why; and `gepa-atlas migrate`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.cli import run
from gepa_atlas.config import Loaded, load_config
from gepa_atlas.errors import ConfigError
from gepa_atlas.legacy import KEYS, modernise

WORDS = sorted({
    "type", "config", "provider", "params", "student", "teacher", "headers", "request_template", "query_template", "integration_type",
    "command", "module_path", "function_name", "class_name", "api_key", "tools", "output_extraction", "transform", "items_path", "url",
    "module", "function", "timeout", "request_timeout", "max_tokens", "reasoning_effort", "seed", "use_merge", "model", "columns",
    "teacher_adaptive_template", "student_diagnostic_template", "student_with_teaching_template", "reflection_max_tokens",
})  # fmt: skip
# In the shape of ATLAS's default.yaml, with a wrapper configuration over it.
OPTIMIZE = """
max_examples: 10
student_model: Qwen/Qwen3-4B
teacher_model: Arc-Intelligence/ATLAS-8B-Thinking
reflection_lm: gpt-5
max_metric_calls: 50
trace_storage: traces/t.jsonl
output: best.json
use_vllm_client: false
vllm_host: localhost
vllm_port: 8765
max_litellm_workers: 100
generation_config: {max_tokens: 2048, temperature: 0.7, diagnostic_max_tokens: 400, timeout: 200, request_timeout: 300}
seed_prompts:
  teacher_adaptive_template: "Teach.\\nQ: {question}\\nA: {approach}\\nAs JSON {{\\"a\\": 1}}"
  student_diagnostic_template: "How would you solve {question}?"
  student_with_teaching_template: "{question}\\n{teaching}"
fixed_prompts:
  student_baseline_template: "Solve {question}"
gepa_config:
  candidate_selection_strategy: pareto
  skip_perfect_score: false
  reflection_minibatch_size: 5
  perfect_score: 1.0
  module_selector: all
  display_progress_bar: true
wandb: {enabled: false, project: x}
trainset: d.jsonl
"""
WRAPPER = """
defaults: [optimize/default]
agents:
  target:
    provider: http.api
    params: {endpoint: "http://127.0.0.1:8000/chat", prompt_field: message, request_template: {message: "", user: me}, timeout: 300}
compatibility_mode: true
max_examples: 5
capture_traces: true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "optimize").mkdir()
    (tmp_path / "optimize" / "default.yaml").write_text(OPTIMIZE)
    (tmp_path / "wrapper.yaml").write_text(WRAPPER)
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n), "split": ("train", "val", "test")[n % 3]} for n in range(24)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def changed(tree: dict[str, Any]) -> dict[str, Any]:
    return modernise(tree, "old.yaml")[0]


def refused(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        modernise(tree, "old.yaml")
    message = str(caught.value)
    assert "\n" not in message and message.startswith("old.yaml: ")
    return message


def test_a_wrapper_over_defaults_is_read_whole(folder: Path) -> None:
    loaded: Loaded = load_config(folder / "wrapper.yaml", env={})
    config = loaded.config
    assert config.agents.student.provider == "http.api"
    assert config.agents.student.params["request_template"] == {"message": "{prompt}", "user": "me"}
    assert config.agents.teacher is not None and config.agents.teacher.provider == "huggingface"
    assert config.reflection_lm is not None and config.reflection_lm.params == {"model": "gpt-5", "timeout": 300}
    assert config.protocol == {"name": "probe", "params": {"max_tokens": 2048, "temperature": 0.7, "max_approach_tokens": 400}}
    assert config.seed_prompts["teacher_adaptive_template"].endswith('{"a": 1}')
    assert config.fixed_prompts == {"student_baseline_template": "Solve {question}"}
    assert (config.minibatch, config.concurrency, config.max_metric_calls, config.data.max_examples) == (5, 100, 50, 5)
    assert (config.data.train, config.output, config.trace_storage) == ("d.jsonl", "best.json", "traces/t.jsonl")
    [note] = loaded.notes
    assert "has keys of ATLAS" in note and "gepa-atlas migrate" in note


def test_what_is_typed_beats_what_the_old_file_says(folder: Path) -> None:
    sets = ["max_examples=7", "gepa_config.reflection_minibatch_size=3", "agents.target.params.timeout=9"]
    config = load_config(folder / "wrapper.yaml", sets, {"TEACHER_MODEL": "openai/gpt-4.1"}).config
    assert (config.data.max_examples, config.minibatch, config.agents.student.params["timeout"]) == (7, 3, 9)
    assert config.agents.teacher is not None and config.agents.teacher.params["model"] == "openai/gpt-4.1"


def test_the_model_that_stated_the_plan_of_a_wrapped_agent_is_not_used(tmp_path: Path) -> None:
    text = "agents:\n  student: {provider: chat, params: {model: local}}\n  target: {provider: toyworld, params: {world: {seed: 3}}}\n"
    (tmp_path / "old.yaml").write_text(text + "compatibility_mode: true\ndata: {toyworld: {seed: 3}}\n")
    loaded = load_config(tmp_path / "old.yaml", env={})
    assert loaded.config.agents.student.provider == "toyworld" and "2 things" in loaded.notes[0]
    (tmp_path / "new.yaml").write_text(text + "data: {toyworld: {seed: 3}}\n")
    with pytest.raises(ConfigError, match="two names for the same agent; keep one"):
        load_config(tmp_path / "new.yaml", env={})


@pytest.mark.parametrize(
    ("agent", "params"),
    [
        (
            {"provider": "python.callable", "params": {"module_path": "f.py", "function_name": "answer"}},
            {"callable": "f.py:answer"},
        ),
        ({"provider": "cli.command", "params": {"command": "my-agent '{prompt}'"}}, {"argv": ["my-agent", "{prompt}"]}),
    ],
)
def test_an_agent_of_atlas_is_known_where_nothing_else_in_the_file_tells(agent: Any, params: Any, tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"agents": {"target": agent}, "trainset": "x.jsonl", "seed_prompts": {"guidance": "{{}}"}}))
    config = load_config(file).config
    assert config.agents.student.params == params and config.seed_prompts == {"guidance": "{{}}"}
    assert run(["migrate", str(file)]) == 0 and load_config(tmp_path / "old.new.yaml").config.agents.student.params == params


def test_a_configuration_of_today_passes_unchanged() -> None:
    tree = {"agents": {"student": {"provider": "x"}}, "data": {"path": "d"}, "seed_prompts": {"guidance": "{{"}}
    assert modernise(tree, "new.yaml") == (tree, [])


@pytest.mark.parametrize(
    ("block", "student"),
    [
        (
            {"user_agent": {"type": "custom", "config": {"endpoint": "http://h/x", "query_template": {"q": "{prompt}"}}}},
            {"provider": "http.api", "params": {"endpoint": "http://h/x", "query": {"q": "{prompt}"}}},
        ),
        (
            {"agent_type": "custom", "agent_config": {"integration_type": "python_function", "module_path": "a.py", "function_name": "f"}},
            {"provider": "python.callable", "params": {"callable": "a.py:f"}},
        ),
        (
            {"user_agent": {"type": "custom", "config": {"integration_type": "cli_command", "command": "my-agent --ask '{prompt}' -v"}}},
            {"provider": "cli.command", "params": {"argv": ["my-agent", "--ask", "{prompt}", "-v"]}},
        ),
        (
            {"student_wrapper": {"type": "openai_assistant", "config": {"api_key": "${OPENAI_API_KEY}", "instructions": "Be brief."}}},
            {"provider": "openai.responses",
             "params": {"model": "gpt-4o-mini", "system_prompt": "Be brief.", "api_key_env": "OPENAI_API_KEY"}},
        ),
        (
            {"user_agent": {"type": "openai_assistant", "config": {
                "api_key": "${K}", "assistant_id": "a1", "max_workers": 3, "base_url": "http://h/v1"}}},
            {"provider": "openai.assistant",
             "params": {"assistant_id": "a1", "base_url": "http://h/v1", "api_key_env": "K", "max_concurrency": 3}},
        ),
        (
            {"user_agent": {"type": "openai_sdk", "config": {"instructions": "Hi", "model": "m", "handoffs": [{"name": "b"}],
                "tools": [{"type": "function", "module_path": "t.py", "function_name": "f"}]}}},
            {"provider": "openai.sdk", "params": {
                "agent": {"instructions": "Hi", "model": "m", "handoffs": [{"name": "b"}], "tools": ["t.py:f"]}}},
        ),
        ({"user_agent": {"type": "my.own", "config": {"a": 1}}}, {"provider": "my.own", "params": {"a": 1}}),
        ({"student_model": "gpt-4o-mini"}, {"provider": "chat", "params": {
            "model": {"provider": "litellm", "params": {"model": "gpt-4o-mini"}}, "max_tokens": 2048}}),
    ],
)  # fmt: skip
def test_every_way_to_name_an_agent(block: dict[str, Any], student: dict[str, Any]) -> None:
    assert changed(block)["agents"]["student"] == student


def test_a_teacher_by_wrapper_by_name_or_behind_vllm() -> None:
    wrapped = changed({"teacher_wrapper": {"type": "custom", "config": {"endpoint": "http://h"}}})
    assert wrapped["agents"]["teacher"]["provider"] == "http.api"
    named = changed({"teacher_model": "gemini/gemini-2.5-pro", "generation_config": {"timeout": 9, "reasoning_effort": "low"}})
    params = {"model": "gemini/gemini-2.5-pro", "timeout": 9, "extra": {"reasoning_effort": "low"}}
    assert named["agents"]["teacher"] == named["reflection_lm"] == {"provider": "litellm", "params": params}
    served = changed({"teacher_model": "A/B", "use_vllm_client": True, "vllm_host": "gpu1", "vllm_port": 8000})
    assert served["agents"]["teacher"] == {"provider": "openai.chat", "params": {"model": "A/B", "base_url": "http://gpu1:8000/v1"}}


def test_a_teacher_that_reads_the_first_answer_is_a_lesson() -> None:
    tree = changed({
        "compatibility_mode": True,
        "seed_prompts": {
            "teacher_adaptive_template": "{question} {baseline_response}",
            "student_diagnostic_template": "{question}?",
            "student_with_teaching_template": "{question} {approach} {teaching}",
        },
        "optimization_targets": {"student_diagnostic_template": {"optimize": True}},
    })  # fmt: skip
    assert tree["protocol"] == {"name": "lesson", "params": {"student_template": True}}
    assert tree["seed_prompts"] == {
        "teacher_adaptive_template": "{question} {attempt}",
        "student_with_teaching_template": "{question} {attempt} {teaching}",
    }
    assert tree["optimization_targets"] == {}


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ({"type": "file", "path": "x.jsonl", "columns": {"question": "q"}}, {"path": "x.jsonl", "columns": {"question": "q"}}),
        (
            {"type": "http_api", "url": "http://h/i", "timeout": 5,
             "transform": {"items_path": "a.b", "question_field": "q", "answer_field": "x.y"}},
            {"http": {"url": "http://h/i", "timeout": 5, "items_path": "a.b"}, "columns": {"question": "q", "answer": "x.y"}},
        ),
        ({"type": "prometheus_alerts"}, {"prometheus": {}}),
        ({"type": "itbench_scenarios", "scenarios_dir": "s"}, {"itbench": {"scenarios_dir": "s"}}),
        ({"type": "custom_function", "module": "m.py", "function": "load"}, {"function": "m.py:load", "args": [4]}),
    ],
)  # fmt: skip
def test_every_source_of_data(source: dict[str, Any], data: dict[str, Any]) -> None:
    tree = changed({"data_source": source, "max_examples": 4, "trainset": "unused.jsonl"})
    assert tree["data"] == {**data, "max_examples": 4} and "trainset" not in tree


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"data_source": {"type": "http_api", "url": "http://h", "transform": {"script": "result = data"}}}, "ran whatever Python"),
        ({"data_source": {"type": "ftp"}}, "'ftp' is none of file, http_api"),
        ({"data_source": {"path": "x", "colums": {}}}, "data_source.colums: unknown key; did you mean 'columns'?"),
        ({"gepa_config": {"candidate_selection_strategy": "current_best"}}, "'current_best' is not carried over: parents come from"),
        ({"gepa_config": {"perfect_score": 5}}, "the best reward is 1"),
        ({"gepa_config": {"reflection_prompt_template": "x"}}, "write reflection_instructions"),
        ({"gepa_config": {"module_selecter": "all"}}, "did you mean 'module_selector'?"),
        ({"gepa_config": []}, "gepa_config: takes a mapping"),
        ({"generation_config": {"maxtokens": 3}}, "did you mean 'max_tokens'?"),
        ({"gepa_config": {"seed": 3}, "seed": 4}, "gepa_config.seed and seed say the same; keep seed"),
        ({"agent_config": {}}, "agent_config is given without agent_type"),
        ({"user_agent": {"type": "langchain"}}, "'langchain' is none of openai_assistant, openai_sdk, custom"),
        ({"user_agent": {"type": "custom", "config": {"integration_type": "cli_command", "command": "a | b {prompt}"}}}, "needs a shell"),
        ({"user_agent": {"type": "custom", "config": {"integration_type": "cli_command", "command": "a --q={prompt}"}}}, "of its own"),
        ({"user_agent": {"type": "openai_assistant", "config": {"api_key": "literal"}}}, "name the variable that holds it"),
        ({"user_agent": {"type": "openai_assistant", "config": {"assistant_id": "a1"}}}, "write what a1 was told into provider"),
        ({"user_agent": {"type": "openai_sdk", "config": {"tools": [{"type": "web_search"}]}}}, "is no function of a file"),
        ({"user_agent": {"type": "custom", "config": {"integration_type": "soap"}}}, "'soap' is none of http_api"),
        (
            {"teacher_model": "gpt-4", "seed_prompts": {"teacher_adaptive_template": "{question} {approach} {available_tools}"}},
            "nothing fills {available_tools}",
        ),
    ],
)
def test_what_is_refused_says_why(tree: dict[str, Any], says: str) -> None:
    assert says in refused(tree)


def test_old_values_without_effect_are_listed() -> None:
    tree, lines = modernise({"wandb": {}, "evaluation": {}, "gepa_config": {"module_selector": "single", "use_merge": False}}, "x")
    assert tree == {"operators": ["demos", "edit", "ablate"]}
    assert [line.split(" ")[0] for line in lines] == ["gepa_config.module_selector", "gepa_config.use_merge", "evaluation", "wandb"]


# -- gepa-atlas migrate -----------------------------------------------------------------------------------------------


def test_migrate_writes_what_runs_the_same(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert run(["migrate", str(folder / "wrapper.yaml")]) == 0
    out = capsys.readouterr().out
    new = folder / "wrapper.new.yaml"
    assert "teacher_model -> agents.teacher" in out and "wandb is not used" in out and f"next: gepa-atlas check {new}" in out
    before, after = load_config(folder / "wrapper.yaml", env={}), load_config(new, env={})
    assert after.config == before.config and after.notes == ()
    assert "Teach.\n" in yaml.safe_load(new.read_text())["seed_prompts"]["teacher_adaptive_template"]
    assert run(["migrate", str(folder / "wrapper.yaml")]) == 2
    assert "exists; choose another one with --output, or replace it with --force" in capsys.readouterr().err
    assert run(["migrate", str(folder / "wrapper.yaml"), "--force"]) == 0
    assert run(["migrate", str(new)]) == 0
    assert "there is nothing to change" in capsys.readouterr().out


def test_migrate_keeps_variables_and_moves_paths(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "sub").mkdir()
    old = folder / "sub" / "old.yaml"
    old.write_text("user_agent: {type: openai_assistant, config: {api_key: '${MY_KEY}', model: '${MY_MODEL}'}}\ntrainset: d.jsonl\n")
    assert run(["migrate", "sub/old.yaml", "--output", "sub/new.yaml"]) == 0
    tree = yaml.safe_load((folder / "sub" / "new.yaml").read_text())
    assert tree["agents"]["student"]["params"] == {"model": "${MY_MODEL}", "api_key_env": "MY_KEY"}
    assert tree["trainset"] == "../d.jsonl"
    assert "still to do:" in capsys.readouterr().out  # MY_MODEL is not set


TOY = """
agents:
  target: {provider: toyworld, params: {world: {seed: 3}}}
gepa_config: {candidate_selection_strategy: pareto, reflection_minibatch_size: 3, display_progress_bar: true}
max_litellm_workers: 4
max_examples: 60
data: {toyworld: {seed: 3}}
seed_prompts: {guidance: Read the ticket and reply.}
operators: [edit, ablate]
operator_options: {edit: {fragments: [When a ticket names lilug, cite maroq.]}}
max_metric_calls: 60
"""


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text(TOY)
    page = (Path(__file__).parents[2] / "docs" / "atlas.md").read_text("utf-8")
    commands = re.search(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert commands is not None
    lines = [shlex.split(line) for line in commands[1].splitlines()]
    assert [line[:2] for line in lines] == [["gepa-atlas", command] for command in ("optimize", "migrate", "check")]
    for line in lines:
        assert run(line[1:]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "old.yaml has keys of ATLAS: 5 things" in out and "max_litellm_workers -> concurrency" in out


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "a/b", "${K}", "{prompt}", "http_api", "custom", "file"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(KEYS | {"agents", "data", "seed_prompts", "fixed_prompts", "reflection_lm", "operators"})), VALUES
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_an_old_file_holds_is_moved_or_refused_in_one_line(tree: dict[str, Any]) -> None:
    try:
        modernise(tree, "old.yaml")
    except ConfigError as error:
        assert "\n" not in str(error)
