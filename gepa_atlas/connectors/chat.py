"""The `chat` provider: a model and a system prompt. The plain "optimize my prompt" case, as chat or as a plain few-shot completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from gepa_atlas import wire
from gepa_atlas.connectors.answers import FieldPath, field
from gepa_atlas.connectors.placement import Placement, chat_turns, few_shot_text, join, no_place_for
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.errors import BadRequest, EmptyAnswer
from gepa_atlas.ports import Agent, ChatModel, ChatRequest, Completion, Endpoint, PreviewsChat
from gepa_atlas.settings import Settings, load
from gepa_atlas.types import Attempt, Message, StopReason, Task, canonical, digest

_VERSION = 2  # of the way requests are put together; part of the identity


class ChatParams(Placement):
    """`mode: completion` sends one text (instruction, labelled pairs, the open pair) and stops at the newline."""

    model: Any  # a model as `build_model` takes it: a name, or {provider, params}
    mode: Literal["chat", "completion"] = "chat"
    guidance: Literal["prefix", "suffix", "system", "field", "turns"] = "system"
    system_prompt: str = ""
    replace_system: bool = True  # guidance takes the place of system_prompt; false: it follows it
    turn_reply: str = "Understood."  # the assistant's answer to guidance given as a turn
    input_label: str = "Input:"
    output_label: str = "Output:"
    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0)
    seed: int = 0
    stop: tuple[str, ...] | None = None  # None: nothing in chat, the newline in completion
    strip: bool = True  # white space around the output
    json_schema: dict[str, Any] | None = None  # structured output: the model answers with a JSON document of this schema
    response_field: FieldPath | None = None  # where the answer is in an output that is a JSON document

    @model_validator(mode="after")
    def _placeable(self) -> ChatParams:
        if self.mode == "completion" and self.json_schema is not None:
            raise ValueError("json_schema: a completion is plain text; use mode: chat")
        if self.guidance == "field":
            raise ValueError("guidance: a chat has no fields; use system, prefix, suffix or turns")
        if self.mode == "completion" and self.guidance != "system":
            raise ValueError("guidance: a completion has one place for it, ahead of the examples; leave out `guidance` or set it to system")
        return self


class ChatAgent:
    """Shares its model's endpoint, so that rollouts and other calls of that model are limited together."""

    def __init__(self, model: ChatModel, params: ChatParams) -> None:
        self._model = model
        self._params = params
        shown = params.model_dump(mode="json", include=set(ChatParams.model_fields) - {"model"})
        self._identity = "chat:" + digest({"version": _VERSION, "model": model.identity, "params": shown}, 16)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._model.endpoint

    def preview(self, task: Task) -> dict[str, Any]:
        request = self.request(task)
        return self._model.preview_chat(request) if isinstance(self._model, PreviewsChat) else request.to_json()

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. An empty text is EmptyAnswer in chat; a completion that stops at once has answered, with nothing."""
        request = self.request(task)
        completion = await self._model.complete(request)
        text = completion.text.strip() if self._params.strip else completion.text
        if not text.strip() and (self._params.mode == "chat" or completion.finish == "length"):
            raise EmptyAnswer(_why_empty(completion, request))
        if self._params.response_field is not None:
            who = self._model.endpoint.name
            text = field(wire.json_body(text.encode("utf-8", "replace"), who), self._params.response_field, who) or ""
            if not text.strip():
                raise EmptyAnswer(f"the model's answer has nothing at {self._params.response_field!r} (response_field)")
        stop = StopReason.LENGTH if completion.finish == "length" else StopReason.DONE
        return Attempt(text, completion.usage, stop, (*_shown(request), Message("assistant", completion.text)))

    def request(self, task: Task) -> ChatRequest:
        """What is sent for this task; pure. Raises BadRequest for a setting that a chat model does not take."""
        p = self._params
        stop = p.stop if p.stop is not None else ("\n",) if p.mode == "completion" else ()
        base = ChatRequest(max_tokens=p.max_tokens, temperature=p.temperature, stop=stop, seed=p.seed, sample=task.sample)
        base = _with_settings(base, task)
        if p.mode == "chat":
            base = replace(base, json_schema=canonical(p.json_schema) if p.json_schema is not None else None)
            turns = chat_turns(task, p, system=p.system_prompt, replace_system=p.replace_system, reply=p.turn_reply)
            return replace(base, messages=turns)
        text = task.guidance.text
        instruction = text if text and p.replace_system else join([p.system_prompt, text], p)
        prompt = few_shot_text(task, p, instruction=instruction, input_label=p.input_label, output_label=p.output_label)
        return replace(base, prompt=prompt)


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    checked = load(ChatParams, params, surroundings.where)
    return ChatAgent(surroundings.build_model(checked.model), checked)


def build_over(
    provider: str, keys: type[ChatParams], model_keys: type[Settings], params: Mapping[str, Any], surroundings: Surroundings
) -> Agent:
    """The agent of a model provider that takes the keys of a chat and of the model side by side; `keys` has both."""
    load(keys, params, surroundings.where)
    inner = {name: value for name, value in params.items() if name in model_keys.model_fields}
    model = surroundings.build_model({"provider": provider, "params": inner})
    chat = {name: value for name, value in params.items() if name in ChatParams.model_fields}
    return ChatAgent(model, load(ChatParams, chat, surroundings.where))


def _with_settings(request: ChatRequest, task: Task) -> ChatRequest:
    settings = dict(task.guidance.settings)
    if refused := no_place_for(settings, ("max_tokens", "temperature"), "a chat model"):
        raise refused
    if "max_tokens" in settings:
        tokens = settings["max_tokens"]
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
            raise BadRequest(f"the candidate sets max_tokens to {tokens!r}; it must be a whole number from 1 up")
        request = replace(request, max_tokens=tokens)
    if "temperature" in settings:
        heat = settings["temperature"]
        if isinstance(heat, bool | str) or not 0 <= heat < float("inf"):
            raise BadRequest(f"the candidate sets temperature to {heat!r}; it must be a finite number from 0 up")
        request = replace(request, temperature=float(heat))
    return request


def _why_empty(completion: Completion, request: ChatRequest) -> str:
    if completion.finish == "length":
        return f"the model spent its {request.max_tokens} tokens without an answer; raise max_tokens"
    return "the model answered nothing"


def _shown(request: ChatRequest) -> tuple[Message, ...]:
    return request.messages if request.prompt is None else (Message("user", request.prompt),)
