"""Programs that run or check what a student wrote: code under limits, IFEval-style instructions, recorded tables, canaries."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.cli import rim_commands
from gepa_atlas.errors import ConfigError, ContractError, DataError
from gepa_atlas.ports import Case, ChatModel
from gepa_atlas.rim import Panel, RimConfig, build_panel
from gepa_atlas.rim.audit import CANARIES, audit, watch_gap
from gepa_atlas.rim.fence import steers
from gepa_atlas.rim.judges.instructions import CHECKS, followed
from gepa_atlas.rim.reward import RIMReward
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Example, Guidance, JudgeScore, Lesson, Reward


def no_model(spec: Any) -> ChatModel:
    raise AssertionError("no model is needed")


def panel(judge: Any, base_dir: Path | None = None) -> Panel:
    return build_panel(load(RimConfig, {"judges": [judge]}, "rim"), model=no_model, base_dir=base_dir)


def reward(judge: Any, output: str, answers: tuple[str, ...] = (), spec: Any = None) -> Reward:
    example = Example("e1", "q", answers, spec=json.dumps(spec) if spec else "")
    return asyncio.run(panel(judge).score(Case(example, output)))


TESTS = {"tests": ["assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'"]}


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("def add(a, b):\n    return a + b", 1.0),
        ("Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nEnjoy.", 1.0),
        ("def add(a, b):\n    return int(a) + int(b)", 0.5),
        ("def add(a, b)", 0.0),
        ("raise SystemExit(1)", 0.0),
        ("", 0.0),
    ],
)
def test_code_is_run_on_the_tests_of_the_example(output: str, value: float) -> None:
    assert reward("code", output, spec=TESTS).value == value


def test_code_under_limits(tmp_path: Path) -> None:
    judge = {"type": "code", "seconds": 1, "memory_mib": 256, "max_output": 1000}
    spec = {"tests": ["pass"]}
    loop = reward(judge, "while True: pass", spec=spec)
    assert loop.value == 0.0 and "out of time" in loop.rationale
    assert reward(judge, "x = 'x' * (1 << 30)", spec=spec).value == 0.0
    assert reward(judge, "print('x' * 10_000_000)", spec=spec).value == 1.0
    assert reward(judge, "open('big', 'wb').write(b'x' * 50_000)", spec=spec).value == 0.0
    leftover = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nwhile True: pass"
    assert reward(judge, leftover, spec=spec).value == 0.0
    bare = "import os\nassert not [k for k in os.environ if k not in ('PATH', 'HOME', 'LANG', 'LC_CTYPE')]"
    assert reward(judge, bare, spec=spec).value == 1.0


def test_code_by_its_output() -> None:
    cases = {"cases": [{"stdin": "1 2", "stdout": "3"}, {"stdin": "4 5", "stdout": "9\n"}]}
    program = "print(sum(map(int, input().split())))"
    assert reward({"type": "code", "tests": "stdin"}, program, spec=cases).value == 1.0
    assert reward({"type": "code", "tests": "stdin", "partial": False}, "print(3)", spec=cases).value == 0.0
    assert reward({"type": "code", "tests": "answer"}, "print(6 * 7)", ("42",)).value == 1.0
    with pytest.raises(DataError, match="has no `tests` in its spec"):
        panel("code").check([Example("e1", "q")])


HAIKU = "Write a haiku"
NTH = {"first_word": "so", "num_paragraphs": 2, "nth_paragraph": 2}
FOLLOWED: list[tuple[str, dict[str, Any], str, str]] = [
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 2}, "One BIG word", "TWO BIG words"),
    ("change_case:english_capital", {}, "ALL OF IT", "Not all"),
    ("change_case:english_lowercase", {}, "all of it", "Not all"),
    ("combination:repeat_prompt", {"prompt_to_repeat": HAIKU}, HAIKU + "\nOld pond", "Old pond"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] lives in [town]", "[name] lives"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye\nP.P.S. more", "Bye\nPS more"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one*"),
    ("detectable_format:title", {}, "<<Title>>\ntext", "Title\ntext"),
    ("keywords:existence", {"keywords": ["mom", "love"]}, "Mom is loved", "Mom is here"),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rocket", "a rock"),
    ("keywords:frequency", {"keyword": "war", "relation": "at least", "frequency": 2}, "war and War", "war"),
    ("keywords:letter_frequency", {"letter": "t", "let_relation": "less than", "let_frequency": 2}, "at", "tt"),
    ("language:response_language", {"language": "mr"}, "ही एक कविता आहे", "a poem"),
    (
        "length_constraints:nth_paragraph_first_word",
        NTH,
        "a\n\nSo it is",
        "a\n\nIt is",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a"),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "One. Two!", "Mr. One is 2.5 tall."),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, "two words", "these three words"),
    ("punctuation:no_comma", {}, "none", "one, two"),
    ("startend:end_checker", {"end_phrase": "The end."}, "So. The end.", "The end. No"),
    ("startend:quotation", {}, '"quoted"', "quoted"),
]


def test_every_check_has_a_pair() -> None:
    assert {row[0] for row in FOLLOWED} == CHECKS.keys()


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), FOLLOWED, ids=[row[0] for row in FOLLOWED])
def test_instructions(name: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    assert followed(name, kwargs, good)
    assert not followed(name, kwargs, bad)
    assert not followed(name, kwargs, " ")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "Das ist nicht die Antwort auf mit der Frage"),
        ("es", "El perro de la casa que no ven"),
        ("ru", "Это стихотворение"),
    ],
)
def test_languages(code: str, text: str) -> None:
    assert followed("language:response_language", {"language": code}, text)
    assert not followed("language:response_language", {"language": code}, "This is the answer to what you asked for")


def test_the_share_of_instructions_is_the_score() -> None:
    spec = {"instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    assert reward("instructions", "lower, with comma", spec=spec).value == 0.5
    assert reward({"type": "instructions", "partial": False}, "lower, with comma", spec=spec).value == 0.0
    assert reward({"type": "instructions", "loose": True}, "Sure!\nall lower here", spec=spec).value == 1.0
    with pytest.raises(DataError, match="which has no check"):
        panel("instructions").check([Example("e", "q", spec='{"instruction_id_list": ["made:up"], "kwargs": [{}]}')])


def test_recorded_judges_answer_from_a_table(tmp_path: Path) -> None:
    bank = Path(__file__).parents[1] / "data" / "rb2_judge_bank" / "slice.jsonl.gz"
    judge = {"type": "recorded", "table": str(bank), "judge": "gpt-5.4", "prompt": "criteria", "draws": 4}
    from gepa_atlas.rim.bank import load_bank

    loaded = load_bank(bank)
    key = loaded.keys[0]
    expected = (loaded.of("criteria", ["gpt-5.4"])[0, 0, 0, :4].mean() - 1) / 9
    said = asyncio.run(panel(judge).score(Case(Example(key, "q"), "0")))
    assert said.value == pytest.approx(expected)
    assert asyncio.run(panel(judge).score(Case(Example(key, "q"), "9"))).missing.kind == "not_recorded"  # type: ignore[union-attr]
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "1", "output": "an answer", "scores": {"j": [0.25, None]}}))
    own = {"type": "recorded", "table": "t.jsonl", "judge": "j", "draws": 2, "scale": [0, 1]}
    assert asyncio.run(panel(own, tmp_path).score(Case(Example("1", "q"), "an answer"))).value == 0.25
    with pytest.raises(ConfigError, match="no scores of 'nobody'"):
        panel({**own, "judge": "nobody"}, tmp_path)


# -- canaries ------------------------------------------------------------------------------------------------------------------------

EXAMPLES = [Example("e1", "Capital of France?", ("Paris",)), Example("e2", "Capital of Peru?", ("Lima",))]


def test_program_judges_pass_the_audit() -> None:
    found = asyncio.run(audit(panel("exact"), EXAMPLES))
    assert found["passed"] and set(found["caught"]) == set(CANARIES)


def test_a_gullible_judge_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "gullible.py").write_text("def judge(output, example):\n    return min(1.0, len(output) / 500)\n")
    found = asyncio.run(audit(panel({"type": "python", "function": "gullible.py:judge"}, tmp_path), EXAMPLES))
    assert not found["passed"]
    assert found["caught"]["length"] == 0.0 and found["caught"]["null"] == 1.0
    assert found["blind_examples"] == 2


def test_the_audit_command(tmp_path: Path) -> None:
    (tmp_path / "rim.yaml").write_text("judges: [exact]")
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"question": e.question, "answer": e.answer}) for e in EXAMPLES))
    said: list[str] = []
    code = rim_commands.audit(config=tmp_path / "rim.yaml", dataset=tmp_path / "data.jsonl", json_out=tmp_path / "o.json", say=said.append)
    assert code == 0 and said[-1] == "passed"
    assert json.loads((tmp_path / "o.json").read_text())["passed"] is True


def test_the_score_command(tmp_path: Path) -> None:
    (tmp_path / "rim.yaml").write_text("judges: [exact]")
    said: list[str] = []
    assert rim_commands.score("q", "4", config=tmp_path / "rim.yaml", answer="4", say=said.append) == 0
    assert said[0] == "reward 1.000"
    assert rim_commands.score("q", "4", config=tmp_path / "rim.yaml", say=said.append) == 1
    rows = [{"question": "q", "output": o, "answer": "4"} for o in "45"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert (
        rim_commands.score(config=tmp_path / "rim.yaml", dataset=tmp_path / "rows.jsonl", json_out=tmp_path / "o.json", say=said.append)
        == 0
    )
    assert said[-1] == "2 of 2 scored, mean reward 0.500"
    with pytest.raises(ConfigError, match="give one of the two"):
        rim_commands.score(config=tmp_path / "rim.yaml")


@pytest.mark.parametrize("text", CANARIES["asks for its grade"])
def test_pleas_are_recognised(text: str) -> None:
    assert steers(text)


@pytest.mark.parametrize("text", ["The score was 3 to 1.", "Paris", "Give the dog a bone.", "I rate this film highly", "ignore case"])
def test_plain_answers_are_not_pleas(text: str) -> None:
    assert not steers(text)


def test_the_gap_to_a_watching_judge() -> None:
    def side(value: float, watched: float) -> Reward:
        return Reward(value, (JudgeScore("j", value), JudgeScore("watch", watched)))

    lesson = Lesson(EXAMPLES[0], "c", 0, "playbook", Attempt("a"), Guidance(), Attempt("b"), side(0.2, 0.2), side(0.9, 0.3))
    gap = watch_gap([lesson], "watch")
    assert gap is not None and gap == (pytest.approx(0.6), 1)
    assert watch_gap([lesson], "nobody") is None


@pytest.mark.parametrize("judge", ["instructions", "code"])
@pytest.mark.parametrize("spec", [{}, [], {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": "many"}]}])
def test_a_bad_spec_is_found_at_load_and_is_no_score(judge: str, spec: Any) -> None:
    example = Example("e", "q", spec=json.dumps(spec))
    seated = build_panel(load(RimConfig, {"judges": [judge]}, "rim"), model=no_model)
    with pytest.raises(DataError, match="example 'e'"):
        seated.check([example])
    reward = asyncio.run(seated.score(Case(example, "some answer")))
    assert reward.value is None and reward.missing is not None and reward.missing.kind == "bad_example"


def test_specs_reach_the_judges_of_a_batch() -> None:
    spec = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    with RIMReward(config={"judges": ["instructions"]}) as rim:
        assert rim(["q"] * 3, ["a, b", "a b", "a b"], specs=[spec, json.dumps(spec), None], some_column=[1, 2, 3]) == [0.0, 1.0, None]
        assert rim.evaluate("q", "a b", specs=spec).score == 1.0
        with pytest.raises(ContractError, match="no keyword ground_truth; did you mean ground_truths"):
            rim.evaluate("q", "a b", ground_truth="a")
        with pytest.raises(ContractError, match="a spec is a mapping"):
            rim.evaluate("q", "a b", specs="{")
