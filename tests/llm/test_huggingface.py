"""The huggingface provider with a real, tiny model of transformers, made on the spot. Needs the extra [huggingface]."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import BadRequest, ConfigError, MissingExtra, Permanent
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import ChatModel, ChatRequest, Completion
from gepa_atlas.testing.conformance import ChatModelConformance
from gepa_atlas.types import Message, Question, Task

installed = all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))
needs_transformers = pytest.mark.skipif(not installed, reason="transformers is not installed: pip install 'gepa-atlas[huggingface]'")
theirs = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


def model(directory: Path, **params: Any) -> ChatModel:
    return build_model({"provider": "huggingface", "params": {"model": str(directory), "device": "cpu", **params}})


def ask(built: ChatModel, request: ChatRequest) -> Completion:
    return asyncio.run(built.complete(request))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.llm.tiny_model import make

    return make(tmp_path_factory.mktemp("tiny"))


@needs_transformers
class TestHuggingFaceModel(ChatModelConformance):
    pytestmark = theirs
    reports_logprobs = True

    @pytest.fixture(autouse=True)
    def _tiny(self, tiny: Path) -> None:
        self._directory = tiny

    def make(self) -> ChatModel:
        return model(self._directory)

    def make_failing(self) -> ChatModel:
        return _Overlong(self.make())

    def make_silent(self) -> ChatModel:
        return _Endless(model(self._directory, timeout=0.05))


class _Overlong:
    """Asks the real model what its context has no room for."""

    def __init__(self, inner: ChatModel) -> None:
        self._inner = inner
        self.identity = inner.identity
        self.endpoint = inner.endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        return await self._inner.complete(ChatRequest(prompt="far too long " * 3000))


class _Endless(_Overlong):
    """Asks the real model for more than it can write in its time."""

    async def complete(self, request: ChatRequest) -> Completion:
        return await self._inner.complete(ChatRequest((Message("user", "Tell me a story."),), max_tokens=1900))


@needs_transformers
class TestWithTransformers:
    pytestmark = theirs

    def test_the_text_is_what_transformers_itself_writes(self, tiny: Path) -> None:
        import transformers

        request = ChatRequest((Message("system", "Be brief."), Message("user", "2 + 2?")), max_tokens=24)
        said = ask(model(tiny), request)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tiny)
        made: Any = transformers.AutoModelForCausalLM.from_pretrained(tiny)
        ids = tokenizer("<system>Be brief.\n<user>2 + 2?\n<assistant>", return_tensors="pt")
        written = made.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert said.text == tokenizer.decode(written, skip_special_tokens=True)
        assert (said.usage.input_tokens, said.usage.dollars) == (ids["input_ids"].shape[1], 0.0)

    def test_heat_follows_the_seed_and_the_sample(self, tiny: Path) -> None:
        built = model(tiny)
        texts = [
            ask(built, ChatRequest(prompt="a", max_tokens=16, temperature=1.0, seed=s, sample=n)).text for s, n in ((1, 0), (1, 0), (1, 1))
        ]
        assert texts[0] == texts[1] != texts[2]

    def test_what_it_cannot_do_is_an_error_with_the_reason(self, tiny: Path, tmp_path: Path) -> None:
        from tests.llm.tiny_model import make

        plain = make(tmp_path / "plain", chat=False, positions=64)
        with pytest.raises(BadRequest, match="no chat template: use mode: completion"):
            ask(model(plain), ChatRequest((Message("user", "x"),)))
        with pytest.raises(BadRequest, match="do not fit its context of 64"):
            ask(model(plain), ChatRequest(prompt="x", max_tokens=64))
        with pytest.raises(BadRequest, match="JSON schema"):
            ask(model(tiny), ChatRequest((Message("user", "x"),), json_schema="{}"))
        (plain / "model.safetensors").write_bytes(b"not weights")
        with pytest.raises(Permanent, match="plain"):
            ask(model(plain, dtype="float32"), ChatRequest(prompt="x", max_tokens=4))

    def test_as_an_agent(self, tiny: Path) -> None:
        params = {"model": str(tiny), "device": "cpu", "system_prompt": "Be brief.", "max_tokens": 8, "strip": False}
        built = build_agent(AgentSpec(provider="huggingface", params=params), build_model=build_model)
        assert asyncio.run(built.run(Task(Question("q", "2 + 2?")))).output

    def test_another_type_or_other_files_are_another_model(self, tiny: Path, tmp_path: Path) -> None:
        from tests.llm.tiny_model import make

        identities = {model(tiny).identity, model(tiny, dtype="bfloat16").identity, model(make(tmp_path / "m", positions=64)).identity}
        assert len(identities) == 3 and model(tiny, timeout=9).identity in identities

    def test_a_directory_without_a_model_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"config\.json is missing"):
            model(tmp_path)


def test_without_the_package_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"gepa-atlas\[huggingface\]"):
        model(Path("somewhere"))
