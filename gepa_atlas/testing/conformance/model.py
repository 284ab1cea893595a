"""The exam of the ChatModel port."""

from __future__ import annotations

import asyncio
from unittest import SkipTest

from gepa_atlas.errors import CallError, CallTimeout
from gepa_atlas.ports import ChatModel, ChatRequest, Completion
from gepa_atlas.testing.conformance.common import HOSTILE, check_endpoint, check_identity, given
from gepa_atlas.types import Message, canonical


class ChatModelConformance:
    """The exam of a ChatModel. Switch off what a model does not do: it must then refuse with a CallError, not pretend."""

    deterministic = True
    completes_prompts = True  # answers `prompt` requests
    stops = True  # honours stop sequences and max_tokens
    reports_logprobs = False  # honours top_logprobs
    secrets: tuple[str, ...] = ()

    def make(self) -> ChatModel:
        raise NotImplementedError("return a model that answers")

    def make_echo(self) -> ChatModel | None:
        """An instance wired so that the texts that were sent come back as the answer."""
        return None

    def make_failing(self) -> ChatModel | None:
        return None

    def make_silent(self) -> ChatModel | None:
        return None

    def request(self) -> ChatRequest:
        return ChatRequest((Message("system", "Answer with one word."), Message("user", "Capital of France?")), max_tokens=16)

    def test_it_is_a_chat_model(self) -> None:
        model = self.make()
        assert isinstance(model, ChatModel)
        check_endpoint(model.endpoint, self.secrets)

    def test_identity_is_stable_and_free_of_secrets(self) -> None:
        check_identity(self.make().identity, self.make().identity, self.secrets)

    def test_it_answers_and_the_answer_survives_the_ledger(self) -> None:
        async def story() -> None:
            made = await self.make().complete(self.request())
            assert isinstance(made, Completion) and isinstance(made.text, str) and made.finish in ("stop", "length")
            assert made.usage.seconds >= 0 and made.usage.calls >= 1
            assert Completion.from_json(made.to_json()).to_json() == made.to_json(), "a completion survives the ledger"
            assert canonical(made.to_json())

        asyncio.run(story())

    def test_the_same_request_gets_the_same_answer(self) -> None:
        if not self.deterministic:
            raise SkipTest("not promised")

        async def story() -> None:
            model = self.make()
            assert (await model.complete(self.request())).text == (await model.complete(self.request())).text

        asyncio.run(story())

    def test_a_plain_prompt_is_completed_or_refused(self) -> None:
        async def story() -> None:
            request = ChatRequest(prompt="Q: capital of France?\nA:", max_tokens=8, stop=("\n",))
            try:
                made = await self.make().complete(request)
            except CallError as error:
                assert not self.completes_prompts, f"completes_prompts is promised; {error.kind}: {error}"
            else:
                assert self.completes_prompts and isinstance(made.text, str)
                assert not self.stops or "\n" not in made.text, "a stop sequence is no part of the text"

        asyncio.run(story())

    def test_max_tokens_cuts(self) -> None:
        if not self.stops:
            raise SkipTest("not promised")

        async def story() -> None:
            request = ChatRequest((Message("user", "Count from 1 to 50, separated by spaces."),), max_tokens=3)
            made = await self.make().complete(request)
            assert made.usage.output_tokens is None or made.usage.output_tokens <= 3, made
            assert made.finish == "length", f"three tokens do not finish this: {made}"

        asyncio.run(story())

    def test_logprobs_are_reported(self) -> None:
        if not self.reports_logprobs:
            raise SkipTest("not promised")

        async def story() -> None:
            request = ChatRequest(prompt="yes or no? Answer:", max_tokens=1, top_logprobs=5)
            made = await self.make().complete(request)
            assert 1 <= len(made.logprobs) <= 5 and all(p <= 1e-6 for _, p in made.logprobs), made.logprobs

        asyncio.run(story())

    def test_hostile_texts_arrive_unchanged(self) -> None:
        async def story() -> None:
            model = given(self.make_echo(), "make_echo")
            for text in HOSTILE:
                for turns in ((Message("user", text),), (Message("system", text), Message("user", "short"))):
                    assert text in (await model.complete(ChatRequest(turns))).text, f"changed: {text[:60]!r} as {turns[0].role}"

        asyncio.run(story())

    def test_a_failure_is_raised_and_never_an_answer(self) -> None:
        async def story() -> None:
            model = given(self.make_failing(), "make_failing")
            try:
                made = await model.complete(self.request())
            except CallError as error:
                assert str(error).strip() and "\n" not in str(error), f"an error is one clear line: {error}"
                assert not [s for s in self.secrets if s in str(error)], "the message contains a secret"
            else:
                raise AssertionError(f"a failing model must raise CallError; it returned {made.text!r:.200}")

        asyncio.run(story())

    def test_silence_ends_in_a_timeout(self) -> None:
        async def story() -> None:
            model = given(self.make_silent(), "make_silent")
            try:
                await asyncio.wait_for(model.complete(self.request()), 10 * model.endpoint.timeout + 5)
            except CallTimeout:
                return
            raise AssertionError("a silent model must raise CallTimeout")

        asyncio.run(story())
