"""Each program judge: what it accepts, what it refuses, and where the line is."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.ports import Case, ChatModel
from gepa_atlas.rim import Panel, RimConfig, build_panel
from gepa_atlas.settings import load
from gepa_atlas.types import Example


def no_model(spec: Any) -> ChatModel:
    raise AssertionError(f"a program judge asked for the model {spec!r}")


def panel(*judges: Any, base_dir: Path | None = None, **keys: Any) -> Panel:
    return build_panel(load(RimConfig, {"judges": list(judges), **keys}, "rim"), model=no_model, base_dir=base_dir)


def score(judge: Any, output: str, *answers: str, spec: str = "", base_dir: Path | None = None) -> float | None:
    case = Case(Example("e1", "a question", answers, spec=spec), output)
    return asyncio.run(panel(judge, base_dir=base_dir).score(case)).value


@pytest.mark.parametrize(
    ("judge", "output", "answers", "value"),
    [
        ("exact", " Paris\n", ["Paris"], 1.0),
        ("exact", "paris", ["Paris"], 0.0),
        ("exact", "New  York", ["New York"], 0.0),
        ("exact", "NYC", ["New York", "NYC"], 1.0),
        ({"type": "exact", "ignore_case": True, "collapse_spaces": True}, "new  YORK", ["New York"], 1.0),
        ({"type": "exact", "strip": False}, "Paris ", ["Paris"], 0.0),
        ({"type": "choice", "labels": ["spam", "not spam"]}, "This is NOT SPAM.", ["not spam"], 1.0),
        ({"type": "choice", "labels": ["spam", "not spam"]}, "This is not spam.", ["spam"], 0.0),
        ({"type": "choice", "labels": ["yes", "no"]}, "yes or no", ["yes"], 0.0),
        ({"type": "choice", "labels": ["yes", "no"]}, "know", ["no"], 0.0),
        ({"type": "choice", "labels": ["A", "B"]}, "a clear case: (B).", ["B"], 1.0),
        ({"type": "choice", "labels": ["A", "B"]}, "a", ["A"], 1.0),
        ({"type": "choice", "labels": ["A", "B"], "line": "last"}, "A seems right.\nB", ["B"], 1.0),
        ("number", "So the total is $1,234.50.", ["1234.5"], 1.0),
        ("number", "10-5", ["5"], 1.0),
        ("number", "x = -5", ["-5"], 1.0),
        ("number", "-$5", ["-5"], 1.0),
        ("number", "$-5", ["-5"], 1.0),
        ("number", "\u22125", ["-5"], 1.0),
        ("number", "0.001", ["0.004"], 0.0),
        ("number", "order-12", ["12"], 1.0),
        ("number", "none", ["12"], 0.0),
        ("number", "0", ["0"], 1.0),
        ("number", "1e3", ["1000"], 1.0),
        ("number", "1e309", ["1000"], 0.0),
        ({"type": "number", "rel": 0.01}, "3.14", ["3.14159"], 1.0),
        ({"type": "number", "abs": 0.5}, "10.6", ["10"], 0.0),
        ({"type": "number", "pick": "only"}, "3 of 4", ["4"], 0.0),
        ({"type": "number", "pick": "first"}, "3 of 4", ["3"], 1.0),
        ({"type": "number", "after": "####"}, "7 apples\n#### 12 (of 40)", ["40"], 1.0),
        ({"type": "number", "after": "####"}, "12", ["12"], 0.0),
        ({"type": "number", "units": {"km": 1000, "m": 1}}, "about 2.5 km", ["2500 m"], 1.0),
        ({"type": "number", "units": {"%": 0.01}}, "50%", ["0.5"], 1.0),
        ("contains", "It is Paris, of course", ["Paris"], 1.0),
        ({"type": "contains", "mode": "all"}, "red and blue", ["red", "green"], 0.0),
        ({"type": "contains", "whole_words": True}, "Parisian", ["Paris"], 0.0),
        ({"type": "contains", "texts": ["Dear"], "absent": ["sorry"]}, "Dear all, sorry", [], 0.0),
        ({"type": "contains", "absent": ["sorry"]}, "fine", [], 1.0),
        ({"type": "regex", "pattern": r"ORD-\d{4}"}, "see ORD-1234", [], 1.0),
        ({"type": "regex", "pattern": r"ORD-\d{4}", "mode": "fullmatch"}, "see ORD-1234", [], 0.0),
        ({"type": "regex", "pattern": r"answer: (\w+)", "group": 1, "ignore_case": True}, "Answer: B", ["b"], 1.0),
        ("json_schema", '{"a": 1}', [], 1.0),
        ("json_schema", '{"a": NaN}', [], 0.0),
        ("json_schema", '{"a": 1, "a": 2}', [], 0.0),
        ("json_schema", "[" * 100_000, [], 0.0),
        ({"type": "json_schema", "json_schema": {"type": "object", "required": ["a"]}}, '{"b": 1}', [], 0.0),
        ({"type": "json_schema", "fenced": True}, '```json\n{"a": 1}\n```', [], 1.0),
        ({"type": "json_schema", "match": "equal"}, '{"b": 2, "a": 1.0}', ['{"a": 1, "b": 2}'], 1.0),
        ({"type": "json_schema", "match": "fields"}, '{"a": 1, "b": 3}', ['{"a": 1, "b": 2}'], 0.5),
    ],
)
def test_values(judge: Any, output: str, answers: list[str], value: float) -> None:
    assert score(judge, output, *answers) == value


def test_schema_of_the_example() -> None:
    spec = json.dumps({"schema": {"type": "object", "required": ["id"]}})
    assert score("json_schema", '{"id": 1}', spec=spec) == 1.0
    assert score("json_schema", "{}", spec=spec) == 0.0


JUDGE_FILE = """
import asyncio

def length(output, example):
    return min(1.0, len(output) / 10), "by length"

async def slow(output, example):
    await asyncio.sleep(30)

def yes(output, example):
    return output == example.answer

def cannot(output, example):
    return None

def crash(output, example):
    raise RuntimeError("boom {x}")

def wrong(output, example):
    return "0.5"

def big(output, example):
    return float("nan")
"""


def test_python_functions(tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text(JUDGE_FILE)

    def said(name: str, **keys: Any) -> Any:
        judge = {"type": "python", "function": f"judges.py:{name}", **keys}
        return asyncio.run(panel(judge, base_dir=tmp_path).score(Case(Example("e", "q", ("hello",)), "hello")))

    assert said("length").value == 0.5
    assert said("length").parts[0].rationale == "by length"
    assert said("yes").value == 1.0
    kinds = {n: said(n, timeout=0.2).missing.kind for n in ("slow", "cannot", "crash", "wrong", "big")}
    assert kinds == {"slow": "timeout", "cannot": "abstained", "crash": "judge_crashed", "wrong": "bad_score", "big": "bad_score"}
    assert "boom {x}" in said("crash").missing.reason


def test_a_changed_function_is_another_judge(tmp_path: Path) -> None:
    judge = {"type": "python", "function": "judges.py:yes"}
    (tmp_path / "judges.py").write_text(JUDGE_FILE)
    first = panel(judge, base_dir=tmp_path).identity
    assert first == panel(judge, base_dir=tmp_path).identity
    (tmp_path / "judges.py").write_text(JUDGE_FILE + "\n# changed\n")
    assert first != panel(judge, base_dir=tmp_path).identity


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"judges": ["exat"]}, "rim.judges.0.type: unknown judge type 'exat'; did you mean 'exact'?"),
        ({"judges": [{"type": "number", "relative": 1}]}, "rim.judges.0.relative: unknown key"),
        ({"judges": [{"type": "exact", "ignore_cases": True}]}, "did you mean 'ignore_case'?"),
        ({"judges": []}, "rim.judges"),
        ({"judges": "exact"}, "give a list of judges"),
        ({"judges": [{"name": "x"}]}, "rim.judges.0.type: this key is required"),
        ({"judges": ["exact", "exact"]}, "taken by an earlier judge"),
        ({"judges": [{"type": "regex", "pattern": "("}]}, "not a regular expression"),
        ({"judges": [{"type": "regex", "pattern": "a", "group": 2}]}, "0 groups"),
        ({"judges": [{"type": "exact", "weight": 0}]}, "greater than 0"),
        ({"judges": ["exact"], "quorom": 1}, "did you mean 'quorum'?"),
        ({"judges": [{"type": "python", "function": "no_such_module_x:f"}]}, "cannot import"),
        ({"judges": [{"type": "python", "function": "json:no_such"}]}, "has no function"),
        ({"judges": [{"type": "json_schema", "json_schema": {"type": "objekt"}}]}, "not a JSON schema"),
    ],
)
def test_bad_configurations_are_one_line(config: Any, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_panel(load(RimConfig, config, "rim"), model=no_model)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("judge", "answers", "line"),
    [
        ("exact", (), "example 'e2' has no gold answer, which judge 'exact' needs"),
        ({"type": "choice", "labels": ["yes", "no"]}, ("maybe",), "not one of the labels"),
        ("number", ("twelve",), "no number in its answer"),
        ({"type": "json_schema", "match": "equal"}, ("{",), "is not JSON"),
    ],
)
def test_examples_a_judge_cannot_score_are_refused_at_load(judge: Any, answers: tuple[str, ...], line: str) -> None:
    good = {"number": "12", "exact": "x"}.get(judge if isinstance(judge, str) else judge["type"], '"yes"').strip('"')
    first = Example("e1", "q", ("1" if good == "12" else ("{}" if isinstance(judge, dict) and judge["type"] == "json_schema" else good),))
    with pytest.raises(DataError) as caught:
        panel(judge).check([first, Example("e2", "q", answers)])
    assert line in str(caught.value)
    assert "'e2'" in str(caught.value)


def test_a_judge_without_gold_is_accepted() -> None:
    panel({"type": "regex", "pattern": "x"}).check([Example("e", "q")])
    assert not panel("json_schema").needs_answer
    assert panel("json_schema", "exact").needs_answer


@given(st.text(), st.text(min_size=1))
def test_judges_never_raise_and_identical_outputs_have_no_delta(output: str, answer: str) -> None:
    judges = ["exact", {"type": "contains"}, {"type": "choice", "labels": ["a", "bc"]}, "number", "json_schema"]
    case = Case(Example("e", "q", (answer,)), output)
    delta = asyncio.run(panel(*judges).delta(case, case))
    assert (delta.value, delta.error) == (0.0, 0.0)


def test_a_thousand_rewards(record_testsuite_property: Any) -> None:
    """The figure is recorded, not asserted: `pytest --junitxml` shows it; about 0.1 ms each on two busy cores."""
    judges = panel("exact", {"type": "choice", "labels": ["yes", "no"]}, "number", {"type": "regex", "pattern": r"\d+"})
    cases = [Case(Example(f"e{i}", "how many?", (str(i),)), f"the answer is {i}") for i in range(1000)]

    async def run() -> list[float | None]:
        return [(await judges.score(case)).value for case in cases]

    started = time.perf_counter()
    values = asyncio.run(run())
    record_testsuite_property("milliseconds_per_reward", round(time.perf_counter() - started, 4))
    assert values == [0.5] * 1000


HOSTILE = "^(a|aa)+$"  # about 1.6 ** n steps on n letters and a mark


@pytest.mark.parametrize(
    ("judge", "output", "spec"),
    [
        ({"type": "regex", "pattern": HOSTILE, "seconds": 0.05}, "a" * 80 + "!", ""),
        ({"type": "regex", "pattern": HOSTILE, "mode": "fullmatch", "seconds": 0.05}, "a" * 80 + "!", ""),
        ({"type": "json_schema", "json_schema": {"type": "object", "properties": {"x": {"pattern": HOSTILE}}}}, {"x": "a" * 80 + "!"}, ""),
        ({"type": "json_schema", "json_schema": {"patternProperties": {HOSTILE: {}}}}, {"a" * 80 + "!": 1}, ""),
        ({"type": "json_schema"}, {"a" * 80 + "!": 1}, {"schema": {"patternProperties": {HOSTILE: {}}, "additionalProperties": False}}),
    ],
)
def test_a_hostile_pattern_is_no_score_in_time(judge: dict[str, Any], output: Any, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gepa_atlas.rim.judges._patterns.find.__kwdefaults__", {"full": False, "seconds": 0.05})
    text = output if isinstance(output, str) else json.dumps(output)
    example = Example("e", "q", spec=json.dumps(spec) if spec else "")
    began = time.monotonic()
    reward = asyncio.run(panel(judge).score(Case(example, text)))
    assert time.monotonic() - began < 5.0
    assert reward.value is None and reward.missing is not None and reward.missing.kind == "timeout"
    assert "possessive" in reward.parts[0].missing.reason


@pytest.mark.parametrize(
    ("schema", "document", "value"),
    [
        ({"properties": {"x": {"pattern": "^a+$"}}}, {"x": "aaa"}, 1.0),
        ({"properties": {"x": {"pattern": "^a+$"}}}, {"x": "b"}, 0.0),
        ({"properties": {"x": {"pattern": "^a+$"}}}, {"x": 7}, 1.0),
        ({"patternProperties": {"^n_": {"type": "number"}}}, {"n_a": 1, "other": "x"}, 1.0),
        ({"patternProperties": {"^n_": {"type": "number"}}}, {"n_a": "x"}, 0.0),
        ({"patternProperties": {"^n_": {}}, "properties": {"x": {}}, "additionalProperties": False}, {"n_a": 1, "x": 2}, 1.0),
        ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, {"n_a": 1, "y": 2}, 0.0),
        ({"additionalProperties": {"type": "string"}}, {"y": 2}, 0.0),
        ({"additionalProperties": {"type": "string"}}, [1], 1.0),
    ],
)
def test_patterns_of_a_schema(schema: dict[str, Any], document: Any, value: float) -> None:
    reward = asyncio.run(panel({"type": "json_schema", "json_schema": schema}).score(Case(Example("e", "q"), json.dumps(document))))
    assert reward.value == value


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ([1], "its spec is a mapping with a `schema` mapping"),
        ({"schema": 3}, "its spec is a mapping with a `schema` mapping"),
        ({"schema": {"type": "nothing"}}, "not a JSON schema"),
        ({"schema": {"pattern": "("}}, "is not a 'regex'"),
        ({"schema": {"properties": {"x": {"patternProperties": {"[": {}}}}}}, "is not a 'regex'"),
    ],
)
def test_a_bad_schema_of_an_example_is_found_at_load(spec: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        panel("json_schema").check([Example("e", "q", spec=json.dumps(spec))])


def test_what_a_student_writes_does_not_break_a_schema_judge(tmp_path: Path) -> None:
    step = {"type": "json_schema", "json_schema": {"multipleOf": 0.1}}
    assert score(step, "1e309") == 0.0
    tree = {"type": "object", "additionalProperties": {"$ref": "#"}}
    deep = '{"a": ' * 400 + "{}" + "}" * 400
    reward = asyncio.run(panel({"type": "json_schema", "json_schema": tree}).score(Case(Example("e", "q"), deep)))
    assert reward.value is None and reward.missing is not None and "too deeply nested" in reward.missing.reason
    gold = asyncio.run(panel({"type": "json_schema", "match": "equal"}).score(Case(Example("e", "q", ("zz",)), "{}")))
    assert gold.value is None and gold.missing is not None and gold.missing.kind == "bad_example"
    with pytest.raises(ConfigError, match="leads to itself"):
        panel({"type": "json_schema", "json_schema": {"$ref": "#"}})


@pytest.mark.parametrize(
    "judge",
    [
        {"type": "contains", "texts": [""]},
        {"type": "contains", "absent": [""]},
        {"type": "number", "units": {"km": 0}},
        {"type": "number", "units": {"km": float("nan")}},
    ],
)
def test_settings_that_every_answer_would_pass_or_fail(judge: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"texts|absent|units"):
        panel(judge)


def test_a_function_that_raises_an_interrupt_is_a_missing_score(tmp_path: Path) -> None:
    (tmp_path / "j.py").write_text("def f(output, example):\n    raise KeyboardInterrupt\n")
    reward = asyncio.run(panel({"type": "python", "function": "j.py:f"}, base_dir=tmp_path).score(Case(Example("e", "q"), "x")))
    assert reward.missing is not None and reward.missing.kind == "judge_crashed"
