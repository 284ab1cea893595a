"""openai.chat, openai.responses and openai.assistant against servers held to the official SDK's types, and beside the SDK itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import (
    AgentCrashed,
    BadRequest,
    CallError,
    CallTimeout,
    ConfigError,
    EmptyAnswer,
    Garbled,
    NotFound,
    RateLimited,
    ServerFault,
)
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import Advises, Agent, ChatModel, ChatRequest, Completion, Previews
from gepa_atlas.testing.conformance import AgentConformance, ChatModelConformance
from gepa_atlas.testing.scripted import ScriptedModel
from gepa_atlas.types import Attempt, Message, StopReason, Task, Usage
from tests.connectors.faults import Server, task
from tests.connectors.strict import strictly_serving
from tests.llm.test_conformance import Echo

KEY = "correct-horse-battery-staple"


def agent(provider: str, url: str, **params: Any) -> Agent:
    more = {"assistant_id": "asst_local", "first_poll": 0.01} if provider == "openai.assistant" else {"model": "m"}
    given = {"base_url": url, "timeout": 10.0, **more, **params}
    return build_agent(AgentSpec(provider=provider, params=given), build_model=build_model)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


PROVIDERS = ["openai.chat", "openai.responses", "openai.assistant"]


# -- beside the official SDK ------------------------------------------------------------------------------------------


@pytest.mark.local
@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_official_sdk_sends_the_same_and_reads_the_same(provider: str, local_model: LocalModel) -> None:
    """The SDK is told what our connector was told: the bodies it sends are ours, and the answer it reads is ours."""
    asked: list[tuple[str, Any]] = []
    with strictly_serving(local_model, asked) as url:
        ours = run(agent(provider, url, max_tokens=12, turn_reply="Yes."), task("12 kilometres", "Write the unit symbol.")).output
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        turns = [{"role": "user", "content": "12 kilometres"}]
        if provider == "openai.chat":
            system = {"role": "system", "content": "Write the unit symbol."}
            chat = client.chat.completions.create(model="m", messages=[system, *turns], max_tokens=12, temperature=0.0, seed=0)  # type: ignore[list-item]
            theirs = chat.choices[0].message.content
        elif provider == "openai.responses":
            given: dict[str, Any] = {"input": turns, "instructions": "Write the unit symbol.", "max_output_tokens": 12, "store": False}
            theirs = client.responses.create(model="m", **given).output_text
        else:
            theirs = by_assistant(client, turns)
        client.close()
    assert ours and theirs is not None and theirs.strip() == ours
    bodies = [{name: value for name, value in body.items() if name != "stream"} for _, body in asked]  # theirs says false
    assert bodies[: len(bodies) // 2] == bodies[len(bodies) // 2 :]


def by_assistant(client: openai.OpenAI, turns: list[Any]) -> str:
    with pytest.warns(DeprecationWarning):
        thread = client.beta.threads.create(messages=turns)
        run = client.beta.threads.runs.create_and_poll(
            thread_id=thread.id,
            assistant_id="asst_local",
            instructions="Write the unit symbol.",
            max_completion_tokens=12,
            poll_interval_ms=10,
        )
        messages = client.beta.threads.messages.list(thread_id=thread.id, run_id=run.id)
    content = messages.data[0].content[0]
    assert content.type == "text"
    return content.text.value


# -- conformance ------------------------------------------------------------------------------------------------------


class Conformance(AgentConformance):
    provider = ""
    secrets = (KEY,)

    @pytest.fixture(autouse=True)
    def _servers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("A_KEY", KEY)
        with ExitStack() as stack:
            self._echo = stack.enter_context(strictly_serving(Echo()))
            failing = ScriptedModel(lambda request: ServerFault(f"lines\nand {KEY}"))
            self._failing = stack.enter_context(strictly_serving(failing))
            self._silent = stack.enter_context(strictly_serving(ScriptedModel(lambda request: "late", latency=30.0)))
            yield

    def at(self, url: str, **params: Any) -> Agent:
        return agent(self.provider, url, api_key_env="A_KEY", **params)

    def make(self) -> Agent:
        return self.at(self._echo)

    def make_echo(self) -> Agent:
        return self.at(self._echo, strip=False) if self.provider != "openai.assistant" else self.at(self._echo)

    def make_failing(self) -> Agent:
        return self.at(self._failing)

    def make_silent(self) -> Agent:
        return self.at(self._silent, timeout=0.2)


class TestOpenAIChat(Conformance):
    provider = "openai.chat"


class TestResponses(Conformance):
    provider = "openai.responses"


class TestAssistant(Conformance):
    provider = "openai.assistant"


class TestResponsesModel(ChatModelConformance):
    """The same API as a model: for teachers, judges and reflection."""

    completes_prompts = False
    secrets = (KEY,)

    @pytest.fixture(autouse=True)
    def _servers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("A_KEY", KEY)
        with ExitStack() as stack:
            self._echo = stack.enter_context(strictly_serving(Echo()))
            self._failing = stack.enter_context(strictly_serving(ScriptedModel(lambda request: ServerFault(KEY))))
            self._silent = stack.enter_context(strictly_serving(ScriptedModel(lambda request: "late", latency=30.0)))
            yield

    def at(self, url: str, timeout: float = 10.0) -> ChatModel:
        params = {"model": "m", "base_url": url, "api_key_env": "A_KEY", "timeout": timeout}
        return build_model({"provider": "openai.responses", "params": params})

    def make(self) -> ChatModel:
        return self.at(self._echo)

    def make_echo(self) -> ChatModel:
        return self.at(self._echo)

    def make_failing(self) -> ChatModel:
        return self.at(self._failing)

    def make_silent(self) -> ChatModel:
        return self.at(self._silent, 0.2)


# -- where guidance goes ----------------------------------------------------------------------------------------------

BODIES: dict[tuple[str, str], Any] = {
    ("openai.responses", "system"): {"instructions": "Better.", "input": [("user", "1?"), ("assistant", "1"), ("user", "2?")]},
    ("openai.responses", "prefix"): {"instructions": "Base.", "input": [("user", "1?"), ("assistant", "1"), ("user", "Better.\n\n2?")]},
    ("openai.responses", "turns"): {
        "instructions": "Base.",
        "input": [("user", "Better."), ("assistant", "Understood."), ("user", "1?"), ("assistant", "1"), ("user", "2?")],
    },
    ("openai.assistant", "system"): {"instructions": "Better.", "input": [("user", "1?"), ("assistant", "1"), ("user", "2?")]},
    ("openai.assistant", "suffix"): {"instructions": None, "input": [("user", "1?"), ("assistant", "1"), ("user", "2?\n\nBetter.")]},
}


@pytest.mark.parametrize(("provider", "where"), sorted(BODIES))
def test_guidance_stands_where_the_configuration_says_and_check_shows_it(provider: str, where: str) -> None:
    asked: list[tuple[str, Any]] = []
    with strictly_serving(Echo(), asked) as url:
        base = {"system_prompt": "Base."} if provider == "openai.responses" else {}
        built = agent(provider, url, guidance=where, **base)
        shown = built.preview(task("2?", "Better.", demos=(("1?", "1"),))) if isinstance(built, Previews) else {}
        run(built, task("2?", "Better.", demos=(("1?", "1"),)))
    body = asked[-1][1]
    assert shown["body"] == body and KEY not in json.dumps(shown)
    assert shown["url"].endswith("/v1/responses" if provider == "openai.responses" else "/v1/threads/THREAD/runs")
    if provider == "openai.assistant":
        assert shown["first"]["body"] == asked[0][1]
    turns = body["input"] if provider == "openai.responses" else asked[0][1]["messages"]
    assert [(turn["role"], turn["content"]) for turn in turns] == BODIES[provider, where]["input"]
    assert body.get("instructions") == BODIES[provider, where]["instructions"]
    assert "previous_response_id" not in body


def test_guidance_beside_the_assistants_own_instructions() -> None:
    asked: list[tuple[str, Any]] = []
    with strictly_serving(Echo(), asked) as url:
        run(agent("openai.assistant", url, replace_system=False, model="other", temperature=0.5), task("2?", "Better.", max_tokens=5))
    assert asked[1][1] == {
        "assistant_id": "asst_local",
        "additional_instructions": "Better.",
        "model": "other",
        "temperature": 0.5,
        "max_completion_tokens": 5,
    }


def test_tools_structured_output_and_reasoning_are_passed_through(server: Server) -> None:
    server.says(json.dumps(response([text_item('{"city": "Paris"}')])))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    tools = [{"type": "web_search"}]
    more: dict[str, Any] = {"tools": tools, "tool_choice": "auto", "reasoning": {"effort": "low"}, "extra_body": {"service_tier": "flex"}}
    built = agent("openai.responses", server.url, json_schema=schema, response_field="city", **more)
    assert run(built).output == "Paris"
    body = server.asked[0].json
    from tests.connectors.strict import fits

    fits("/v1/responses", body)
    assert body["tools"] == tools and body["reasoning"] == {"effort": "low"} and body["service_tier"] == "flex"
    assert body["text"]["format"] == {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}


# -- answers without an answer ----------------------------------------------------------------------------------------


def text_item(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def response(output: list[Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "input_tokens": 9,
        "output_tokens": 512,
        "total_tokens": 521,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    }
    usage["output_tokens_details"] = {"reasoning_tokens": 512}
    whole = {"id": "r", "object": "response", "created_at": 0, "model": "m", "status": status, "error": None, "output": output}
    whole |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage, **more}
    openai.types.responses.Response.model_validate(whole)
    return whole


THINKING = {"id": "t", "type": "reasoning", "summary": []}
REFUSAL = {**text_item(""), "content": [{"type": "refusal", "refusal": "I must not."}]}
CALL = {"id": "c", "type": "function_call", "name": "look_up", "arguments": "{}", "call_id": "c1"}


@pytest.mark.parametrize(
    ("output", "more", "kind", "says"),
    [
        (
            [THINKING],
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            EmptyAnswer,
            "512 of them on reasoning",
        ),
        ([THINKING], {}, EmptyAnswer, "its output holds: reasoning"),
        ([], {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, EmptyAnswer, "content_filter"),
        ([REFUSAL], {}, EmptyAnswer, "refused: I must not."),
        ([THINKING, CALL], {}, EmptyAnswer, "asks for the tool 'look_up'"),
        ([text_item(" \n")], {}, EmptyAnswer, "answered nothing"),
        ([], {"status": "failed", "error": {"code": "server_error", "message": "oops"}}, ServerFault, "oops"),
        ([], {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}}, RateLimited, "slow"),
        ([], {"status": "failed", "error": {"code": "invalid_prompt", "message": "no"}}, BadRequest, "no"),
        ([], {"status": "cancelled"}, ServerFault, "cancelled"),
    ],
)
def test_a_response_without_text_is_an_error_with_the_reason(
    output: list[Any], more: dict[str, Any], kind: type[CallError], says: str, server: Server
) -> None:
    server.says(json.dumps(response(output, **more)))
    with pytest.raises(CallError, match=says) as caught:
        run(agent("openai.responses", server.url))
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_a_response_that_was_cut_says_so(server: Server) -> None:
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    server.says(json.dumps(response([text_item("The capital"), text_item(" of")], **cut)))
    attempt = run(agent("openai.responses", server.url, price={"input": 1.0, "output": 2.0}))
    assert (attempt.output, attempt.stop, attempt.usage.tokens) == ("The capital of", StopReason.LENGTH, 521)
    assert attempt.usage.dollars == pytest.approx((9 + 2 * 512) / 1e6)


@pytest.mark.parametrize("body", ["{}", "[]", '{"status": "completed", "output": [{}]}', '{"status": "completed", "output": 3}'])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_is_not_the_protocol_is_garbled(provider: str, body: str, server: Server) -> None:
    server.says(body)
    with pytest.raises(Garbled):
        run(agent(provider, server.url))


@pytest.mark.parametrize(
    ("run_", "kind", "says"),
    [
        ({"status": "failed", "last_error": {"code": "rate_limit_exceeded", "message": "slow"}}, RateLimited, "slow"),
        ({"status": "failed", "last_error": {"code": "server_error", "message": "oops"}}, ServerFault, "oops"),
        ({"status": "expired", "last_error": None}, CallTimeout, "expired"),
        ({"status": "cancelled"}, AgentCrashed, "cancelled"),
        (
            {
                "status": "requires_action",
                "required_action": {"submit_tool_outputs": {"tool_calls": [{"function": {"name": "look_up"}}]}},
            },
            EmptyAnswer,
            "look_up",
        ),
        ({"stats": "queued"}, Garbled, "KeyError"),
    ],
)
def test_a_run_that_did_not_complete_is_an_error_with_the_reason(
    run_: dict[str, Any], kind: type[CallError], says: str, server: Server
) -> None:
    server.says(json.dumps({"id": "thread_1"} | run_))
    with pytest.raises(CallError, match=says) as caught:
        run(agent("openai.assistant", server.url))
    assert type(caught.value) is kind


def test_an_assistant_cut_before_any_text_and_one_that_is_not_there() -> None:
    with strictly_serving(ScriptedModel([Completion("", Usage(1, 1), "length"), Completion("Par", Usage(1, 1), "length")])) as url:
        with pytest.raises(EmptyAnswer, match="max_completion_tokens"):
            run(agent("openai.assistant", url))
        assert run(agent("openai.assistant", url)).stop is StopReason.LENGTH
        with pytest.raises(NotFound, match="asst_other"):
            run(agent("openai.assistant", url, assistant_id="asst_other"))


# -- what is refused at load, and what a user is told -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "params", "says"),
    [
        ("openai.responses", {"temperature": 0.5}, r"send: \[temperature\]"),
        ("openai.responses", {"stop": ["."]}, "no completions, stop sequences or seed"),
        ("openai.responses", {"extra_body": {"previous_response_id": "r"}}, "previous_response_id is not for a run to set"),
        ("openai.responses", {"guidance": "field"}, "a chat has no fields"),
        ("openai.responses", {"sytem_prompt": "x"}, "did you mean 'system_prompt'"),
        ("openai.chat", {"base_ur": "x"}, "did you mean 'base_url'"),
        ("openai.chat", {"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
        ("openai.assistant", {"guidance": "field"}, "an assistant has no fields"),
    ],
)
def test_wrong_params_are_one_line(provider: str, params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        agent(provider, "http://127.0.0.1:1/v1", **params)
    assert "\n" not in str(caught.value)


def test_the_assistants_api_of_openai_is_gone_and_the_way_on_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"2026-08-26; use provider: openai.responses, with params: \{\"model\": \"gpt-4o\""):
        agent("openai.assistant", "https://api.openai.com/v1", model="gpt-4o")
    built = agent("openai.assistant", "http://127.0.0.1:1/v1")
    assert isinstance(built, Advises) and "openai.responses" in built.advice()[0]


def test_a_setting_goes_to_its_place_or_is_refused() -> None:
    with strictly_serving(Echo()) as url:
        built = agent("openai.responses", url)
        with pytest.raises(BadRequest, match="temperature"):
            run(built, task("2?", temperature=0.7))
        with pytest.raises(BadRequest, match="top_p"):
            run(agent("openai.assistant", url), task("2?", top_p=0.7))
        assert run(agent("openai.responses", url, send=["temperature"]), task("2?", temperature=0.7)).output == "2?"


def test_what_the_responses_api_cannot_do_is_refused_and_not_dropped() -> None:
    model = build_model({"provider": "openai.responses", "params": {"model": "m", "base_url": "http://127.0.0.1:1/v1"}})
    for request in (
        ChatRequest(prompt="x"),
        ChatRequest((Message("user", "x"),), stop=(".",)),
        ChatRequest((Message("user", "x"),), top_logprobs=3),
    ):
        with pytest.raises(BadRequest):
            asyncio.run(model.complete(request))
