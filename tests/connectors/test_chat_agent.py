"""The chat provider with a scripted model: what is sent, what comes back, what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import BadRequest, ConfigError, EmptyAnswer, RateLimited
from gepa_atlas.ports import Agent, ChatRequest, Completion
from gepa_atlas.testing.scripted import ScriptedModel
from gepa_atlas.types import Attempt, Message, StopReason, Task, Usage
from tests.connectors.faults import task


def agent(answer: Any = "4", identity: str = "scripted:model", **params: Any) -> tuple[Agent, ScriptedModel]:
    model = ScriptedModel(lambda request: answer, identity=identity)
    return build_agent(AgentSpec(provider="chat", params={"model": "m", **params}), build_model=lambda spec: model), model


def run(built: Agent, asked: Task) -> Attempt:
    return asyncio.run(built.run(asked))


def test_guidance_takes_the_place_of_the_system_prompt() -> None:
    built, model = agent(system_prompt="Base.")
    assert run(built, task("2 + 2?")).output == "4"
    run(built, task("2 + 2?", "Better.", demos=(("1?", "1"),)))
    assert model.requests[0].messages == (Message("system", "Base."), Message("user", "2 + 2?"))
    assert model.requests[1].messages == (
        Message("system", "Better."),
        Message("user", "1?"),
        Message("assistant", "1"),
        Message("user", "2 + 2?"),
    )


def test_a_completion_is_one_text_that_stops_at_the_newline() -> None:
    built, model = agent(" 4 ", mode="completion", system_prompt="Base.", input_label="Q:", output_label="A:")
    assert run(built, task("2 + 2?", "Add.", demos=(("1 + 1?", "2"),))).output == "4"
    request = model.requests[0]
    assert request.prompt == "Add.\n\nQ: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA:"
    assert request.stop == ("\n",) and request.messages == ()


def test_settings_of_a_candidate_override_the_parameters_and_others_are_refused() -> None:
    built, model = agent(temperature=0.0, max_tokens=100, seed=7)
    run(built, task(temperature=1, max_tokens=5))
    assert (model.requests[0].temperature, model.requests[0].max_tokens, model.requests[0].seed) == (1.0, 5, 7)
    for settings in (
        {"top_p": 0.5},
        {"temperature": -1},
        {"temperature": "hot"},
        {"max_tokens": 0},
        {"max_tokens": 2.5},
        {"max_tokens": True},
    ):
        with pytest.raises(BadRequest, match=next(iter(settings))):
            run(built, task(**settings))
    assert len(model.requests) == 1


def test_an_answer_cut_at_the_limit_says_so() -> None:
    built, _ = agent(Completion("The answer is", Usage(5, 3), "length"))
    attempt = run(built, task())
    assert (attempt.output, attempt.stop, attempt.usage.tokens) == ("The answer is", StopReason.LENGTH, 8)


@pytest.mark.parametrize(("finish", "says"), [("stop", "answered nothing"), ("length", "raise max_tokens")])
def test_an_empty_chat_answer_is_an_error_with_the_reason(finish: str, says: str) -> None:
    built, _ = agent(Completion(" \n", Usage(), finish))
    with pytest.raises(EmptyAnswer, match=says):
        run(built, task())


def test_a_completion_that_stops_at_once_has_answered_with_nothing() -> None:
    built, _ = agent(Completion(""), mode="completion")
    assert run(built, task()).output == ""
    built, _ = agent(Completion("", Usage(), "length"), mode="completion")
    with pytest.raises(EmptyAnswer):
        run(built, task())


def test_white_space_stays_where_it_is_wanted() -> None:
    built, _ = agent("  4\n", strip=False)
    assert run(built, task()).output == "  4\n"


def test_errors_of_the_model_pass_as_they_are() -> None:
    built, _ = agent(RateLimited("slow down", 3.0))
    with pytest.raises(RateLimited) as caught:
        run(built, task())
    assert caught.value.retry_after == 3.0


def test_the_identity_knows_all_that_changes_answers() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"system_prompt": "x"},
        {"mode": "completion"},
        {"guidance": "prefix"},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"seed": 1},
        {"stop": ["."]},
        {"strip": False},
        {"question_format": "> {question}"},
        {"identity": "scripted:other"},
    ]
    identities = [agent(**v)[0].identity for v in variants]
    assert len(set(identities)) == len(variants)
    assert agent()[0].identity == identities[0]


def test_rollouts_share_the_limits_of_their_model() -> None:
    built, model = agent()
    assert built.endpoint == model.endpoint


def test_hostile_text_reaches_the_model_unchanged(hostile: str) -> None:
    built, model = agent(hostile, strip=False)
    assert run(built, task(hostile, hostile, demos=((hostile, hostile),))).output == hostile
    assert [m.content for m in model.requests[0].messages] == [hostile] * 4


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"guidance": "field"}, "a chat has no fields"),
        ({"mode": "completion", "guidance": "prefix"}, "a completion has one place"),
        ({"sytem_prompt": "x"}, "did you mean 'system_prompt'"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_wrong_params_are_one_line(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        agent(**params)


def test_the_sample_is_part_of_the_request_and_not_sent_twice() -> None:
    built, model = agent()
    run(built, Task(task().question, sample=3))
    assert isinstance(model.requests[0], ChatRequest) and model.requests[0].sample == 3
