"""The litellm provider, for real: litellm speaks over loopback to the served embedded model and to servers that refuse."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from gepa_atlas.errors import AuthRefused, BadRequest, CallError, CallTimeout, MissingExtra, NotFound, RateLimited, ServerFault, Unreachable
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.llm.registry import build_model
from gepa_atlas.llm.serve import serving
from gepa_atlas.ports import Case, ChatRequest, Completion
from gepa_atlas.rim import RimConfig, build_panel
from gepa_atlas.settings import load
from gepa_atlas.types import Example, Message
from tests.connectors.faults import misbehaving
from tests.llm.test_openai_compatible import KEY, Slow, ok, replying
from tests.rim.test_structured import LADDER, Vendor

needs_litellm = pytest.mark.skipif(
    importlib.util.find_spec("litellm") is None, reason="litellm is not installed: pip install 'gepa-atlas[litellm]'"
)

pytestmark = [
    # litellm's own warnings are not ours to fix
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHAT = ChatRequest((Message("system", "Answer briefly."), Message("user", "Name a {colour}.")), max_tokens=5, top_logprobs=3)


def ask(base_url: str, request: ChatRequest = CHAT, *, model: str = "openai/local", **params: Any) -> Completion:
    spec = {"provider": "litellm", "params": {"model": model, "api_base": base_url, "api_key_env": "A_KEY", **params}}
    return asyncio.run(build_model(spec).complete(request))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)


@needs_litellm
@pytest.mark.local
def test_the_served_embedded_model_through_litellm(local_model: LocalModel) -> None:
    with serving(local_model) as url:
        chat = ask(url)
        text = ask(url, ChatRequest(prompt="Red, green,", max_tokens=5), model="text-completion-openai/local")
    here = asyncio.run(local_model.complete(CHAT))
    assert (chat.text, chat.logprobs, chat.finish) == (here.text, here.logprobs, here.finish)
    assert chat.usage.input_tokens == here.usage.input_tokens
    assert chat.usage.dollars is None  # litellm's price map does not know it
    assert text.text == asyncio.run(local_model.complete(ChatRequest(prompt="Red, green,", max_tokens=5))).text


@needs_litellm
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, {"error": {"message": "slow"}}, RateLimited),
        (429, {"error": {"message": "no money", "code": "insufficient_quota"}}, AuthRefused),
        (500, {"error": {"message": "oops"}}, ServerFault),
        (503, {"error": {"message": "busy"}}, RateLimited),
        (401, {"error": {"message": f"bad key {KEY}"}}, AuthRefused),
        (403, {"error": {"message": "not you"}}, AuthRefused),
        (404, {"error": {"message": "no such model"}}, NotFound),
        (400, {"error": {"message": "too long"}}, BadRequest),
    ],
)
def test_a_refusal_is_its_error_after_one_attempt(status: int, body: Any, error: type[CallError]) -> None:
    with replying(status, body, {"retry-after": "7"}) as (url, seen), pytest.raises(CallError) as caught:
        ask(url)
    assert type(caught.value) is error and len(seen) == 1 and KEY not in str(caught.value)
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 7


@needs_litellm
def test_deadline_connection_and_price() -> None:
    with serving(Slow(30)) as url, pytest.raises(CallTimeout):
        ask(url, timeout=0.3)
    with pytest.raises(Unreachable):
        ask("http://127.0.0.1:1/v1")
    with replying(200, ok() | {"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}) as (url, seen):
        assert ask(url, model="openai/gpt-4o-mini").usage.dollars == pytest.approx(1000 * 0.15e-6 + 500 * 0.6e-6)
        assert ask(url, price={"input": 1, "output": 2}).usage.dollars == pytest.approx(0.002)
    assert seen[0][1]["messages"][1]["content"] == "Name a {colour}."


@needs_litellm
def test_building_a_model_does_not_import_litellm() -> None:
    code = "import sys; from gepa_atlas.llm.registry import build_model; build_model('openai/gpt-5-mini'); print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_without_litellm_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtra, match=r"gepa-atlas\[litellm\]"):
        build_model("openai/gpt-5-mini")


@needs_litellm
@LADDER
def test_json_is_asked_for_as_far_as_the_vendor_can(takes: tuple[str, ...], forms: list[str]) -> None:
    vendor = Vendor(takes)
    with misbehaving() as server:
        server.answer = vendor.answer
        params = {"model": "openai/m", "api_base": f"http://127.0.0.1:{server.port}/v1", "api_key_env": "A_KEY"}
        judge = {"type": "llm", "model": {"provider": "litellm", "params": params}}
        panel = build_panel(load(RimConfig, {"judges": [judge]}, "rim"), model=build_model)

        async def both() -> list[float | None]:
            return [(await panel.score(Case(Example("e", "q"), said))).value for said in ("one", "two")]

        assert asyncio.run(both()) == [0.75, 0.75]
    assert vendor.forms == forms
