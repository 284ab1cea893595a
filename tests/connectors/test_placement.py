"""Guidance in a request, as pure functions: every place, and every character unchanged."""

from __future__ import annotations

import pytest

from gepa_atlas.connectors import placement
from gepa_atlas.connectors.placement import Placement, chat_turns, few_shot_text, guidance_text, prompt_text
from gepa_atlas.errors import BadRequest, ConfigError
from gepa_atlas.settings import load
from gepa_atlas.types import Demo, Guidance, Message, Question, Task
from tests.connectors.faults import task

DEMOS = (("1 + 1?", "2"), ("3 + 3?", "6"))


def test_a_bare_task_is_its_question_and_nothing_else() -> None:
    assert prompt_text(task("Why?"), Placement()) == "Why?"
    assert chat_turns(task("Why?"), Placement()) == (Message("user", "Why?"),)


def test_guidance_before_demonstrations_before_the_question() -> None:
    text = prompt_text(task("2 + 2?", "Be brief.", demos=DEMOS), Placement())
    assert text == "Be brief.\n\nQuestion: 1 + 1?\nAnswer: 2\n\nQuestion: 3 + 3?\nAnswer: 6\n\n2 + 2?"


def test_a_suffix_follows_the_question_and_demonstrations_still_lead() -> None:
    text = prompt_text(task("2 + 2?", "Be brief.", demos=DEMOS[:1]), Placement(guidance="suffix"))
    assert text == "Question: 1 + 1?\nAnswer: 2\n\n2 + 2?\n\nBe brief."


def test_in_a_field_the_guidance_is_not_in_the_prompt() -> None:
    how = Placement(guidance="field")
    asked = task("2 + 2?", "Be brief.", demos=DEMOS[:1])
    assert prompt_text(asked, how) == "2 + 2?"
    assert guidance_text(asked.guidance, how, demos_apart=False) == "Be brief.\n\nQuestion: 1 + 1?\nAnswer: 2"
    assert guidance_text(asked.guidance, how, demos_apart=True) == "Be brief."


def test_context_stands_before_the_question_asked_and_the_question_shown() -> None:
    shown = Demo("d", "Who?", "Ada", "Ada wrote.")
    asked = Task(Question("q", "When?", "It was 1843."), Guidance("", (shown,)))
    assert prompt_text(asked, Placement()) == "Question: Ada wrote.\n\nWho?\nAnswer: Ada\n\nIt was 1843.\n\nWhen?"
    how = Placement(context_format="[{context}] {question}", question_format="Q: {question}\nA:", demo_format="Q: {question}\nA: {answer}")
    assert prompt_text(asked, how) == "Q: [Ada wrote.] Who?\nA: Ada\n\nQ: [It was 1843.] When?\nA:"


def test_chat_turns_by_place() -> None:
    asked = task("2 + 2?", "Be brief.", demos=DEMOS[:1])
    pair = (Message("user", "1 + 1?"), Message("assistant", "2"))
    question = Message("user", "2 + 2?")

    def turns(where: placement.Where, **more: object) -> tuple[Message, ...]:
        return chat_turns(asked, Placement(guidance=where), system="Base.", **more)  # type: ignore[arg-type]

    assert turns("system") == (Message("system", "Be brief."), *pair, question)
    assert turns("system", replace_system=False) == (Message("system", "Base.\n\nBe brief."), *pair, question)
    assert turns("prefix") == (Message("system", "Base."), *pair, Message("user", "Be brief.\n\n2 + 2?"))
    assert turns("suffix") == (Message("system", "Base."), *pair, Message("user", "2 + 2?\n\nBe brief."))
    exchange = (Message("user", "Be brief."), Message("assistant", "Understood."))
    assert turns("turns") == (Message("system", "Base."), *exchange, *pair, question)


def test_a_plain_completion_ends_in_an_open_pair() -> None:
    asked = task("2 + 2?", demos=DEMOS[:1])
    text = few_shot_text(asked, Placement(), instruction="Add.", input_label="Input:", output_label="Output:")
    assert text == "Add.\n\nInput: 1 + 1?\nOutput: 2\n\nInput: 2 + 2?\nOutput:"


def test_what_is_put_in_is_never_read_as_a_template(hostile: str) -> None:
    asked = Task(Question("q", hostile, hostile), Guidance(hostile, (Demo("d", hostile, hostile, hostile),)))
    block = f"{hostile}\n\n{hostile}"
    assert prompt_text(asked, Placement()) == f"{hostile}\n\nQuestion: {block}\nAnswer: {hostile}\n\n{block}"
    assert chat_turns(asked, Placement(guidance="system"), system="x") == (
        Message("system", hostile),
        Message("user", block),
        Message("assistant", hostile),
        Message("user", block),
    )
    text = few_shot_text(asked, Placement(), instruction=hostile, input_label="I", output_label="O")
    assert text == f"{hostile}\n\nI {block}\nO {hostile}\n\nI {block}\nO"


@pytest.mark.parametrize("key", ["question_format", "context_format", "demo_format"])
def test_a_template_without_its_placeholder_is_refused_at_load(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"params\.{key}: the template must contain \{{"):
        load(Placement, {key: "nothing"}, "params")


def test_a_setting_without_a_place_is_named() -> None:
    error = placement.no_place_for({"top_k": 3}, ("temperature",), "the agent")
    assert isinstance(error, BadRequest)
    assert "'top_k'" in str(error) and "temperature" in str(error)
    assert placement.no_place_for({"temperature": 0.1}, ("temperature",), "the agent") is None


def test_a_lone_surrogate_has_no_bytes() -> None:
    with pytest.raises(BadRequest, match="lone surrogate at character 2"):
        placement.encoded("ab\ud800", "the prompt")
