"""The exam of the ChatModel port, taken by the embedded model and by the OpenAI-compatible one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gepa_atlas.llm.local import LocalModel, LocalParams
from gepa_atlas.llm.openai_compatible import OpenAIModel, OpenAIParams
from gepa_atlas.llm.serve import serving
from gepa_atlas.ports import ChatModel, ChatRequest, Completion, Endpoint
from gepa_atlas.testing.conformance import ChatModelConformance
from gepa_atlas.types import Message, Usage
from tests.llm.test_openai_compatible import KEY, Slow, replying


@pytest.mark.local
class TestLocalModel(ChatModelConformance):
    reports_logprobs = True

    @pytest.fixture(autouse=True)
    def _shared(self, local_model: LocalModel) -> None:
        self._model = local_model

    def make(self) -> ChatModel:
        return LocalModel()

    def make_failing(self) -> ChatModel:
        return _Overlong(self._model)

    def make_silent(self) -> ChatModel:
        return _Endless(LocalModel(LocalParams(timeout=0.2)))


class _Overlong:
    """Asks the real model what its context has no room for."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self.identity = model.identity
        self.endpoint = model.endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        return await self._model.complete(ChatRequest(prompt="far too long " * 3000))


class _Endless(_Overlong):
    """Asks the real model for more than it can write in its time."""

    async def complete(self, request: ChatRequest) -> Completion:
        return await self._model.complete(ChatRequest((Message("user", "Tell me the longest story you know."),), max_tokens=1800))


class Echo:
    identity = "echo"
    endpoint = Endpoint("echo")

    async def complete(self, request: ChatRequest) -> Completion:
        text = "\n".join(m.content for m in request.messages) + (request.prompt or "")
        cut = request.max_tokens < 5
        logprobs = (("a", -0.1),) if request.top_logprobs else ()
        return Completion(text.split("\n")[-1] if request.stop else text, Usage(1, 1, 0.0, 0.0, 1), "length" if cut else "stop", logprobs)


class TestOpenAIModel(ChatModelConformance):
    reports_logprobs = True
    secrets = (KEY,)

    @pytest.fixture(autouse=True)
    def _servers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("A_KEY", KEY)
        with ExitStack() as stack:
            self._echo = stack.enter_context(serving(Echo()))
            self._failing, _ = stack.enter_context(replying(500, {"error": {"message": f"lines\nand {KEY}"}}))
            self._silent = stack.enter_context(serving(Slow(60)))
            yield

    def _at(self, url: str, timeout: float = 20.0) -> OpenAIModel:
        return OpenAIModel(OpenAIParams(model="m", base_url=url, api_key_env="A_KEY", timeout=timeout))

    def make(self) -> ChatModel:
        return self._at(self._echo)

    def make_echo(self) -> ChatModel:
        return self._at(self._echo)

    def make_failing(self) -> ChatModel:
        return self._at(self._failing)

    def make_silent(self) -> ChatModel:
        return self._at(self._silent, 0.2)


def test_a_hundred_calls_at_once_over_one_connection_pool() -> None:
    with serving(Echo()) as url:
        model = OpenAIModel(OpenAIParams(model="m", base_url=url))

        async def go() -> list[Completion]:
            return await asyncio.gather(*(model.complete(ChatRequest((Message("user", f"number {n}"),))) for n in range(100)))

        assert [c.text for c in asyncio.run(go())] == [f"number {n}" for n in range(100)]
