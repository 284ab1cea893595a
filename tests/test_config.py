"""One file, the environment and --set become one configuration; whatever is wrong with it is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas import secrets
from gepa_atlas.build import width_of
from gepa_atlas.config import Loaded, load_config, load_resolved, manifest
from gepa_atlas.configfile import assign, expand, merge, parse_yaml
from gepa_atlas.dotenv import load_env_files
from gepa_atlas.errors import ConfigError

BASE = """
agents:
  student: {provider: chat, params: {model: local}}
data: {path: d.jsonl}
"""


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())


def write(directory: Path, text: str = BASE, name: str = "run.yaml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def loaded(directory: Path, *sets: str, text: str = BASE, **env: str) -> Loaded:
    return load_config(write(directory, text), sets, env)


def refusal(directory: Path, *sets: str, text: str = BASE, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(directory, *sets, text=text, **env)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- files ------------------------------------------------------------------------------------------------------------


def test_defaults_of_a_run(tmp_path: Path) -> None:
    config = loaded(tmp_path).config
    assert (config.max_metric_calls, config.width, config.concurrency, config.seed) == (150, None, 8, 0)
    assert [width_of(n) for n in (150, 600, 100_000)] == [4, 12, 128]
    assert config.protocol_name == "playbook"
    assert loaded(tmp_path).run_dir == Path("runs/run")


def test_a_teacher_makes_lesson_the_default_protocol(tmp_path: Path) -> None:
    assert loaded(tmp_path, "agents.teacher=openai/gpt-5").config.protocol_name == "lesson"


def test_defaults_merge_deep_in_order_and_relative_to_each_file(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1\nwidth: 2\nstop: {plateau: 9}\n" + BASE, "base/a.yaml")
    write(tmp_path, "defaults: [a.yaml]\nseed: 2\nstop: {target: 0.5}\n", "base/b.yaml")
    config = loaded(tmp_path, text="defaults: base/b.yaml\nseed: 3\n").config
    assert (config.seed, config.width, config.stop.plateau, config.stop.target) == (3, 2, 9, 0.5)


def test_a_new_provider_does_not_inherit_the_params_of_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, BASE, "base.yaml")
    config = loaded(tmp_path, text="defaults: [base.yaml]\nagents: {target: {provider: http.api, params: {endpoint: x}}}\n").config
    assert config.agents.student.params == {"endpoint": "x"}


@pytest.mark.parametrize("name", ["target", "user_agent"])
def test_the_student_has_the_names_that_atlas_gave_it(tmp_path: Path, name: str) -> None:
    text = BASE.replace("student", name)
    assert loaded(tmp_path, f"agents.{name}.params.model=x", text=text).config.agents.student.params["model"] == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2\n", "run.yaml:2: not valid YAML: the key 'seed' is given twice"),
        ("a: {b: ${C}}\n", "needs quotes inside {...}"),
        ("a: [1, 2\nb: 3", "run.yaml:2: not valid YAML"),
        ("- 1\n- 2\n", "a configuration is a mapping"),
        ("seed_prompts: {guidance: 2026-11-22}", "seed_prompts.guidance is a date to YAML; put it in quotes"),
        ("on: 1\n", "the key True under the top is not text"),
        ("seed: .inf\n", "only finite numbers"),
        ("a: &a [*a]\n", "contains itself"),
        ("x: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("a: &a [" + "x," * 9 + "]\nb: [" + "*a," * 101 + "]\n", "more than 100 aliases"),
        ("x: " + "[" * 60 + "]" * 60, "nested deeper"),
        ("x: " + "[" * 3000 + "]" * 3000, "nested deeper"),
        ("defaults: [nowhere.yaml]\n", "defaults: names 'nowhere.yaml', which is not a file"),
        ("defaults: [run.yaml]\n", "go in a circle (run.yaml -> run.yaml)"),
        ("defaults: 3\n", "takes a list of file names"),
        ("maxmetric_calls: 3\n" + BASE, "maxmetric_calls: unknown key; did you mean 'max_metric_calls'?"),
        ("gepa_config: {seeed: 3}\n" + BASE, "gepa_config.seeed: unknown key; did you mean 'seed'?"),
        ("seed: 1\n", "agents: this key is required"),
        (BASE.replace("provider: chat", "provder: chat"), "agents.student.provder: unknown key; did you mean 'provider'?"),
        (BASE + "budget: {dollars: -1}\n", "budget.dollars: "),
        (BASE + "max_metric_calls: 0\n", "max_metric_calls: "),
        (BASE + "operators: [demos]\noperator_options: {edit: {}}\n", "operator_options.edit is for an operator that is not in operators"),
        (BASE + "agents2: {student: a, target: b}\n", "agents2: unknown key"),
        (BASE.replace("data: {path: d.jsonl}", "data: {}"), "data: exactly one source is needed"),
        (BASE.replace("}}", "}}\n  target: {provider: chat}"), "agents.student and agents.target are two names for the same agent"),
        (BASE + "seed_prompts: {guidance: 'key sk-abcdefghijklmnopqrstuvwx'}\n", "seed_prompts.guidance holds what looks like a secret"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    message = refusal(tmp_path, text=text)
    assert says in message
    assert "run.yaml" in message


def test_paths_that_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    for path, says in ((tmp_path / "no.yaml", "no such file"), (tmp_path, "a directory"), (tmp_path / "latin.yaml", "not UTF-8")):
        with pytest.raises(ConfigError, match=says):
            load_config(path, env={})


# -- variables --------------------------------------------------------------------------------------------------------


def test_variables_are_filled_in_anywhere_in_a_string(tmp_path: Path) -> None:
    text = BASE + "seed_prompts: {guidance: 'at ${HOST}:${PORT:80}, $${HOST} costs $5 {x}'}\nseed: ${SEED:7}\n"
    config = loaded(tmp_path, text=text, HOST="h").config
    assert config.seed_prompts["guidance"] == "at h:80, ${HOST} costs $5 {x}"
    assert config.seed == 7


def test_an_unset_variable_is_named_with_its_key(tmp_path: Path) -> None:
    message = refusal(tmp_path, text=BASE.replace("local", "'${MODEL_NAME}'"))
    assert "agents.student.params.model" in message and "MODEL_NAME" in message and "not set" in message


def test_half_a_variable_is_refused(tmp_path: Path) -> None:
    assert "opens no variable" in refusal(tmp_path, text=BASE.replace("local", "'${my-model}'"))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$")))
def test_text_without_a_dollar_passes_unchanged(text: str) -> None:
    assert expand({"a": [text]}, {}, "f").tree == {"a": [text]}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_was_filled_in_is_not_looked_at_again(text: str) -> None:
    assert expand({"a": "${X}"}, {"X": text}, "f").tree == {"a": text}


def test_secrets_are_not_saved(tmp_path: Path) -> None:
    text = BASE.replace("model: local", "model: local, note: 'k=${SOME_API_KEY}', headers: {Authorization: 'Bearer ${SOME_API_KEY}'}")
    found = loaded(tmp_path, text=text, SOME_API_KEY="hunter2hunter2")
    params = found.config.agents.student.params
    assert params["note"] == "k=hunter2hunter2"
    assert params["headers"]["Authorization"] == "Bearer ${SOME_API_KEY}", "a connector reads headers when it sends them"
    saved = json.dumps(found.resolved)
    assert "hunter2" not in saved and "k=${SOME_API_KEY}" in saved
    assert secrets.scrub("hunter2hunter2") == secrets.MASK


def test_atlas_variables_override_the_file_and_set_overrides_them(tmp_path: Path) -> None:
    env = {"STUDENT_MODEL": "s", "TEACHER_MODEL": "t/t", "REFLECTION_LM": "r/r", "TRAINSET": "tr.jsonl", "VALSET": "va.jsonl"}
    found = loaded(tmp_path, **env)
    config = found.config
    assert config.agents.student.params["model"] == "s"
    assert config.agents.teacher is not None and config.agents.teacher.spec == "t/t"
    assert config.reflection_lm is not None and config.reflection_lm.spec == "r/r"
    assert (config.data.path, config.data.train, config.data.val) == (
        None,
        str(Path("tr.jsonl").absolute()),
        str(Path("va.jsonl").absolute()),
    )
    assert len(found.notes) == 5
    assert loaded(tmp_path, "agents.student.params.model=mine", **env).config.agents.student.params["model"] == "mine"


def test_model_variables_replace_the_model_and_keep_its_server(tmp_path: Path) -> None:
    server = "{provider: openai.chat, params: {base_url: 'http://127.0.0.1:1', model: m}}"
    text = BASE.replace("model: local", f"model: {server}") + f"reflection_lm: {server}\n"
    config = loaded(tmp_path, text=text, STUDENT_MODEL="s", REFLECTION_LM="r").config
    assert config.agents.student.params["model"]["params"] == {"base_url": "http://127.0.0.1:1", "model": "s"}
    assert config.reflection_lm is not None and config.reflection_lm.params["model"] == "r"


def test_student_model_without_a_model_to_replace(tmp_path: Path) -> None:
    assert "no model to replace" in refusal(tmp_path, text=BASE.replace("model: local", "endpoint: x"), STUDENT_MODEL="s")


def test_env_files_override_nothing_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, clone = tmp_path / "here", tmp_path / "clone"
    config = write(clone / "configs")
    here.mkdir()
    (here / ".env").write_text("A_VAR=here\nSET_VAR=file\n")
    (clone / ".env").write_text("A_VAR=clone\nB_VAR='pa$word #1'\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("SET_VAR", "set")
    for name in ("A_VAR", "B_VAR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    load_env_files(config)
    import os

    assert (os.environ["A_VAR"], os.environ["B_VAR"], os.environ["SET_VAR"]) == ("here", "pa$word #1", "set")


# -- --set ------------------------------------------------------------------------------------------------------------


def test_set_takes_yaml_and_list_indexes(tmp_path: Path) -> None:
    text = BASE + "rim: {judges: [exact, {type: number}]}\n"
    config = loaded(tmp_path, "rim.judges.1.tolerance=0.5", "rim.judges.2=contains", "operators=[demos, edit]", text=text).config
    assert config.rim["judges"] == ["exact", {"type": "number", "tolerance": 0.5}, "contains"]
    assert config.operators == ("demos", "edit")


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("seed", "write it as key.below=value"),
        (".seed=1", "write it as key.below=value"),
        ("agents.student.provider.x=1", "there is no key 'x' below the value 'chat'"),
        ("operators.5=x", "is not an index of a list of 1"),
        ("seed=[", "not valid YAML"),
        ("seed=many", "seed: "),
    ],
)
def test_what_is_wrong_with_an_override_is_one_line(tmp_path: Path, assignment: str, says: str) -> None:
    assert says in refusal(tmp_path, "operators=[demos]", assignment)


def test_set_leaves_the_tree_it_was_given_alone() -> None:
    tree = {"a": {"b": [1, 2]}}
    assert assign(tree, "a.b.0=9", lambda at: at) == {"a": {"b": [9, 2]}}
    assert tree == {"a": {"b": [1, 2]}}


trees = st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda t: st.dictionaries(st.sampled_from("abc"), t), max_leaves=8)


@given(st.dictionaries(st.sampled_from("abc"), trees), st.dictionaries(st.sampled_from("abc"), trees))
def test_merging_keeps_everything_of_the_upper_file(base: dict[str, object], over: dict[str, object]) -> None:
    merged = merge(base, over)
    assert merge(merged, over) == merged
    assert merge({}, over) == over and merge(base, {}) == base
    assert all(merged[k] == v for k, v in over.items() if not isinstance(v, dict))


@given(st.text(max_size=200))
def test_no_text_makes_the_yaml_reader_fall(text: str) -> None:
    try:
        parse_yaml(text, "f")
    except ConfigError as error:
        assert "\n" not in str(error)


# -- data and judges from elsewhere -----------------------------------------------------------------------------------


def test_trainset_and_its_companions_are_data(tmp_path: Path) -> None:
    text = BASE.replace("data: {path: d.jsonl}", "trainset: a.jsonl\nvalset: b.jsonl\ntestset: c.jsonl\ndata: {columns: {question: q}}")
    data = loaded(tmp_path, text=text).config.data
    assert (data.train, data.val, data.test, data.columns.question) == ("a.jsonl", "b.jsonl", "c.jsonl", "q")


def test_judges_may_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "rim: {judges: [exact], quorum: 0.5}\n", "rim.yaml")
    config = loaded(tmp_path, text=BASE + "reward_config_path: rim.yaml\nrim: {judges: [number]}\n").config
    assert config.rim == {"judges": ["number"], "quorum": 0.5}


def test_a_saved_configuration_is_the_same_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    model = "{provider: x, params: {k: '${SOME_API_KEY}', headers: {a: '${SOME_API_KEY}'}}}"
    text = BASE + "seed_prompts: {guidance: 'cost: $${5}'}\n" + f"reflection_lm: {model}\n"
    first = load_config(write(tmp_path, text), ["seed=3"])
    (tmp_path / "config.json").write_text(json.dumps(first.resolved))
    again = load_resolved(tmp_path)
    assert (again.config, again.resolved, again.path) == (first.config, first.resolved, first.path)


# -- the manifest -----------------------------------------------------------------------------------------------------


def test_the_manifest_names_what_decides_and_nothing_else(tmp_path: Path) -> None:
    def entries(*sets: str) -> dict[str, str]:
        return manifest(loaded(tmp_path, *sets), {"data": "f"})

    start = entries()
    for free in ("concurrency=2", "output=x.json", "run_dir=elsewhere", "budget.dollars=3", "retry.attempts=3", "trace_storage=t"):
        assert entries(free) == start, free
    for key, change in (("seed", "seed=1"), ("width", "width=1"), ("operators", "operators=[demos]"), ("stop", "stop.plateau=3")):
        assert {k for k, v in entries(change).items() if start[k] != v} == {key}
    assert manifest(loaded(tmp_path), {"data": "g"})["data"] != start["data"]


def test_an_emoji_escaped_as_json_is_one_character() -> None:
    assert parse_yaml(json.dumps({"a": ["\U0001f642", {"\U0001f642": "x"}]}), "here") == {"a": ["\U0001f642", {"\U0001f642": "x"}]}
    for half in ("\\ud83d", "\\ude42", "\\ude42\\ud83d", "\\0"):
        with pytest.raises(ConfigError, match="here: a holds"):
            parse_yaml(f'a: "x{half}"', "here")


def test_a_digit_that_is_no_number_is_a_key(tmp_path: Path) -> None:
    assert "unknown key" in refusal(tmp_path, "a.\u00b2=1")
    assert "less than or equal" in refusal(tmp_path, f"max_metric_calls={10**400}")


def test_a_variable_that_cannot_be_set_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ODD_ONE=a\0b\n")
    with pytest.raises(ConfigError, match="ODD_ONE"):
        load_env_files(tmp_path / "c.yaml")
